"""Gymnasium environments that judge goals (`compute_reward`), and hindsight in them."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from whorl import feeds
from whorl.agents.dqn import DQNConfig
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.training.build import build

PLACE = spaces.Box(-10, 10, (2,), np.float64)


class Reach(gymnasium.Env):
    """Walk on a grid to a place that is asked for. `compute_terminated` knows single goals only, as gymnasium-robotics' mazes do."""

    observation_space = spaces.Dict(observation=PLACE, achieved_goal=PLACE, desired_goal=PLACE)
    action_space = spaces.Discrete(4)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.here, self.t = np.zeros(2), 0
        self.wanted = self.np_random.integers(-3, 4, 2).astype(float)
        return self.seen(), {}

    def seen(self):
        return {"observation": self.here.copy(), "achieved_goal": self.here.copy(), "desired_goal": self.wanted.copy()}

    def step(self, action):
        self.here = self.here + [(1, 0), (-1, 0), (0, 1), (0, -1)][action]
        self.t += 1
        reward, terminated = (
            self.compute_reward(self.here, self.wanted, {}),
            self.compute_terminated(self.here, self.wanted, {}),
        )
        return self.seen(), float(reward), terminated, self.t == 6, {}

    def compute_reward(self, achieved_goal, desired_goal, info):
        return -(np.linalg.norm(achieved_goal - desired_goal, axis=-1) > 0.5).astype(np.float32)

    def compute_terminated(self, achieved_goal, desired_goal, info):
        return bool(np.linalg.norm(achieved_goal - desired_goal) < 0.5)


class Unjudged(gymnasium.Env):
    observation_space, action_space = Reach.observation_space, Reach.action_space


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
def test_goals_are_judged_as_the_environment_does(kind):
    goal = Gymnasium(Reach, 2).goal
    assert goal is not None and goal.terminated is not None
    achieved, desired = (
        np.array([[[0.0, 0], [1, 1]], [[2, 2], [3, 0]]]),
        np.array([[[0.0, 0], [1, 2]], [[2, 2], [0, 3]]]),
    )
    reward, terminated = goal.reward(kind(achieved), kind(desired)), goal.terminated(kind(achieved), kind(desired))
    assert type(reward) is type(kind(achieved)) and reward.tolist() == [[0, -1], [0, -1]]
    assert [[bool(x) for x in row] for row in terminated.tolist()] == [[True, False], [True, False]]
    assert goal.reward(kind(achieved[0, 0]), kind(desired[0, 1])).tolist() == -1
    assert Gymnasium(Unjudged).goal is None and Gymnasium("CartPole-v1").goal is None


def test_hindsight_in_a_goal_environment():
    feed = feeds.Replay(
        steps=1, batch_size=64, capacity=512, warmup=64, replay_ratio=0.02, relabel="final", relabel_fraction=1.0
    )
    parts = build("dqn", Gymnasium(Reach, 2, seed=1), DQNConfig(feed=feed, hidden=(8,)), seed=1)
    parts.train(200)
    rows = parts.buffer.sample()
    there = rows["next", "observation"]
    reached = (there["achieved_goal"] == there["desired_goal"]).all(-1)
    assert rows["relabelled"].all() and 10 < int(reached.sum()) < 64
    assert torch.equal(rows["next", "reward"] == 0, reached) and torch.equal(rows["next", "terminated"], reached)
