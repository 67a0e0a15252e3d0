"""The random numbers of transforms, in one place."""

from __future__ import annotations

from typing import Any

import numpy as np

from whorl.counted import bits, mix
from whorl.transforms.transform import Array, Observation, Transform, zeros


class Drawing(Transform):
    """A transform that draws. Its numbers are counted, not kept: each is a function of (seed, environment, episode, step), so that none
    depends on what other environments or episodes did, and resuming needs no more than these.

    `memory["step"]` is moved by whoever draws once a step.
    """

    def begin(self, n: int, device: str) -> None:
        self.memory = {name: zeros((n,), np.int64, device) for name in ("stream", "episode", "step")}
        self.seed(0)

    def seed(self, seed: int) -> None:
        stream, episode = self.memory["stream"], self.memory["episode"]
        stream[...] = 1
        stream[...] = mix(mix(stream * seed) ^ (stream.cumsum(0) - 1 + self.rows_before))
        episode[...] = -1

    def reset(self, observation: Observation, rows: Array) -> Observation:
        self.memory["episode"] += rows
        self.memory["step"] *= ~rows
        return observation

    def bits(self, k: int = 0) -> Any:
        """The number of the step k steps on, whole and below 2**53, int64 [N]."""
        return bits(mix(self.memory["stream"] ^ self.memory["episode"]), self.memory["step"] + k)

    def uniform(self, k: int = 0) -> Any:
        """The same in [0, 1), float64 [N]."""
        whole = self.bits(k)
        return (whole.astype(np.float64) if isinstance(whole, np.ndarray) else whole.double()) * 2.0**-53
