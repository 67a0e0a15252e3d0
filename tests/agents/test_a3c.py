"""A3C as an ordinary agent. What is asynchronous about it: tests/training/loops/test_hogwild.py."""

import pytest
import torch
from gymnasium import spaces

from whorl.agents.a3c import A3C, A3CConfig, shared_adam
from whorl.agents.agent import adam
from whorl.errors import BadInput, Incompatible
from whorl.feeds import Rollouts
from whorl.training.build import build

FOUR, TWO = spaces.Box(-1.0, 1.0, (4,)), spaces.Discrete(2)


def test_n_step_returns_by_hand():
    """Rows up to the rollout's end are bootstrapped with the last value, rows up to an episode's end are not."""
    p = build("a3c", "CartPole-v1", A3CConfig(discount=0.5, feed=Rollouts(steps=6)), num_envs=1)
    rollout = p.collector.collect()
    rollout["next", "terminated"][2] = True
    last = p.agent.value(rollout["next", "observation"][5]).item()
    value = p.agent.value(rollout["observation"])
    prepared = p.agent.prepare(rollout)
    tail = [1 + 0.5 * (1 + 0.5 * (1 + 0.5 * last)), 1 + 0.5 * (1 + 0.5 * last), 1 + 0.5 * last]
    torch.testing.assert_close(prepared["return"].flatten(), torch.tensor([1.75, 1.5, 1.0, *tail]))
    torch.testing.assert_close(prepared["advantage"], prepared["return"] - value)


def test_one_step_on_each_rollout():
    p = build("a3c", "CartPole-v1", A3CConfig(), num_envs=2)
    for _ in range(3):
        p.buffer.add(p.agent.prepare(p.collector.collect()))
        p.agent.learn(p.buffer)
    assert {float(state["step"]) for state in p.agent.optimizer.state.values()} == {3.0}


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"workers": 0}, BadInput, "workers must be at least 1, got 0"),
        ({"feed": Rollouts(epochs=2)}, Incompatible, "feed.epochs and feed.minibatches must be 1, got 2 and 1"),
        ({"feed": Rollouts(minibatches=4)}, Incompatible, "feed.epochs and feed.minibatches must be 1, got 1 and 4"),
    ],
)
def test_refuses(fields, error, message):
    with pytest.raises(error, match=message):
        A3C.build(FOUR, TWO, A3CConfig(**fields))


def test_moments_made_beforehand_are_those_that_adam_makes():
    weights = []
    for make in (adam, shared_adam):
        weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        optimizer = make([weight], 0.1)
        assert (weight in optimizer.state) == (make is shared_adam)
        for _ in range(3):
            optimizer.zero_grad()
            (weight**2).sum().backward()
            optimizer.step()
        weights.append(weight.detach())
    assert torch.equal(*weights)
