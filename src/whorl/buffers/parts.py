"""What a replay buffer is put together from: a storage keeps rows, a sampler says which of them make a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from whorl.batch import Batch, Numbers, Part

# absolute indexes int64 [B] or [T, B]; importance weights of the same shape; more keys of the batch
Draw = tuple[Tensor, Tensor | None, dict[str, Tensor]]


class Storage(Part, Protocol):
    """`lanes` rings, one for each environment. The k-th row ever written to lane e has the absolute index k * lanes + e."""

    lanes: int
    rows: int  # of a lane, that can be sampled
    ring: int  # rows of a lane that there is room for
    device: torch.device

    @property
    def count(self) -> np.ndarray:
        """Rows ever written to each lane, int64 [L]."""

    def keep(self, batches: int) -> None:
        """From now on a batch that was read stays valid until so many more of its shape were read."""

    def write(self, rollout: Batch, first_lane: int = 0) -> Tensor:
        """Store the rows of a rollout [T, N] in lanes first_lane ... first_lane + N - 1; returns their absolute indexes, valid
        until the next write."""

    def read(self, index: Tensor) -> Batch:
        """The rows of absolute indexes as a batch of shape index.shape: all keys, and `index`."""

    def __len__(self) -> int: ...

    def live(self) -> tuple[np.ndarray, np.ndarray]:
        """(low, high), int64 [L] each: the rows low <= k < high of each lane may be sampled."""

    def window(self) -> tuple[int, int] | None:
        """(low, high) as integers where all lanes agree, else None."""

    def slot(self, index: Tensor) -> Tensor:
        """The slot in memory of each absolute index."""

    def column(self, name: str) -> Tensor:
        """One field over all slots, as a view [ring * L, ...]. Raises BatchError when there is none of this name."""

    def looked_at(self, rows: int) -> None:
        """To be told by who reads many rows through `column`."""

    def names(self) -> list[str]:
        """All keys of a batch but `index`."""

    def intact(self, index: Tensor) -> bool:
        """Whether no other process can have overwritten these rows by now."""

    def flush(self) -> None:
        """Bring the rows written since the last flush to the disk, where they are kept there."""

    def dump(self, folder: Path) -> Numbers:
        """Write all rows to files in `folder`; returns the counters, for `restore`."""

    def restore(self, folder: Path, numbers: Numbers) -> None:
        """The inverse of `dump`."""


class Sampler(Part, Protocol):
    """Chooses rows of a storage."""

    def draw(self, storage: Storage, size: int) -> Draw:
        """The rows of a batch of `size` rows or sequences. Raises BadInput when there are none."""

    def written(self, storage: Storage, index: Tensor) -> None:
        """These rows were written: absolute indexes [rows], valid until the next write."""

    def feedback(self, storage: Storage, index: Tensor, priority: Tensor) -> None:
        """New priorities of rows that were drawn. Raises BadInput where rows have none."""
