"""Bit flipping against its definition, written again in plain Python."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from whorl.envs.check import check_env
from whorl.envs.make import make_env
from whorl.envs.native import make
from whorl.envs.native.bit_flipping import reached, reward

IDS = {"BitFlipping8-v0": 8, "BitFlipping15-v0": 15}


@pytest.mark.parametrize("id, n", IDS.items())
def test_it_keeps_the_contract(id, n):
    env = make_env(id, num_envs=3, seed=1)
    check_env(env)
    assert (env.id, env.origin, env.max_episode_steps, env.action_space.n) == (id, "native", n, n)


@pytest.mark.parametrize("id, n", IDS.items())
def test_every_step_flips_one_bit_and_pays_by_the_definition(id, n):
    env, rng = make(id, 8, seed=3), np.random.default_rng(0)
    first = {key: part.copy() for key, part in env.reset().items()}
    bits, goal, taken, ends = first["observation"].copy(), first["desired_goal"].copy(), np.zeros(8, int), [0, 0]
    for _ in range(400):
        toward = (bits != goal).argmax(1)  # the first wrong bit, so that some episodes succeed
        action = np.where(np.arange(8) < 4, toward, rng.integers(0, n, 8))
        bits[np.arange(8), action] = 1 - bits[np.arange(8), action]
        taken += 1
        step = env.step(action)
        there = step.next_observation
        np.testing.assert_array_equal(there["observation"], bits)
        np.testing.assert_array_equal(there["achieved_goal"], bits)
        np.testing.assert_array_equal(there["desired_goal"], goal)
        equal = (bits == goal).all(1)
        np.testing.assert_array_equal(step.reward, np.where(equal, 0, -1))
        np.testing.assert_array_equal(step.terminated, equal)
        np.testing.assert_array_equal(step.truncated, taken == n)
        ended = step.terminated | step.truncated
        assert (step.next_observation is step.observation) == (not ended.any())
        ends = [ends[0] + equal.sum(), ends[1] + (ended & ~equal).sum()]
        bits[ended], goal[ended] = step.observation["observation"][ended], step.observation["desired_goal"][ended]
        taken[ended] = 0
    assert min(ends) > 20


def test_success_is_a_return_above_minus_n_and_equals_termination():
    env = make("BitFlipping8-v0", 64, seed=0)
    observation, total, alive, success = env.reset(), np.zeros(64), np.ones(64, bool), np.zeros(64, bool)
    away = (observation["observation"] != observation["desired_goal"]).sum(1)
    for _ in range(8):
        clumsy = np.arange(64) % 2 == 0
        wrong = (observation["observation"] != observation["desired_goal"]).argmax(1)
        step = env.step(np.where(clumsy, 0, wrong))
        total += step.reward * alive
        success |= step.terminated & alive
        alive &= ~(step.terminated | step.truncated)
        observation = step.observation
    assert not alive.any() and 0 < success.sum() < 64
    np.testing.assert_array_equal(success, total > -8)
    able = ~clumsy & (away > 0)
    np.testing.assert_array_equal(total[able], 1 - away[able])


def test_starts_and_goals_are_uniform_and_differ_by_seed_environment_and_episode():
    env = make("BitFlipping15-v0", 4000, seed=0)
    first = {key: part.copy() for key, part in env.reset().items()}
    for key in ("observation", "desired_goal"):
        assert set(first[key].ravel()) == {0.0, 1.0}
        np.testing.assert_allclose(first[key].mean(0), 0.5, atol=0.04)  # five standard errors
    assert abs(np.corrcoef(first["observation"].T, first["desired_goal"].T) - np.eye(30)).max() < 0.1
    second = env.reset()["desired_goal"]
    assert not np.array_equal(first["desired_goal"], second)
    np.testing.assert_array_equal(env.reset(0)["desired_goal"], first["desired_goal"])
    assert not np.array_equal(env.reset(1)["desired_goal"], first["desired_goal"])


def test_a_loaded_state_goes_on_to_the_same_bits():
    env, other, rng = make("BitFlipping8-v0", 5, seed=3), make("BitFlipping8-v0", 5, seed=9), np.random.default_rng(0)
    env.reset()
    actions = rng.integers(0, 8, (60, 5))
    for action in actions[:20]:
        env.step(action)
    here = other.load_state(env.state())
    np.testing.assert_array_equal(here["observation"], env.load_state(env.state())["observation"])
    for action in actions[20:]:
        ours, theirs = env.step(action), other.step(action)
        for key in here:
            np.testing.assert_array_equal(ours.observation[key], theirs.observation[key])
        np.testing.assert_array_equal(ours.reward, theirs.reward)


def test_the_reward_function_takes_numpy_and_torch():
    achieved, desired = np.float32([[0, 1, 1], [0, 1, 0], [1, 0, 0]]), np.float32([[0, 1, 1], [0, 1, 1], [0, 1, 1]])
    for kind in (np.asarray, torch.from_numpy):
        earned, ended = reward(kind(achieved), kind(desired)), reached(kind(achieved), kind(desired))
        assert "float32" in str(earned.dtype) and "bool" in str(ended.dtype)
        assert earned.tolist() == [0, -1, -1] and ended.tolist() == [True, False, False]
    batch = torch.rand(4, 5, 15).round()
    assert reward(batch, batch).shape == (4, 5) and not reward(batch, batch).any()
    env = make("BitFlipping15-v0")
    assert env.goal.reward is reward and env.goal.terminated is reached
