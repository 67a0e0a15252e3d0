"""Transforms of actions, by hand."""

import numpy as np
import pytest
import torch

from tests.transforms.worlds import Choices, Masked
from whorl.collectors.serial import SerialCollector
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.make import make_env
from whorl.errors import BadInput, Incompatible
from whorl.policies.random import Random
from whorl.transforms.action import (
    DiscretizeAction,
    FlattenAction,
    MaskAction,
    ProjectAction,
    ScaleAction,
    StickyAction,
)
from whorl.transforms.env import Transformed


def test_choices_as_one():
    env = Transformed(Gymnasium(Choices, 6), FlattenAction())
    env.reset(0)
    assert env.action_space.n == 6 and env.action_mask.all()
    assert env.step(np.arange(6)).reward.tolist() == [0, 1, 2, 10, 11, 12]
    assert env.action_mask.tolist() == [[True] * 3 + [False] * 3] * 6  # the first choice's 1 is forbidden
    assert env.restart(np.arange(6) < 1).shape == (6, 1) and env.action_mask.sum(1).tolist() == [6, 3, 3, 3, 3, 3]
    inside = FlattenAction()
    inside.spaces(env.env.observation_space, env.env.action_space)
    assert inside.action(torch.tensor([[5, 3]])).tolist() == [[[1, 2], [1, 0]]]


def test_bins():
    transform = DiscretizeAction([4], multi=True)
    env = Transformed(make_env("Pendulum-v1", 4), transform)
    assert transform.action(np.arange(4)[:, None]).tolist() == [[-1.5], [-0.5], [0.5], [1.5]]
    assert env.action_space.nvec.tolist() == [4]


def test_choices_beyond_those_there_are():
    env = Transformed(Gymnasium(Masked, 5), MaskAction("legal"), ProjectAction(5))
    env.reset(0)
    assert env.action_mask.tolist() == [[True, False, False, True, False]] * 5
    assert env.step(np.arange(5)).reward.tolist() == [0, 1, 2, 0, 1]


def test_a_mask_out_of_the_observation():
    """It allows one more action at each step; at the end none, and then those of the fresh episode."""
    env = Transformed(Gymnasium(Masked, 2), MaskAction("legal"))
    assert env.observation_space.shape == (1,)
    rollout = SerialCollector(env, Random(env.action_space), 10).collect()
    assert rollout["action_mask"][:, 0].sum(-1).tolist() == [1, 2, 3, 3, 3] * 2
    assert (rollout["action"][::5] == 0).all() and rollout["next", "terminated"][4].all()


def test_sticky_actions():
    sticky = StickyAction(0.4)
    env = Transformed(make_env("CartPole-v1", 64, max_episode_steps=9), sticky)
    env.reset(7)
    rng, before, repeated, first = np.random.default_rng(0), np.full(64, -1), [], np.ones(64, bool)
    for _ in range(50):
        action = rng.integers(0, 2, 64)
        step = env.step(action)
        done = sticky.memory["last"]
        assert (done[first] == action[first]).all()
        assert np.isin(done, (0, 1)).all() and (done[done != action] == before[done != action]).all()
        repeated.append((done != action)[~first & (action != before)])
        first, before = step.terminated | step.truncated, done.copy()
    assert np.concatenate(repeated).mean() == pytest.approx(0.4, abs=0.05)
    other = StickyAction(0.4)
    few = Transformed(make_env("CartPole-v1", 3), other)
    env.reset(7), few.reset(7)
    np.testing.assert_array_equal(sticky.uniform()[:3], other.uniform())  # of any number of environments


def test_what_does_not_fit():
    pendulum, cartpole = make_env("Pendulum-v1", 2), make_env("CartPole-v1", 2)
    for env, transform, message in (
        (cartpole, DiscretizeAction(3), r"cuts a Box with bounds into bins, and the action is Discrete\(2\)"),
        (pendulum, DiscretizeAction([3, 3]), "bins are 2 numbers, and the action .* has 1"),
        (pendulum, FlattenAction(), "it flattens discrete actions of several parts"),
        (pendulum, DiscretizeAction([2_000_000]), "its bins are 1 times 2,000,000, and 1,048,576 are the most"),
        (pendulum, ProjectAction(3), "it projects 3 choices onto no more than those"),
        (cartpole, ProjectAction(1), r"it projects 1 choices onto no more than those, and the action is Discrete\(2\)"),
        (cartpole, MaskAction(), "takes 'action_mask' out of a Dict of more, and the observation is Box"),
        (Gymnasium(Masked, 2), MaskAction("place"), r"the entry 'place', Box.* is no mask of the action Discrete\(3\)"),
    ):
        with pytest.raises(Incompatible, match=message):
            Transformed(env, transform)
    for wrong, message in (
        (lambda: StickyAction(1.0), r"a probability in \[0, 1\), got 1.0"),
        (lambda: DiscretizeAction(0), "at least 1 bin, got 0"),
        (lambda: ScaleAction(1, 1), "low < high, got 1 and 1"),
    ):
        with pytest.raises(BadInput, match=message):
            wrong()
