"""As gym 0.21 documents itself: seeds by `seed`, a reset without info, steps of four things, a mode for `render`."""

from __future__ import annotations

import types

import numpy as np

__version__ = "0.21.0"


class Box:
    def __init__(self, low, high, shape, dtype=np.float32):
        self.low, self.high = np.full(shape, low, dtype), np.full(shape, high, dtype)
        self.shape, self.dtype = shape, np.dtype(dtype)


class Discrete:
    def __init__(self, n):
        self.n, self.shape, self.dtype = n, (), np.dtype(np.int64)


class Dict:
    def __init__(self, spaces):
        self.spaces = spaces


class Graph:
    pass


spaces = types.SimpleNamespace(Box=Box, Discrete=Discrete, Dict=Dict, Graph=Graph)


class Walk:
    """A walk on a line that ends beyond 3."""

    metadata = {"render.modes": ["human", "rgb_array"]}
    observation_space, action_space = Dict({"where": Box(-99, 99, (2,), np.float64)}), Discrete(3)

    def __init__(self, step_size=1.0):
        self.step_size, self.random = step_size, np.random.RandomState()

    def seed(self, seed=None):
        self.random = np.random.RandomState(seed)
        return [seed]

    def reset(self):
        self.x, self.t = self.random.normal(), 0
        return self._obs()

    def _obs(self):
        return {"where": np.array([self.x, self.t])}

    def step(self, action):
        self.t += 1
        self.x += self.step_size * (action - 1) + 0.1 * self.random.normal()
        return self._obs(), abs(self.x), bool(abs(self.x) > 3), {}

    def render(self, mode="human"):
        assert mode == "rgb_array"
        return np.zeros((8, 8, 3), np.uint8)

    def close(self):
        pass

    @property
    def unwrapped(self):
        return self


class TimeLimit:
    """The wrapper that `make` puts around."""

    def __init__(self, env, limit):
        self.env, self.limit = env, limit

    def __getattr__(self, name):
        return getattr(self.env, name)

    def reset(self, **kwargs):
        self.taken = 0
        return self.env.reset(**kwargs)

    def step(self, action):
        observation, reward, done, info = self.env.step(action)
        self.taken += 1
        if self.taken >= self.limit:
            info["TimeLimit.truncated"] = not done
            done = True
        return observation, reward, done, info


def make(id, **kwargs):
    if id != "Walk-v0":
        raise ValueError(f"No registered env with id: {id}")
    return TimeLimit(Walk(**kwargs), 30)
