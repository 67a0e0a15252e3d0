"""Rewards that are several numbers, and costs beside the reward: from the environment into the batch."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import whorl
from whorl.collectors.serial import SerialCollector
from whorl.envs.adapters.mo_gymnasium import Apart, MoGymnasium
from whorl.envs.make import make_env
from whorl.errors import EnvError, Incompatible
from whorl.policies.random import Random
from whorl.training.evaluate import evaluate
from whorl.transforms.env import Transformed
from whorl.transforms.transform import OfReward, Transform


class Two(gymnasium.Env):
    """Pays (steps so far, -1); an episode has three steps."""

    observation_space, action_space = spaces.Box(0, 9, (1,)), spaces.Discrete(2)
    reward_space = spaces.Box(-9, 9, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.full(1, self.t, np.float32), np.array([self.t, -1.0]), False, self.t % 3 == 0, {}


def test_a_vector_of_rewards_beside_a_reward_of_nothing():
    env = MoGymnasium(Two, 2, wrappers=(Apart,))
    assert env.reward_vector.shape == (2, 2) and not env.scalar_reward
    env.reset()
    paid = []
    for _ in range(4):
        step = env.step([0, 0])
        assert not step.reward.any() and (step.info["reward_vector"] == env.reward_vector).all()
        paid.append(env.reward_vector.tolist())
    assert paid == [[[1, -1]] * 2, [[2, -1]] * 2, [[3, -1]] * 2, [[1, -1]] * 2]  # that of an episode's last step, too
    step = env.step([0, 0], np.array([True, False]))
    assert env.reward_vector.tolist() == [[2, -1], [0, 0]]


class Sum(Transform):
    """The shortest that makes one number of them."""

    linearizes = True

    def play(self, world, action, rows):
        step = world.step(action) if rows is None else world.step(action, rows)
        return step._replace(reward=step.info["reward_vector"].sum(-1))


class Double(OfReward):
    def judge(self, reward):
        return 2 * reward


def test_nobody_learns_from_several_numbers(tmp_path):
    message = r"pays 2 rewards at once, and an agent learns from one number: put the transform linearize around it"
    env = MoGymnasium(Two, 2, wrappers=(Apart,))
    with pytest.raises(Incompatible, match=message):
        whorl.train("ppo", env, runs=tmp_path / "runs", total_steps=10)
    assert not (tmp_path / "runs").exists()
    for paid in (env, Transformed(env, Double())):
        with pytest.raises(Incompatible, match=message):
            evaluate(Random(env.action_space), paid, 2, 0)


def test_the_vector_goes_into_the_batch():
    env = Transformed(MoGymnasium(Two, 2, wrappers=(Apart,)), Sum(), Double())
    rollout = SerialCollector(env, Random(env.action_space), 4).collect()
    assert rollout["next", "reward_vector"].tolist() == [[[t, -1]] * 2 for t in (1, 2, 3, 1)]
    assert rollout["next", "reward"].tolist() == [[2 * (t - 1)] * 2 for t in (1, 2, 3, 1)]
    assert evaluate(Random(env.action_space), env, 2, 0).returns.tolist() == [
        3,
        3,
    ]  # 0 + 1 + 2, before they are doubled


def test_a_vector_of_another_length_is_said():
    class Three(Two):
        reward_space = spaces.Box(-9, 9, (3,), np.float32)

    env = MoGymnasium(Three, wrappers=(Apart,))
    env.reset()
    with pytest.raises(EnvError, match=r"step must give rewards of shape \(3,\), got \(2,\)"):
        env.step([0])


def test_costs_go_into_the_batch(standins):
    standins("safety_gymnasium")
    env = make_env("safety_gymnasium/SafetyPointGoal1-v0", 3, seed=1)
    assert env.id == "safety_gymnasium/SafetyPointGoal1-v0" and repr(env).startswith(env.id)
    rollout = SerialCollector(env, Random(env.action_space), 80).collect()
    cost, beyond = rollout["next", "cost"], rollout["next", "observation"][..., 0] > 1
    assert (cost == beyond).all() and 0 < cost.sum() < cost.numel()
    assert rollout["next", "truncated"].any()


def test_a_step_of_five_things_is_none_of_safety_gymnasium(standins, monkeypatch):
    standins("safety_gymnasium")
    import safety_gymnasium

    env = make_env("safety_gymnasium/SafetyPointGoal1-v0")
    env.reset()
    monkeypatch.setattr(safety_gymnasium.Builder, "step", lambda self, action: (0,) * 5)
    with pytest.raises(
        EnvError, match=r"must give \(observation, reward, cost, terminated, truncated, info\), got 5 things"
    ):
        env.step(np.zeros((1, 1), np.float32))


def test_agents_that_do_not_know_costs_carry_them(standins, tmp_path):
    standins("safety_gymnasium")
    small = {"hidden": (8,), "feed": {"batch_size": 4, "capacity": 100, "warmup": 5}, "quiet": True, "eval_episodes": 1}
    for agent in ("sac", "ppo"):
        small["feed"] = small["feed"] if agent == "sac" else {"steps": 4, "epochs": 1, "minibatches": 1}
        run = whorl.train(
            agent, "safety_gymnasium/SafetyPointGoal1-v0", runs=tmp_path, total_steps=16, num_envs=2, **small
        )
        assert run.steps >= 16
