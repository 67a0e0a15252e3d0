"""A3C: A2C with a `Shared` feed, as an ordinary agent. What is asynchronous about it: the tests of training's hogwild loop."""

from dataclasses import replace

import pytest
import torch
from gymnasium import spaces

from whorl.agents.a2c import A2C, A2CConfig
from whorl.agents.optimizers import adam, adam_state
from whorl.errors import BadInput, Incompatible
from whorl.feeds import Shared
from whorl.presets.a3c import DEFAULT
from whorl.training.build import build

FOUR, TWO = spaces.Box(-1.0, 1.0, (4,)), spaces.Discrete(2)


def test_n_step_returns_by_hand():
    """Rows up to the rollout's end are bootstrapped with the last value, rows up to an episode's end are not."""
    p = build("a3c", "CartPole-v1", replace(DEFAULT, discount=0.5, feed=Shared(steps=6)), num_envs=1)
    rollout = p.collector.collect()
    rollout["next", "terminated"][2] = True
    last = p.agent.value(rollout["next", "observation"][5]).item()
    value = p.agent.value(rollout["observation"])
    prepared = p.agent.prepare(rollout)
    tail = [1 + 0.5 * (1 + 0.5 * (1 + 0.5 * last)), 1 + 0.5 * (1 + 0.5 * last), 1 + 0.5 * last]
    torch.testing.assert_close(prepared["return"].flatten(), torch.tensor([1.75, 1.5, 1.0, *tail]))
    torch.testing.assert_close(prepared["advantage"], prepared["return"] - value)


def test_one_step_on_each_rollout():
    p = build("a3c", "CartPole-v1", DEFAULT, num_envs=2)
    assert isinstance(p.agent, A2C) and p.agent.config.feed == Shared(workers=2, steps=20)
    for _ in range(3):
        p.buffer.add(p.agent.prepare(p.collector.collect()))
        p.agent.learn(p.buffer)
    assert {float(state["step"]) for state in p.agent.optimizer.state.values()} == {3.0}


@pytest.mark.parametrize(
    ("feed", "error", "message"),
    [
        (Shared(workers=0), BadInput, "feed.workers must be at least 1, got 0"),
        (Shared(epochs=2), Incompatible, "feed.epochs and feed.minibatches must be 1, got 2 and 1"),
        (Shared(minibatches=4), Incompatible, "feed.epochs and feed.minibatches must be 1, got 1 and 4"),
    ],
)
def test_refuses(feed, error, message):
    with pytest.raises(error, match=message):
        build("a3c", "CartPole-v1", A2CConfig(feed=feed), num_envs=1)


def test_only_workers_are_held_to_one_step():
    config = A2CConfig(feed=replace(A2CConfig().feed, epochs=2, minibatches=4))
    assert A2C.build(FOUR, TWO, config).config.feed.epochs == 2


def test_moments_made_beforehand_are_those_that_adam_makes():
    weights = []
    for early in (False, True):
        weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        optimizer = adam([weight], 0.1)
        if early:
            adam_state(optimizer)
        assert (weight in optimizer.state) == early
        for _ in range(3):
            optimizer.zero_grad()
            (weight**2).sum().backward()
            optimizer.step()
        weights.append(weight.detach())
    assert torch.equal(*weights)
