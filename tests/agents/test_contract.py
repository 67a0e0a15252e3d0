"""Mistakes in an agent of the user's are one sentence, where torch only says that it cannot go on."""

from dataclasses import dataclass

import pytest
import torch

import whorl
from tests.cases import each
from whorl.agents.a2c import A2C, A2CConfig
from whorl.agents.agent import Agent
from whorl.agents.contract import numbers
from whorl.agents.dqn import DQN, DQNConfig
from whorl.agents.step import mean
from whorl.envs.make import make_env
from whorl.errors import AgentError, BadInput
from whorl.feeds import Replay, Rollouts
from whorl.training.build import build

HALF = Rollouts(steps=8, minibatches=2)


def own(loss):
    def wrapped(self, batch):
        return loss(*A2C.loss(self, batch))

    wrapped.__name__ = "loss"
    return type("Mine", (A2C,), {"loss": wrapped})


LOST = torch.zeros((), requires_grad=True)
LOSSES = [
    (
        lambda value, metrics: value,
        r"must return \(loss, metrics\), one number and a dict of tensors, got float32 \(\)",
    ),
    (lambda value, metrics: (value * torch.ones(4), {}), r"such as a mean over the batch, got float32 \(4,\)"),
    (lambda value, metrics: None, "must return .*, got None"),
    (lambda value, metrics: (1.0, {}), "a tensor of one number as its loss, .* got a float"),
    (lambda value, metrics: (value, [value]), "metrics as a dict of tensors, got a list"),
    (lambda value, metrics: (value, {"x": 1.5}), "the metric 'x' as a float: metrics are tensors"),
    (lambda value, metrics: (value.detach(), {}), "a loss without a gradient"),
    (lambda value, metrics: (LOST.square(), {}), "depends on none of the 12 parameters"),
]


def refused(loss, message, **options):
    parts = build(own(loss), "CartPole-v1", A2CConfig(feed=HALF), num_envs=2, **options)
    with pytest.raises(AgentError, match=r"^Mine\.loss .*" + message):
        parts.train(16)


def test_what_a_loss_must_give():
    for loss, message in each(LOSSES):
        refused(loss, message)


@pytest.mark.compiled
def test_compiled_steps_say_the_same():
    for loss, message in each(LOSSES[:2]):
        refused(loss, message, update="compiled")


def test_what_an_update_must_give():
    prioritized = DQNConfig(feed=Replay(capacity=64, warmup=8, batch_size=4, replay_ratio=1.0, prioritized=True))
    for cls, config, given, message in each([
        (A2C, A2CConfig(feed=HALF), lambda metrics: None, "must return its metrics, a dict of tensors, got None"),
        (A2C, A2CConfig(feed=HALF), lambda metrics: (1, metrics), ".*a dict of tensors, got a tuple"),
        (DQN, prioritized, lambda metrics: {"x": torch.ones(())}, r"gives no 'priority' \[B\]: return it"),
        (DQN, prioritized, lambda metrics: {"priority": 1.0}, r"gives a float as 'priority' \[B\]"),
    ]):  # fmt: skip
        update = lambda self, batch, cls=cls, given=given: given(cls.update(self, batch))  # noqa: E731
        mine = type("Mine", (cls,), {"update": update})
        with pytest.raises(AgentError, match=r"^Mine\.update " + message):
            build(mine, "CartPole-v1", config, num_envs=2).train(32)


def test_an_error_of_the_loss_itself_stays_what_it_is():
    parts = build(own(lambda value, metrics: value.nothing), "CartPole-v1", A2CConfig(feed=HALF), num_envs=2)
    with pytest.raises(AttributeError, match="nothing"):
        parts.train(16)


def test_metrics_are_numbers():
    one, three = torch.ones(()), torch.ones(3)
    assert numbers({"a": one, "b": 2.0}) == {"a": 1.0, "b": 2.0}
    for history, message in each([
        ([{"a": one}, {"a": 1.0}], "'a' as a float"),
        ([{"a": three}, {"a": three}], r"'a' as float32 \(3,\): one number is logged"),
        ([{"a": one}, {"b": three}, {"b": one}], "'b' as float32"),
    ]):  # fmt: skip
        with pytest.raises(AgentError, match=message):
            mean(history)
    with pytest.raises(AgentError, match="the update gives the metric 'a' as float32"):
        numbers({"a": three, "b": 1.0})


@dataclass(frozen=True)
class NoFeed:
    learning_rate: float = 1.0


@dataclass(frozen=True)
class NoDefault:
    learning_rate: float
    feed: Rollouts = HALF


@dataclass(frozen=True)
class OtherFeed:
    feed: int = 3


def test_what_a_config_must_be():
    for config, message in each([
        (NoFeed, "NoFeed has no feed: an agent's config says how it wants its data"),
        (OtherFeed, "OtherFeed has feed = 3"),
        (NoDefault, "NoDefault needs a default for every field: learning_rate"),
        (A2CConfig(), "names no Config: it wants a frozen dataclass"),
        (int, "names no Config"),
    ]):  # fmt: skip
        with pytest.raises(BadInput, match=message):
            whorl.train(type("Mine", (A2C,), {"Config": config}), "CartPole-v1", quiet=True)


def test_what_an_agent_must_have():
    env = make_env("CartPole-v1")
    for attributes, message in each([
        ({"build": classmethod(lambda *_: None)}, "build must return the agent, got NoneType"),
        ({"build": classmethod(lambda cls, *spaces: Agent.build(*spaces))}, "has no `build`"),
        ({"loss": Agent.loss}, "Mine has no `loss`"),
        ({"policy": property(lambda self: torch.nn.Linear(4, 2), lambda self, value: None)}, "is a whorl Policy, got Linear"),
    ]):  # fmt: skip
        with pytest.raises(AgentError, match=message):
            build(type("Mine", (A2C,), attributes), env, A2CConfig(feed=HALF)).train(8)
    forgets = type("Mine", (A2C,), {"prepare": lambda self, rollout: None})
    with pytest.raises(whorl.errors.BatchError, match="an agent's `prepare` must return the rollout"):
        build(forgets, env, A2CConfig(feed=HALF)).train(8)
