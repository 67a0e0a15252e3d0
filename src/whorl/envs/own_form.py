"""Observations and actions in an environment's own form: what its users hold in their hands, before any adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike

from whorl.errors import BadInput

Given: TypeAlias = "ArrayLike | Mapping[str, Given] | tuple[Given, ...]"  # what a user hands in
Own: TypeAlias = "np.ndarray | dict[str, Own] | tuple[Own, ...]"  # what he gets back


def batched(space: spaces.Space, observation: Given) -> tuple[Own, bool]:
    """An observation of `space`, or a batch of them [N, ...], as a batch of arrays, and whether it was a single one.

    A Dict is a mapping with exactly its keys, a Tuple a tuple or list of its length; in a batch their leaves are [N, ...].
    Raises BadInput, naming the part, for keys, shapes or kinds other than those of the space, for what is not finite, and for whole
    numbers that the space does not hold. The bounds of a float Box are no limit here: training does not hold to them either.
    """
    found: dict[int | None, str] = {}
    batch = _part(space, observation, "the observation", found)
    if len(found) > 1:
        listed = ", ".join(f"{path} has {'no batch' if n is None else f'{n} rows'}" for n, path in found.items())
        raise BadInput(f"the parts of an observation must have the same number of rows, or none: {listed}")
    single = None in found
    return (_each(batch, lambda leaf: leaf[None]) if single else batch), single


def row(tree: Own, i: int) -> Own:
    """Row i of a batch of arrays in dicts and tuples."""
    return _each(tree, lambda leaf: leaf[i])


def rows(tree: Own) -> int:
    """How many a batch of arrays in dicts and tuples has."""
    if isinstance(tree, dict | tuple):
        return rows(next(iter(tree.values() if isinstance(tree, dict) else tree)))
    return len(tree)


def _each(tree: Any, function: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _each(inner, function) for key, inner in tree.items()}
    return tuple(_each(inner, function) for inner in tree) if isinstance(tree, tuple) else function(tree)


def _part(space: Any, value: Any, path: str, found: dict[int | None, str]) -> Any:
    """`value` as arrays; where it has how many rows (None: no batch) is noted in `found`."""
    if isinstance(space, spaces.Dict):
        if not isinstance(value, Mapping) or value.keys() != space.spaces.keys():
            got = f"the keys {_names(value)}" if isinstance(value, Mapping) else f"a {type(value).__name__}"
            raise BadInput(f"{path}: expected a dict with the keys {_names(space.spaces)}, got {got}")
        return {key: _part(inner, value[key], f"{path}[{key!r}]", found) for key, inner in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        if not isinstance(value, tuple | list) or len(value) != len(space.spaces):
            got = f"{len(value)}" if isinstance(value, tuple | list) else f"a {type(value).__name__}"
            raise BadInput(f"{path}: expected a tuple of {len(space.spaces)} parts, got {got}")
        return tuple(_part(inner, value[i], f"{path}[{i}]", found) for i, inner in enumerate(space.spaces))
    array, shape = _array(value, path), tuple(space.shape or ())
    single = array.shape == shape
    if not single and (array.shape[1:] != shape or not array.size):
        batch = ", ".join(["N", *map(str, shape)])
        raise BadInput(f"{path}: expected the shape {shape}, or ({batch}) for a batch, got {array.shape}")
    found.setdefault(None if single else len(array), path)
    span = _whole(space)
    if span is None:
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinity to the policy
            finite = np.isfinite(array.astype(np.float32))
        if not finite.all():
            raise BadInput(f"{path}: expected finite numbers, got {array[~finite].flat[0]}")
        return array
    outside = (array < span[0]) | (array > span[1]) | (array != np.floor(array))
    if outside.any():
        least, most = (np.broadcast_to(end, array.shape)[outside].flat[0] for end in span)
        raise BadInput(f"{path}: expected whole numbers from {least} to {most}, got {array[outside].flat[0]}")
    return array.astype(space.dtype)


def _array(value: Any, path: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:  # rows of different lengths; a tensor on another device
        raise BadInput(f"{path}: expected an array of numbers, got {type(value).__name__} ({error})") from None
    if array.dtype.kind not in "biuf":
        raise BadInput(f"{path}: expected an array of numbers, got {type(value).__name__} of {array.dtype}")
    return array


def _whole(space: Any) -> tuple[Any, Any] | None:
    """The lowest and the highest value of a space of whole numbers; None for one that becomes float32."""
    if isinstance(space, spaces.Discrete):
        return space.start, space.start + space.n - 1
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    if isinstance(space, spaces.MultiBinary):
        return 0, 1
    return (0, 255) if space.dtype == np.uint8 else None


def _names(mapping: Mapping) -> str:
    return ", ".join(map(repr, mapping)) or "(none)"
