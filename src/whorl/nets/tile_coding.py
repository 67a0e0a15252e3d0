"""Features for linear values: one-hot, raw, and tile coding. At most a few of them are active, so a state is a list of indices.

Tile coding (Sutton and Barto 2018, section 9.5.4): `tilings` grids over the same box, each displaced a little against the others;
a state is the one tile it falls into in each of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count, islice

import numpy as np
import torch
from gymnasium import spaces
from numba.extending import register_jitable
from torch import Tensor, nn

from whorl.counted import mixed
from whorl.errors import BadInput, Incompatible
from whorl.spaces import describe

ONE_HOT, RAW, GRID, HASHED = 0, 1, 2, 3
LOW, SCALE, LIMIT, STRIDE, OFFSETS = 0, 1, 2, 3, 4  # rows of a coder's table; the displacement of each tiling follows
LARGE = 1000.0  # a bound of a space beyond this is none, only a number that stands for infinity
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class Features(nn.Module):
    """Observation -> the `active` features that are not 0, out of `size`: (index, value), each [..., active].

    `kind` and `table` say the same to the compiled `code` below.
    """

    kind: int
    size: int
    active: int
    table: Tensor  # float64; empty for coders without parameters
    slots = 0  # of each tiling
    binary = True  # every value is 0 or 1
    bias = False  # one more feature, always on: the last one

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        index = self.indices(observation)
        if self.bias:
            index = torch.cat([index, torch.full_like(index[..., :1], self.size - 1)], -1)
        return index, torch.ones(index.shape, dtype=torch.float64, device=index.device)

    def indices(self, observation: Tensor) -> Tensor:
        raise NotImplementedError


class OneHot(Features):
    """A table: one feature per state of a Discrete space."""

    def __init__(self, observation_space: spaces.Space):
        super().__init__()
        if not isinstance(observation_space, spaces.Discrete):
            raise Incompatible(
                f"a table needs Discrete observations, got {describe(observation_space)}; tile_coding takes vectors"
            )
        self.kind, self.size, self.active = ONE_HOT, int(observation_space.n), 1
        self.register_buffer("table", torch.zeros(0, 0, dtype=torch.float64), persistent=False)

    def indices(self, observation: Tensor) -> Tensor:
        return observation.unsqueeze(-1)


class Raw(Features):
    """The components of a vector as they are, and 1 (the bias)."""

    binary = False

    def __init__(self, observation_space: spaces.Space):
        super().__init__()
        _vector(observation_space, "linear features")
        self.kind, self.size = RAW, observation_space.shape[0] + 1  # type: ignore[index]
        self.active = self.size
        self.register_buffer("table", torch.zeros(0, 0, dtype=torch.float64), persistent=False)

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        value = torch.cat([observation, torch.ones_like(observation[..., :1])], -1).double()
        return torch.arange(self.size, device=value.device).expand_as(value), value


class TileCoding(Features):
    """`tilings` grids of `tiles` tiles per dimension (a number, or one for each), displaced by `displacement` / tilings of a tile.

    low, high: the box that is covered, () = the bounds of the observation space; what lies outside counts as on its edge.
    memory: 0 keeps one weight for each tile; above 0, tiles are hashed into that many slots per tiling, and a dimension without
    bounds has tiles of width 1 / tiles and no edge. `bias`: one feature more that is always on, in a slot of its own.
    Raises Incompatible for anything but a vector, and for an unbounded dimension of a grid that is not hashed; BadInput for sizes
    that cannot be.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        tilings: int = 8,
        tiles: int | Sequence[int] = 8,
        low: Sequence[float] = (),
        high: Sequence[float] = (),
        memory: int = 0,
        bias: bool = False,
    ):
        super().__init__()
        _vector(observation_space, "tile coding")
        d = observation_space.shape[0]  # type: ignore[index]
        per_dimension = np.full(d, tiles) if isinstance(tiles, int) else np.asarray(tiles)
        for name, bound in (("tiles", per_dimension), ("low", low), ("high", high)):
            if len(bound) not in ((d,) if name == "tiles" else (0, d)):
                raise BadInput(f"{name} must have {d} numbers, one per dimension of the observation, got {len(bound)}")
        if tilings < 1 or (per_dimension < 1).any() or memory < 0:
            raise BadInput(f"tile coding needs tilings >= 1, tiles >= 1, memory >= 0; got {tilings}, {tiles}, {memory}")
        lowest = np.asarray(low if len(low) else observation_space.low, np.float64)  # type: ignore[attr-defined]
        highest = np.asarray(high if len(high) else observation_space.high, np.float64)  # type: ignore[attr-defined]
        from_below = np.isfinite(lowest) if len(low) else lowest > -LARGE  # what is given is meant
        bounded = from_below & (np.isfinite(highest) if len(high) else highest < LARGE)
        if not bounded.all() and not memory:
            raise Incompatible(
                f"tile coding needs bounds, and dimension {np.flatnonzero(~bounded).tolist()} of {describe(observation_space)} "
                "has none: give low and high, or memory for hashed tiles"
            )
        if (lowest >= highest).any():
            raise BadInput(f"low must be below high in every dimension, got {lowest.tolist()} and {highest.tolist()}")
        self.kind, self.tilings, self.memory, self.bias = HASHED if memory else GRID, tilings, memory, bias
        cells = math.prod(int(n) + 1 for n in per_dimension)
        if (memory or cells) * tilings > 2**27:
            advice = "set a smaller memory" if memory else "hash them: set memory"
            raise BadInput(f"{(memory or cells) * tilings:,} tiles are too many: {advice}, or use fewer tilings")
        table = np.zeros((OFFSETS + tilings, d))
        table[LOW] = np.where(bounded, lowest, 0.0)
        table[SCALE] = np.where(bounded, per_dimension / np.where(bounded, highest - lowest, 1.0), per_dimension)
        table[LIMIT] = np.where(bounded, per_dimension, np.inf)
        table[STRIDE] = np.cumprod([1, *(per_dimension[:-1] + 1)])
        table[OFFSETS:] = np.arange(tilings)[:, None] * displacement(d, tilings) % tilings / tilings
        self.register_buffer("table", torch.from_numpy(table), persistent=False)
        self.slots = memory or cells
        self.active = tilings + bias
        self.size = tilings * self.slots + bias

    def indices(self, observation: Tensor) -> Tensor:
        scaled = (observation.double() - self.table[LOW]) * self.table[SCALE]
        inside = torch.where(scaled >= 0, scaled, 0.0).minimum(self.table[LIMIT])  # NaN is 0: an index must be one
        scaled = torch.where(self.table[LIMIT].isinf(), scaled, inside)
        cell = (scaled.unsqueeze(-2) + self.table[OFFSETS:]).floor().long()  # [..., tilings, d]
        tiling = torch.arange(self.tilings, device=cell.device)
        if self.kind == GRID:
            tile = (cell * self.table[STRIDE].long()).sum(-1)
        else:
            key = mixed(tiling.expand(cell.shape[:-1]) + 1)
            for d in range(cell.shape[-1]):
                key = mixed(key ^ cell[..., d])
            tile = (key & 2**62 - 1) % self.memory
        return tiling * self.slots + tile


def displacement(dimensions: int, tilings: int) -> np.ndarray:
    """The odd numbers 1, 3, 5, ... that share no factor with `tilings`, one per dimension: with one that does, tilings would coincide."""
    odd = (n for n in count(1, 2) if math.gcd(n, tilings) == 1)
    return np.array([*islice(odd, dimensions)])


def _vector(space: spaces.Space, what: str) -> None:
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise Incompatible(f"{what} needs a vector as observation, got {describe(space)}")


@register_jitable(forceinline=True)
def mix(z: int | np.int64) -> np.int64:
    """`mixed` for compiled code: int64 in, int64 out."""
    u = np.uint64(z)
    u = (u ^ (u >> np.uint64(30))) * np.uint64(_MIX_1)
    u = (u ^ (u >> np.uint64(27))) * np.uint64(_MIX_2)
    return np.int64(u ^ (u >> np.uint64(31)))


@register_jitable(forceinline=True)
def code(
    kind: int, x: np.ndarray, table: np.ndarray, slots: int, index: np.ndarray, value: np.ndarray, key: np.ndarray
) -> None:
    """`Features.forward` of one observation row `x`, compiled: writes `index` and `value` [active].

    A bias is constant and stands in the last entry already. `key` [tilings] gets the identity of each hashed tile.
    """
    if kind == ONE_HOT:
        index[0] = np.int64(x[0])
    elif kind == RAW:
        for d in range(len(x)):
            value[d] = np.float64(x[d])
    elif kind == GRID:
        for k in range(len(table) - OFFSETS):
            index[k] = k * slots
        for d in range(len(x)):
            scaled, stride = (np.float64(x[d]) - table[LOW, d]) * table[SCALE, d], np.int64(table[STRIDE, d])
            limit = table[LIMIT, d]
            scaled = limit if scaled > limit else scaled if scaled >= 0.0 else 0.0  # NaN too: an index must be one
            for k in range(len(table) - OFFSETS):
                index[k] += np.int64(scaled + table[OFFSETS + k, d]) * stride
    else:
        for k in range(len(key)):
            key[k] = mix(k + 1)
        for d in range(len(x)):
            scaled, limit = (np.float64(x[d]) - table[LOW, d]) * table[SCALE, d], table[LIMIT, d]
            if limit < np.inf:
                scaled = limit if scaled > limit else scaled if scaled >= 0.0 else 0.0
            for k in range(len(key)):
                key[k] = mix(key[k] ^ np.int64(math.floor(scaled + table[OFFSETS + k, d])))
        for k in range(len(key)):
            index[k] = k * slots + (key[k] & np.int64(2**62 - 1)) % slots
