"""Transforms of observations that are vectors, or dicts of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box

from whorl.errors import BadInput, Incompatible
from whorl.transforms.transform import Array, Observation, OfObservation, Result, Spaces, Transform, zeros


class Normalize(OfObservation):
    """(x - mean) / std with fixed numbers, one for all entries or one each.

    TorchRL: ObservationNorm. Statistics that run belong to the policy (`feed.normalize_observation`) or to RunningNormalize.
    """

    center: torch.Tensor
    scale: torch.Tensor

    def __init__(self, mean: float | Sequence[float] = 0.0, std: float | Sequence[float] = 1.0) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        center, spread = (torch.as_tensor(x, dtype=torch.float32) for x in (mean, std))
        if not (center.isfinite().all() and spread.isfinite().all() and (spread > 0).all()):
            raise BadInput(f"Normalize needs a finite mean and a std above 0, got mean {mean} and std {std}")
        self.register_buffer("center", center, persistent=False)
        self.register_buffer("scale", 1 / spread, persistent=False)

    def spaces(self, observation: Space, action: Space) -> Spaces:
        box = vector(observation, "Normalize")
        try:
            low, high = self.look(box.low), self.look(box.high)
        except ValueError:
            raise Incompatible(f"mean and std do not go with observations of shape {box.shape}") from None
        return Box(low, high, dtype=np.float32), action

    def look(self, observation: Observation) -> Observation:
        center, scale = self.constants(observation)
        return (observation - center) * scale


class StackFrames(Transform):
    """The last `count` observations, [count, *obs], the newest last; at the start of an episode its first one `count` times.

    Gymnasium: FrameStackObservation(padding_type="reset"); TorchRL: CatFrames.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        if count < 1:
            raise BadInput(f"StackFrames needs a count of at least 1, got {count}")
        self.count = count

    def spaces(self, observation: Space, action: Space) -> Spaces:
        if not isinstance(observation, Box):
            raise Incompatible(f"frames are arrays, and the observation is {observation}")
        self._shape, self._dtype = observation.shape, observation.dtype
        low, high = (np.repeat(x[None], self.count, 0) for x in (observation.low, observation.high))
        return Box(low, high, dtype=observation.dtype.type), action

    def begin(self, n: int, device: str) -> None:
        shape = (n, self.count, *self._shape)
        self.memory = {"frames": zeros(shape, self._dtype, device)}
        self._other = zeros(shape, self._dtype, device)  # what was handed out lasts until the next step

    def step(self, result: Result) -> Result:
        old, new = self.memory["frames"], self._other
        new[:, :-1] = old[:, 1:]
        new[:, -1] = result.observation
        self.memory["frames"], self._other = new, old
        return result._replace(observation=new)

    def reset(self, observation: Observation, rows: Array) -> Observation:
        old = self.memory["frames"]
        frames = old.copy() if isinstance(old, np.ndarray) else old.clone()  # the successor was handed out
        frames[rows] = observation[rows][:, None]
        self.memory["frames"] = frames
        return frames


def vector(observation: Space, name: str) -> Box:
    """The space, if it is a Box of float32. Raises Incompatible for another."""
    if not isinstance(observation, Box) or observation.dtype != np.float32:
        raise Incompatible(f"{name} takes a Box of float32, and the observation is {observation}")
    return observation
