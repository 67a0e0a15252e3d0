"""Stacks of frames at sample time: a buffer keeps single observations."""

from __future__ import annotations

import torch
from torch import Tensor

from whorl.batch import Batch, get
from whorl.buffers.lookup.lookup import Lookup
from whorl.buffers.lookup.neighbours import behind, counted
from whorl.buffers.parts import Storage
from whorl.errors import BadInput, BatchError


class FrameStack(Lookup):
    """`observation` [..., count, *obs] from those of row t and the rows before it in its episode, the newest last, and
    `next.observation` likewise; before an episode's first row, that row's observation again. `key`: of this entry of a Dict.

    Bit for bit what the transform `StackFrames(count, key)` gives around an environment. `mask` is False where a frame was overwritten.
    After `NStep` the successor is that of the last row of the return. Mnih et al. 2015, "Preprocessing"; TorchRL: CatFrames.
    Raises BadInput for a count below 1, BatchError where the buffer has no such array, or the batch no `next.observation`.
    """

    def __init__(self, count: int, key: str | None = None) -> None:
        if count < 1:
            raise BadInput(f"FrameStack needs a count of at least 1, got {count}")
        self.count, self.key = count, key
        self._name = "observation" if key is None else f"observation.{key}"

    def __call__(self, storage: Storage, index: Tensor, batch: Batch) -> Batch:
        rows, whole = behind(storage, index.to(storage.device), self.count)
        successor, last = get(batch, f"next.{self._name}"), get(batch, "next.index")
        if successor is None:
            raise BatchError(
                f"FrameStack stacks `next.{self._name}`, too, and there is none: put NextReconstruct before it, or store it"
            )
        stack = newer = self._frames(storage, rows)
        if last is not None:
            others, known = behind(storage, last, self.count)
            newer, whole = self._frames(storage, others), whole & known
        axis = index.ndim
        following = torch.cat([newer.narrow(axis, 1, self.count - 1), successor.unsqueeze(axis)], axis)
        for part, frames in ((batch, stack), (batch["next"], following)):
            if self.key is None:
                part["observation"] = frames
            else:
                part["observation"][self.key] = frames
        self.touched = rows[..., 0].flatten()  # a writer reaches these before all others
        return counted(batch, whole)

    def _frames(self, storage: Storage, rows: Tensor) -> Tensor:
        storage.looked_at(rows.numel())
        return storage.column(self._name)[storage.slot(rows)]
