"""Environments of the old package gym: steps of four things against a stand-in, 0.26 in test_adapters.py where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from whorl.envs.adapters.gym_old import Old, space
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.make import make_env
from whorl.errors import BadInput, Incompatible


@pytest.fixture(autouse=True)
def gym(standins):
    standins("gym")
    import gym

    return gym


def test_spaces(gym):
    old = gym.spaces
    seen = space(old.Dict({"a": old.Box(-1, 2, (2, 3)), "b": old.Discrete(4)}))
    assert seen == spaces.Dict({"a": spaces.Box(-1, 2, (2, 3)), "b": spaces.Discrete(4)})
    with pytest.raises(Incompatible, match="of gym has no array form: put a wrapper around the environment"):
        space(old.Graph())


def test_done_is_terminated_unless_a_time_limit_cut_it():
    env, ends = make_env("gym/Walk-v0", 4, seed=1, step_size=0.2), []
    env.reset()
    rng = np.random.default_rng(0)
    for _ in range(200):
        step = env.step(rng.integers(0, 3, 4))
        ended = step.terminated | step.truncated
        assert not (step.terminated & step.truncated).any()
        there = np.abs(step.next_observation["where"][:, 0])
        assert ((there > 3) == step.terminated)[ended].all()
        assert (step.next_observation["where"][step.truncated, 1] == 30).all()
        ends += [*step.terminated[ended]]
    assert True in ends and False in ends


def test_an_object_of_the_users(gym):
    env = Gymnasium(lambda: Old(gym.make("Walk-v0")), 2, seed=3)
    assert (env.reset()["where"] == make_env("gym/Walk-v0", 2, seed=3).reset()["where"]).all()  # seeds reach `seed`
    assert make_env("gym/Walk-v0", render_mode="rgb_array").render().shape == (8, 8, 3)


def test_an_id_that_gym_does_not_have():
    with pytest.raises(BadInput, match="No registered env with id: Nothing-v0"):
        make_env("gym/Nothing-v0")
    with pytest.raises(BadInput, match="is stepped by gym on the CPU, got device='cuda'"):
        make_env("gym/Walk-v0", device="cuda")
    with pytest.raises(BadInput, match="prefer must be 'native' or 'gym', got 'gymnasium'"):
        make_env("gym/Walk-v0", prefer="gymnasium")
