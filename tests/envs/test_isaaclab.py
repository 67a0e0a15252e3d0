"""The adapter of Isaac Lab against a stand-in with its documented interface."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from whorl.envs.check import check_env
from whorl.envs.make import make_env
from whorl.errors import BadInput, Incompatible

ID = "isaaclab/Isaac-Cartpole-v0"


@pytest.fixture(autouse=True)
def library(standins):
    standins("isaaclab")
    standins("isaaclab_tasks")


def test_what_an_agent_sees():
    env = make_env(ID, 3, seed=4, sim_device="cpu")
    assert (env.id, env.max_episode_steps, env.made_from.kwargs) == (
        ID,
        25,
        {"sim_device": "cpu"},
    )  # 1 s in steps of 0.04 s
    assert env.observation_space.shape == (2,) and env.action_space.shape == (1,)  # the group "policy" alone
    assert make_env(ID, 3, sim_device="cpu", max_episode_steps=7).max_episode_steps == 7


def test_without_last_observations_the_one_before_stands_for_it(caplog):
    env = make_env(ID, 2, sim_device="cpu", max_episode_steps=3, final=False)
    seen = [env.reset()]
    with caplog.at_level(logging.WARNING, "whorl"):
        for _ in range(6):
            step = env.step(np.zeros((2, 1), np.float32))
            if step.truncated.any():
                assert (step.next_observation == seen[-1]).all() and (step.observation[:, 1] == 0).all()
            seen.append(step.observation)
    assert caplog.text.count("gives no extras['final_obs']") == 1
    check_env(env, 20)


def test_what_it_refuses():
    env = make_env(ID, 2, sim_device="cpu")
    with pytest.raises(BadInput, match=r"call reset\(\) once before the first step"):
        env.step(np.zeros((2, 1), np.float32))
    env.reset()
    with pytest.raises(Incompatible, match="the simulator steps all environments at once"):
        env.step(np.zeros((2, 1), np.float32), np.array([True, False]))
    with pytest.raises(BadInput, match="isaaclab/Isaac-Nothing-v0 cannot be made: AssertionError"):
        make_env("isaaclab/Isaac-Nothing-v0", sim_device="cpu")
    with pytest.raises(BadInput, match="steps its environments together, and wrappers go around single ones"):
        make_env(ID, 2, wrappers=[lambda env: env], sim_device="cpu")
