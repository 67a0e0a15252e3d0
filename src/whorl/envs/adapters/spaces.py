"""Any Gymnasium space -> one that whorl knows, with the conversion of what is in it.

| gymnasium | whorl |
|---|---|
| Box observation | Box: uint8 stays uint8, every other dtype becomes float32 |
| Box action | Box of one axis, float32; clipped to the bounds, rounded where the engine wants integers |
| Discrete(n, start) | Discrete(n), counted from 0 |
| MultiDiscrete(nvec, start) | MultiDiscrete(nvec.ravel()), counted from 0 |
| MultiBinary | MultiBinary, int8; of an action one axis |
| Dict | Dict of the converted entries |
| Tuple observation | Dict with the keys "0", "1", ... |
| Dict or Tuple action | one MultiDiscrete (all parts discrete) or one flat Box (all parts Box), in the space's order |
| ... of both kinds | Tuple(MultiDiscrete, Box), one float32 array of one axis: all choices, then all numbers, each in the space's order |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

from whorl.errors import Incompatible

Convert = Callable[[Any], Any]
LEAVES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def observations(space: Any, path: str = "the observation space") -> tuple[spaces.Space, Convert]:
    """What whorl sees of an observation space, and the engine's batched observation -> whorl's.

    Raises Incompatible, naming the part of the space (under `path`) that has no array form.
    """
    parts = _parts(space)
    if parts is not None:
        inner = {str(key): (key, *observations(part, f"{path}[{key!r}]")) for key, part in parts}
        if not inner:
            raise Incompatible(f"{path} has no entry to observe")
        seen: spaces.Space = spaces.Dict([(name, part) for name, (_, part, _) in inner.items()])
        return seen, lambda raw: {name: convert(raw[key]) for name, (key, _, convert) in inner.items()}
    if isinstance(space, spaces.Box):
        if space.dtype in (np.uint8, np.float32):
            return space, lambda raw: np.asarray(raw, space.dtype)
        return _box(space.low, space.high), lambda raw: np.asarray(raw, np.float32)
    if isinstance(space, spaces.Discrete):
        return _multi_discrete([space], single=True), lambda raw: np.asarray(raw, np.int64) - space.start
    if isinstance(space, spaces.MultiDiscrete):
        start = space.start.ravel().astype(np.int64)
        return _multi_discrete([space]), lambda raw: np.asarray(raw, np.int64).reshape(len(raw), -1) - start
    if isinstance(space, spaces.MultiBinary):
        return space, lambda raw: np.asarray(raw, np.int8)
    raise _refusal(space, path)


def actions(space: spaces.Space) -> tuple[spaces.Space, Convert]:
    """What whorl sees of an action space, and whorl's flat actions [N, W] -> the engine's batched action.

    Raises Incompatible for a part without an array form and for a space without parts.
    """
    leaves: list[Any] = list(_leaves(space, "the action space"))
    decode, _ = _decoder(space, 0)
    if isinstance(space, spaces.MultiBinary):
        return spaces.MultiBinary(int(np.prod(space.shape))), decode
    if not leaves:
        raise Incompatible(f"the action space {space} has no part to act with")
    boxes = [leaf for leaf in leaves if isinstance(leaf, spaces.Box)]
    if not boxes:
        return _multi_discrete(leaves, single=isinstance(space, spaces.Discrete)), decode
    low, high = (np.concatenate([getattr(leaf, end).ravel() for leaf in boxes]) for end in ("low", "high"))
    if len(boxes) == len(leaves):
        return _box(low, high), decode
    columns = own_columns(leaves)
    return spaces.Tuple((_multi_discrete(leaves), _box(low, high))), lambda flat: decode(flat[:, columns])


def own_columns(leaves: list[spaces.Space]) -> np.ndarray:
    """Where each number of a mixed action in the space's order, int64 [W], lies in whorl's, which has all choices before all numbers."""
    numbers = [isinstance(leaf, spaces.Box) for leaf in leaves for _ in range(_width(leaf))]
    return np.argsort(np.argsort(numbers, kind="stable"))


def action_form(space: spaces.Space) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of one action of whorl's in a batch."""
    if isinstance(space, spaces.Tuple):
        return (sum(map(_width, space.spaces)),), np.dtype(np.float32)
    return tuple(space.shape or ()), np.dtype(space.dtype)


def _width(leaf: spaces.Space) -> int:
    """How many numbers there are in one of its elements."""
    return math.prod(leaf.shape or ())


def discrete_sizes(space: spaces.Space) -> list[int] | None:
    """Number of choices of each component of a discrete space, or of the first columns of mixed actions; None for another space."""
    if isinstance(space, spaces.Tuple):
        return discrete_sizes(space.spaces[0])
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in space.nvec.ravel()]
    return [2] * int(np.prod(space.shape)) if isinstance(space, spaces.MultiBinary) else None


def _multi_discrete(leaves: list[spaces.Space], single: bool = False) -> spaces.Space:
    sizes = [size for leaf in leaves for size in discrete_sizes(leaf) or ()]
    return spaces.Discrete(sizes[0]) if single else spaces.MultiDiscrete(sizes)


def _leaves(space: spaces.Space, path: str) -> Iterator[spaces.Space]:
    parts = _parts(space)
    if parts is None and not isinstance(space, LEAVES):
        raise _refusal(space, path)
    for key, part in parts or ():
        yield from _leaves(part, f"{path}[{key!r}]")
    if parts is None:
        yield space


def _decoder(space: Any, begin: int) -> tuple[Convert, int]:
    """Flat actions [N, W] -> the engine's batched action for `space`, read from column `begin` on; the next column."""
    parts = _parts(space)
    if parts is not None:
        decoders = []
        for key, part in parts:
            decode, begin = _decoder(part, begin)
            decoders.append((key, decode))
        if isinstance(space, spaces.Dict):
            return lambda flat: {key: decode(flat) for key, decode in decoders}, begin
        return lambda flat: tuple(decode(flat) for _, decode in decoders), begin
    end = begin + int(np.prod(space.shape))
    shape, dtype, start = (-1, *space.shape), space.dtype, getattr(space, "start", 0)
    if not isinstance(space, spaces.Box):
        return lambda flat: (flat[:, begin:end].reshape(shape).astype(dtype) + start).astype(dtype), end
    low, high = space.low, space.high
    if space.dtype.kind == "f":
        return lambda flat: np.clip(flat[:, begin:end].reshape(shape).astype(dtype), low, high), end
    return lambda flat: np.clip(np.rint(flat[:, begin:end].reshape(shape)), low, high).astype(dtype), end


def _parts(space: spaces.Space) -> list[tuple[Any, spaces.Space]] | None:
    """(key, space) of a Dict or Tuple; None for another space."""
    if isinstance(space, spaces.Dict):
        return list(space.spaces.items())
    return list(enumerate(space.spaces)) if isinstance(space, spaces.Tuple) else None


def _refusal(space: spaces.Space, path: str) -> Incompatible:
    return Incompatible(
        f"{path} is a {type(space).__name__} space, which has no array form: put a wrapper around the environment that "
        "turns it into Box, Discrete, MultiDiscrete, MultiBinary, Tuple or Dict"
    )


def _box(low: np.ndarray, high: np.ndarray) -> spaces.Box:
    with np.errstate(over="ignore"):  # the largest float64 is infinity
        return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
