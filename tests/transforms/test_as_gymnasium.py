"""Transforms around Gymnasium's environments give what Gymnasium's own wrappers give, successors at ends included."""

import gymnasium
import numpy as np
import pytest
from gymnasium import wrappers as theirs
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import vector

from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.make import make_env
from whorl.transforms.action import DiscretizeAction, ScaleAction, StickyAction
from whorl.transforms.env import Transformed
from whorl.transforms.episode import TimeLimit
from whorl.transforms.macro import Repeat
from whorl.transforms.reward import ClipReward, NormalizeReward, ScaleReward

N, STEPS = 3, 70


def actions(space, n=N):
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        if isinstance(space, gymnasium.spaces.Box):
            yield rng.uniform(space.low, space.high, (n, *space.shape)).astype(np.float32)
        else:
            yield rng.integers(0, getattr(space, "n", getattr(space, "nvec", None)), (n, *space.shape))


def same(theirs, ours, close=0.0):
    """Whether two environments go the same way; how many episodes ended."""
    assert theirs.action_space == ours.action_space
    np.testing.assert_array_equal(theirs.reset(5), ours.reset(5))
    ended = 0
    for action in actions(ours.action_space, ours.num_envs):
        one, other = theirs.step(action), ours.step(action)
        for a, b in zip(one[:5], other[:5], strict=True):
            np.testing.assert_allclose(a, b, close, close)
        ended += (one.terminated | one.truncated).sum()
    return ended


@pytest.mark.parametrize(
    ("id", "wrapper", "transform", "close"),
    [
        ("Pendulum-v1", lambda env: theirs.TimeLimit(env, 17), TimeLimit(17), 0),
        ("CartPole-v1", lambda env: theirs.TimeLimit(env, 12), TimeLimit(12), 0),
        ("Pendulum-v1", lambda env: theirs.RescaleAction(env, -0.5, 0.7), ScaleAction(-0.5, 0.7), 0),
        ("MountainCarContinuous-v0", lambda env: theirs.RescaleAction(env, -0.3, 3.0), ScaleAction(-0.3, 3.0), 0),
        ("Pendulum-v1", lambda env: theirs.DiscretizeAction(env, 5), DiscretizeAction(5), 0),
        ("Pendulum-v1", lambda env: theirs.DiscretizeAction(env, (4,), True), DiscretizeAction((4,), True), 0),
        ("CartPole-v1", lambda env: theirs.RepeatAction(env, 3), Repeat(3), 0),  # ends after 1, 2 and 3 of them
        ("Pendulum-v1", lambda env: theirs.RepeatAction(env, 3), Repeat(3), 2e-6),  # they add in float64
        ("Pendulum-v1", lambda env: theirs.MaxAndSkipObservation(env, 4), Repeat(4, maximum=True), 2e-6),
        ("Pendulum-v1", lambda env: theirs.ClipReward(env, -5, -1.5), ClipReward(-5, -1.5), 0),
        ("Pendulum-v1", lambda env: theirs.ClipReward(env, -5), ClipReward(-5, None), 0),
        ("Pendulum-v1", lambda env: theirs.TransformReward(env, lambda r: r * 0.1 + 2), ScaleReward(0.1, 2.0), 2e-6),
    ],
)  # fmt: skip
def test_a_wrapper(id, wrapper, transform, close):
    made = {"prefer": "gymnasium", "max_episode_steps": 40}
    assert same(make_env(id, N, wrappers=(wrapper,), **made), Transformed(make_env(id, N, **made), transform), close)


@pytest.mark.parametrize("id", ["Pendulum-v1", "CartPole-v1"])
def test_rewards_over_the_spread_of_returns(id):
    made = lambda: gymnasium.make_vec(  # noqa: E731
        id, N, "sync", vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP}, max_episode_steps=25
    )
    ours = Transformed(Gymnasium(made()), NormalizeReward(0.9))
    assert same(Gymnasium(vector.NormalizeReward(made(), 0.9)), ours, 2e-6)
    before = ours.learned()
    assert before["NormalizeReward1.count"] == pytest.approx(N * STEPS, abs=0.01)
    same(
        Transformed(Gymnasium(made()), ScaleReward(1 / (before["NormalizeReward1.variance"] + 1e-8) ** 0.5)),
        ours.train(False),
        2e-6,
    )
    assert ours.learned() == before  # it stood


class Counted:
    """The numbers that environment 0 draws of `sticky`."""

    def __init__(self, sticky):
        self.sticky = sticky

    def uniform(self):
        return self.sticky.uniform()[0]

    def integers(self, low, high):  # for how many steps
        return low


def test_sticky_actions_of_the_same_draws():
    sticky = StickyAction(0.6)

    class Sticky(theirs.StickyAction):
        np_random = Counted(sticky)

    made = {"prefer": "gymnasium", "max_episode_steps": 30}
    one = make_env("CartPole-v1", 1, wrappers=(lambda env: Sticky(env, 0.6),), **made)
    assert same(one, Transformed(make_env("CartPole-v1", 1, **made), sticky))
