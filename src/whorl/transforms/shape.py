"""Transforms that lay the same numbers out in another way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, flatten_space

from whorl.errors import BadInput, Incompatible
from whorl.transforms.entry import OfPart, cast_to, joined, lead, permuted
from whorl.transforms.transform import Observation, float32


class FlattenObservation(OfPart):
    """One vector: arrays row by row, discrete kinds one-hot, the entries of a Dict side by side in their order.

    A Box keeps its dtype, all else is float32; images are not scaled. Gymnasium: FlattenObservation; TorchRL: FlattenObservation.
    """

    def __init__(self, key: str | None = None) -> None:
        super().__init__()
        self.key = key

    def outside(self, space: Space) -> Space:
        self._space = space
        return flat_space(space)

    def change(self, x: Any) -> Any:
        return flat(self._space, x)


class Reshaping(OfPart):
    """Gives each array another shape."""

    _inside: Space
    _shape: tuple[int, ...]

    def shape(self, old: tuple[int, ...]) -> tuple[int, ...]:
        """Outside from inside. Raises Incompatible for one that it does not take."""
        raise NotImplementedError

    def outside(self, space: Space) -> Space:
        if not isinstance(space, Box):
            raise Incompatible(f"it gives arrays another shape, and the observation is {space}")
        self._inside, self._shape = space, self.shape(space.shape)
        return Box(self.change(space.low), self.change(space.high), dtype=space.dtype.type)

    def change(self, x: Any) -> Any:
        return x.reshape((*lead(x, self._inside), *self._shape))


class Squeeze(Reshaping):
    """Without the axis `axis`, which has length 1; axes are those of one observation.

    TorchRL: SqueezeTransform; Gymnasium: ReshapeObservation.
    """

    def __init__(self, axis: int = -1, key: str | None = None) -> None:
        super().__init__()
        self.axis, self.key = axis, key

    def shape(self, old: tuple[int, ...]) -> tuple[int, ...]:
        if not -len(old) <= self.axis < len(old) or old[self.axis] != 1:
            raise Incompatible(f"an observation of shape {old} has no axis {self.axis} of length 1")
        place = self.axis % len(old)
        return old[:place] + old[place + 1 :]


class Unsqueeze(Reshaping):
    """With a new axis of length 1 that becomes the axis `axis`. TorchRL: UnsqueezeTransform; Gymnasium: ReshapeObservation."""

    def __init__(self, axis: int = -1, key: str | None = None) -> None:
        super().__init__()
        self.axis, self.key = axis, key

    def shape(self, old: tuple[int, ...]) -> tuple[int, ...]:
        if not -len(old) - 1 <= self.axis <= len(old):
            raise Incompatible(f"an observation of shape {old} can have no new axis {self.axis}")
        place = self.axis % (len(old) + 1)
        return (*old[:place], 1, *old[place:])


class Permute(Reshaping):
    """The axes in another order: axis i outside is axis `axes[i]` inside. TorchRL: PermuteTransform."""

    def __init__(self, axes: Sequence[int], key: str | None = None) -> None:
        super().__init__()
        if sorted(axes) != list(range(len(axes))):
            raise BadInput(f"Permute needs each axis once, such as [2, 0, 1], got {list(axes)}")
        self.axes, self.key = axes, key

    def shape(self, old: tuple[int, ...]) -> tuple[int, ...]:
        if len(old) != len(self.axes):
            raise Incompatible(f"it orders {len(self.axes)} axes, and the observation has the shape {old}")
        return tuple(old[axis] for axis in self.axes)

    def change(self, x: Any) -> Any:
        return permuted(x, self.axes)


def flat_space(space: Space) -> Box:
    """The space of `flat`."""
    try:
        box = flatten_space(space)
    except NotImplementedError:
        raise Incompatible(f"there is no vector of {space}") from None
    if isinstance(space, Box):
        return box  # type: ignore[return-value]
    assert isinstance(box, Box)
    return Box(box.low.astype(np.float32), box.high.astype(np.float32), dtype=np.float32)


def flat(space: Space, x: Observation) -> Any:
    """x [..., *space.shape] as [..., size], numpy or torch: see `FlattenObservation`."""
    if isinstance(space, Dict):
        return joined([float32(flat(inner, x[key])) for key, inner in space.spaces.items()], -1)
    if isinstance(space, Discrete):
        return one_hot(x, int(space.n))
    if isinstance(space, MultiDiscrete):
        return joined([one_hot(x[..., i], int(n)) for i, n in enumerate(space.nvec)], -1)
    x = x.reshape((*lead(x, space), -1))
    return x if isinstance(space, Box) else float32(x)


def one_hot(x: Any, n: int) -> Any:
    """x [...] of numbers below n as float32 [..., n]."""
    numbers = np.arange(n) if isinstance(x, np.ndarray) else torch.arange(n, device=x.device)
    return cast_to(x[..., None] == numbers, "float32")
