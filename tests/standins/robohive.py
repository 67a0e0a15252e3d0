"""As RoboHive documents itself: importing it registers its environments, the names have no namespace."""

from __future__ import annotations

import gymnasium

from tests.standins.safety_gymnasium import Builder


class Reach(Builder):
    """Observation, reward and info, with RoboHive's entries, of a point."""

    def __init__(self, render_mode=None, seed=None):
        super().__init__("reach", render_mode)

    def step(self, action):
        observation, reward, cost, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, {**info, "solved": not cost, "rwd_dense": reward}


gymnasium.registry.pop("FrankaReachRandom-v0", None)  # of the test before
gymnasium.register("FrankaReachRandom-v0", Reach, max_episode_steps=50)
