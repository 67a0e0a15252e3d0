"""The part of an observation that a transform is about: all of it, or the entry `key` of a Dict. And what numpy and torch do under
different names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box, Dict

from whorl.errors import Incompatible
from whorl.transforms.transform import Array, Observation, OfObservation, Spaces


def part(observation: Observation, key: str | None) -> Any:
    """The entry, or all of it."""
    return observation if key is None else observation[key]


def replaced(observation: Observation, key: str | None, new: Any) -> Any:
    """The observation with another part; those who hold the old one do not see it."""
    return new if key is None else {**observation, key: new}


def space_part(space: Space, key: str | None) -> Space:
    """The space of `part`. Raises Incompatible where there is no such entry."""
    return space if key is None else entries(space, [key])[key]


def replaced_space(space: Space, key: str | None, new: Space) -> Space:
    """The space of `replaced`."""
    return new if key is None else Dict([*(entries(space) | {key: new}).items()])


def entries(space: Space, keys: Sequence[str] | None = None) -> dict[str, Space]:
    """The spaces of these entries, in that order; None: of all. Raises Incompatible for an observation without one of them."""
    if not isinstance(space, Dict):
        raise Incompatible(f"it is about the entries of a Dict, and the observation is {space}")
    keys = [*space.spaces] if keys is None else keys
    if lacking := [key for key in keys if key not in space.spaces]:
        raise Incompatible(f"the observation has no entry {lacking[0]!r}, it has {', '.join(space.spaces)}")
    return {key: space.spaces[key] for key in keys}


def boxed(space: Space, dtype: type = np.float32) -> Box:
    """The space, if it is a Box of that dtype. Raises Incompatible for another."""
    if not isinstance(space, Box) or space.dtype != dtype:
        raise Incompatible(f"it takes a Box of {np.dtype(dtype)}, and the observation is {space}")
    return space


class OfPart(OfObservation):
    """A pure function of one array of the observation: all of it, or its entry `key`. Subclasses write `change`, and `outside` where its
    bounds are not those of a function that grows."""

    key: str | None = None

    def change(self, x: Any) -> Any:
        """Outside from inside, [..., *obs], numpy or torch."""
        raise NotImplementedError

    def outside(self, space: Space) -> Space:
        """The space of it. Raises Incompatible for one that it does not take."""
        box = boxed(space)
        low, high = self.change(box.low), self.change(box.high)
        return Box(low, high, dtype=low.dtype.type)

    def spaces(self, observation: Space, action: Space) -> Spaces:
        new = self.outside(space_part(observation, self.key))
        return replaced_space(observation, self.key, new), action

    def look(self, observation: Observation) -> Observation:
        return replaced(observation, self.key, self.change(part(observation, self.key)))


def cast_to(x: Any, dtype: str) -> Any:
    """The array in the dtype of that name."""
    return x.astype(dtype) if isinstance(x, np.ndarray | np.generic) else x.to(getattr(torch, dtype))


def joined(arrays: Sequence[Array], axis: int) -> Any:
    """Side by side along an axis that they have."""
    return np.concatenate(arrays, axis) if isinstance(arrays[0], np.ndarray) else torch.cat(list(arrays), axis)  # type: ignore[arg-type]


def piled(arrays: Sequence[Array], axis: int) -> Any:
    """Side by side along a new axis."""
    return np.stack(arrays, axis) if isinstance(arrays[0], np.ndarray) else torch.stack(list(arrays), axis)  # type: ignore[arg-type]


def permuted(x: Any, axes: Sequence[int]) -> Any:
    """The last axes in that order, counted from 0 among them; those before stay."""
    lead = x.ndim - len(axes)
    order = [*range(lead), *(lead + axis for axis in axes)]
    return x.transpose(order) if isinstance(x, np.ndarray) else x.permute(order)


def repeated(x: Any, lead: tuple[int, ...]) -> Any:
    """The array as [*lead, *x.shape], in memory of its own."""
    shape = (*lead, *x.shape)
    return np.broadcast_to(x, shape).copy() if isinstance(x, np.ndarray) else x.expand(shape).clone()


def lead(x: Any, space: Space) -> tuple[int, ...]:
    """The axes of x [..., *space.shape] before those of one element."""
    return tuple(x.shape[: x.ndim - len(space.shape or ())])
