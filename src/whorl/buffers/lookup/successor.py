"""Compact replay: successors that are not stored, because the next row has them."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from whorl.batch import Batch, get
from whorl.buffers.lookup.lookup import Lookup
from whorl.buffers.lookup.neighbours import ahead, counted, gathered
from whorl.buffers.parts import Storage


class NextReconstruct(Lookup):
    """`next.observation` from the observation of the row after, so that the buffer does not store it: about half of the memory.

    Where no stored row goes on with the episode (at its end, in the newest row of a lane) the successor is not there: `mask` is False, and
    `next.observation` is the observation of the row itself. With `keep_terminated` rows that terminated count all the same, for agents
    whose target leaves out the value of a terminated row's successor; without, their rewards are never learned from.

    After `NStep` it is the observation that follows the last row of the return. TorchRL: NextStateReconstructor.
    """

    rebuilds: ClassVar[tuple[str, ...]] = ("next.observation",)

    def __init__(self, keep_terminated: bool = False) -> None:
        self.keep_terminated = keep_terminated

    def __call__(self, storage: Storage, index: Tensor, batch: Batch) -> Batch:
        slot, same = ahead(storage, get(batch, "next.index", index.to(storage.device)), 2)
        there = same[..., 1]
        batch["next"]["observation"] = gathered(storage, "observation", slot[..., 1].where(there, slot[..., 0]))
        return counted(batch, there | batch["next"]["terminated"] if self.keep_terminated else there)
