"""A small environment that keeps the contract of `Env`, for tests that break it in one place."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from whorl.envs.env import Env, Step


class Walk(Env):
    """Keeps the contract: a noisy walk on [-9, 9] that ends at the walls or is cut after 12 steps."""

    num_envs = 3
    limit = 12

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-9, 9, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.seeds(0)

    def seeds(self, seed: int) -> None:
        self.rngs = [np.random.default_rng((seed, i)) for i in range(self.num_envs)]

    def begin(self, rows: np.ndarray) -> None:
        for i in rows:
            self.where[i], self.t[i] = (self.rngs[i].uniform(-2, 2), 0), 0

    def reset(self, seed: int | None = None) -> Any:
        if seed is not None:
            self.seeds(seed)
        self.where, self.t = np.zeros((self.num_envs, 2), np.float32), np.zeros(self.num_envs, int)
        self.begin(np.arange(self.num_envs))
        return self.where.copy()

    def move(self, action: np.ndarray) -> None:
        push = np.array([rng.uniform(-1, 1) for rng in self.rngs])
        self.where[:, 0] = np.clip(self.where[:, 0] + 2 * action - 1 + push, -9, 9)
        self.where[:, 1] = push
        self.t += 1

    def step(self, action: np.ndarray) -> Step:
        self.move(action)
        terminated, truncated = abs(self.where[:, 0]) > 8, self.t >= self.limit
        there = here = self.where.copy()
        if (terminated | truncated).any():
            self.begin(np.flatnonzero(terminated | truncated))
            here = self.where.copy()
        return Step(here, self.where[:, 1] ** 2, terminated, truncated, there)

    def state(self) -> dict[str, Any]:
        streams = [rng.bit_generator.state for rng in self.rngs]
        return {"where": self.where.copy(), "t": self.t.copy(), "streams": streams}

    def load_state(self, state: dict[str, Any]) -> Any:
        self.where, self.t = state["where"].copy(), state["t"].copy()
        for rng, stream in zip(self.rngs, state["streams"], strict=True):
            rng.bit_generator.state = stream
        return self.where.copy()


def changed(base: type[Env] = Walk, **fields: Any):
    """A step with some fields replaced by functions of the step."""
    return lambda self, action, *rows: (step := base.step(self, action, *rows))._replace(
        **{name: f(step) for name, f in fields.items()}
    )
