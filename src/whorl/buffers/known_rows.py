"""Rows of which everybody knows what they are: what `check_buffer` writes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import prod
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from whorl import batch
from whorl.batch import Batch
from whorl.errors import BufferFault
from whorl.spaces import numpy_dtype, tree_map

ROLLOUT = 8  # rows of time of a rollout, fewer than these


class KnownRows:
    """The rows that are written: k-th row of a lane = entry [k, lane] of every tensor. No two rows are alike, and the key `row`
    tells which one it is. Rows of the episodes where other[lane, episode] is True differ from one story to another, but
    in their flags."""

    def __init__(
        self,
        lanes: int,
        steps: int,
        space: spaces.Space,
        seed: int,
        other: np.ndarray | None = None,
    ):
        self.lanes, self.steps = lanes, steps
        other = np.zeros((lanes, steps), bool) if other is None else other
        columns = [self._lane(lane, space, seed, other) for lane in range(lanes)]
        self.rows: dict[str, Any] = _stack(columns)
        self.kept = ~other[np.arange(lanes), self.rows.pop("episode").numpy()]  # [K, L]

    def _lane(self, lane: int, space: spaces.Space, seed: int, other: np.ndarray) -> dict:
        lengths = np.random.default_rng((seed, lane))
        episodes: list[dict] = []
        left = self.steps
        while left:
            number, n = len(episodes), min(int(lengths.integers(1, 13)), left)
            draw = np.random.default_rng((seed, lane, number, int(other[lane, number])))
            seen, last = _observations(space, n + 1, draw), np.arange(n) == n - 1
            episodes.append(
                {
                    "observation": tree_map(lambda leaf: leaf[:-1], seen),
                    "is_first": np.arange(n) == 0,
                    "action": draw.normal(size=(n, 2)).astype(np.float32),
                    "note": draw.integers(0, 256, (n, 3), np.uint8),  # a key that nobody knows
                    "row": (np.arange(n) + self.steps - left) * self.lanes + lane,
                    "episode": np.full(n, number),
                    "next": {
                        "observation": tree_map(lambda leaf: leaf[1:], seen),
                        "reward": draw.normal(size=n).astype(np.float32),
                        "terminated": last & (number % 3 == 0),
                        "truncated": last & (number % 3 == 1),  # number % 3 == 2: given up, without a flag
                    },
                }
            )
            left -= n
        return _join(episodes)

    def rollouts(self, seed: int) -> Iterator[tuple[Batch, np.ndarray]]:
        """(rollout [T, lanes], the absolute indexes that its rows get), until all rows are used. At first all rows count, later
        one in five does not."""
        draw, count = np.random.default_rng((seed, 1)), np.zeros(self.lanes, np.int64)
        while (left := self.steps - int(count.max())) > 0:
            shape = (min(int(draw.integers(1, ROLLOUT)), left), self.lanes)
            counts = draw.random(shape) < (1.0 if count.min() < self.steps // 2 else 0.8)
            k, lane = count + np.cumsum(counts, 0) - counts, np.arange(self.lanes)
            rollout = batch.make(_rows(self.rows, np.minimum(k, self.steps - 1), lane), shape)
            if not counts.all():
                rollout["mask"] = torch.from_numpy(counts)
                rollout["row"][~rollout["mask"]] = -1
            count = count + counts.sum(0)
            yield rollout, (k * self.lanes + lane)[counts]

    def check(self, rows: Batch, part: str, changes: Collection[str] = ()) -> None:
        """That rows which came back are those that were written, but in the keys `changes`. Raises BufferFault."""
        number, counts = rows["row"], batch.get(rows, "mask")
        counts = torch.ones_like(number, dtype=torch.bool) if counts is None else counts
        demand(part, (number[counts] >= 0).all(), "gave back a row that was written with mask False")
        number = number[counts]
        index = batch.get(rows, "index")
        demand(
            part,
            index is None or torch.equal(index[counts], number),
            "gives rows an `index` that is not theirs: the k-th row of lane e has k * lanes + e",
        )
        k, lane = number // self.lanes, number % self.lanes
        wanted = batch.make(_rows(self.rows, k, lane), tuple(number.shape))
        for name in batch.names(wanted):
            if any(name == key or name.startswith(f"{key}.") for key in changes):
                continue
            value, right = batch.get(rows, name), batch.get(wanted, name)
            demand(part, value is not None, f"lost the key {name!r}")
            came = value[counts]
            demand(
                part,
                came.dtype == right.dtype and came.shape == right.shape and torch.equal(came, right),
                f"gave back another {name!r} than was written to the rows {number[:5].tolist()}..., or of another dtype or shape"
                + ("; name what lookups change on purpose in `changes`" if part == "buffer" else ""),
            )


def demand(part: str, holds: object, message: str) -> None:
    """Raise BufferFault, "the `part` `message`", unless it holds."""
    if not holds:
        raise BufferFault(f"the {part} {message}")


def overwrite(rollout: Batch) -> None:
    """Zeros in its memory: the collector uses it again."""
    for name in batch.names(rollout):
        batch.get(rollout, name).zero_()


def _observations(space: spaces.Space, n: int, draw: np.random.Generator) -> Any:
    """n different elements; stacks [stack, H, W] and [stack, D] move on by one frame."""
    if isinstance(space, spaces.Dict):
        return {key: _observations(inner, n, draw) for key, inner in space.spaces.items()}
    shape, dtype = space.shape or (), numpy_dtype(space)
    if len(shape) > 1 and isinstance(space, spaces.Box):
        frames = _observations(spaces.Box(0, 255, (prod(shape[1:]),), dtype.type), n + shape[0] - 1, draw)
        return np.stack([frames[i : i + shape[0]].reshape(shape) for i in range(n)])
    if dtype == np.float32:
        return draw.normal(size=(n, *shape)).astype(np.float32)
    most = 255 if dtype == np.uint8 else getattr(space, "nvec", getattr(space, "n", 2))
    return draw.integers(0, most, (n, *shape)).astype(dtype)


def _rows(tree: Any, k: Any, lane: Any) -> Any:
    return tree_map(lambda leaf: leaf[k, lane], tree)


def _join(episodes: list[dict]) -> dict:
    """Nested dicts of arrays, one after another."""
    return {
        key: _join([e[key] for e in episodes])
        if isinstance(value, dict)
        else np.concatenate([e[key] for e in episodes])
        for key, value in episodes[0].items()
    }


def _stack(columns: list[dict]) -> dict:
    """Nested dicts of arrays [K, ...] of each lane as tensors [K, L, ...]."""
    return {
        key: _stack([c[key] for c in columns])
        if isinstance(value, dict)
        else torch.from_numpy(np.stack([c[key] for c in columns], 1))
        for key, value in columns[0].items()
    }
