"""As Safety-Gymnasium 1.0 documents itself: `make(id, render_mode=None)` gives a `gymnasium.Env` whose step gives six things."""

from __future__ import annotations

import gymnasium
import numpy as np
from gymnasium import spaces


class Builder(gymnasium.Env):
    """A point that is paid for going right and costs 1 a step beyond the line x = 1."""

    metadata = {"render_modes": ["human", "rgb_array"]}

    def __init__(self, task_id: str, render_mode: str | None = None):
        self.task_id, self.render_mode = task_id, render_mode
        self.observation_space, self.action_space = (
            spaces.Box(-np.inf, np.inf, (2,), np.float64),
            spaces.Box(-1, 1, (1,)),
        )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = float(self.np_random.normal()), 0
        return self._obs(), {}

    def _obs(self):
        return np.array([self.x, self.t], np.float64)

    def step(self, action):
        self.t += 1
        self.x += float(action[0]) + 0.1 * float(self.np_random.normal())
        cost = float(self.x > 1)
        return self._obs(), float(action[0]), cost, self.x < -4, self.t >= 50, {"cost_sum": cost}

    def render(self):
        return np.zeros((8, 8, 3), np.uint8)


def make(id: str, max_episode_steps: int | None = None, autoreset: bool | None = None, **kwargs) -> gymnasium.Env:
    if not id.startswith("Safety"):
        raise gymnasium.error.NameNotFound(f"Environment {id} doesn't exist.")
    return Builder(id, **kwargs)
