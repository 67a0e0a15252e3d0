"""What looks at neighbouring rows when a buffer is sampled."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from whorl.batch import Arrays, Batch, Numbers, State
from whorl.buffers.parts import Storage


class Lookup:
    """A change of every batch that is drawn. Subclasses write `__call__`, and `state` and `load_state` where they have one."""

    rebuilds: ClassVar[tuple[str, ...]] = ()  # keys that it gives, and that the buffer therefore does not store
    touched: Tensor = torch.zeros(
        0, dtype=torch.int64
    )  # rows looked at last, beside the batch's own and those that follow

    def __call__(self, storage: Storage, index: Tensor, batch: Batch) -> Batch:
        """The batch of the rows `index` [B] or [T, B] (absolute), changed in place or another one."""
        raise NotImplementedError

    def state(self) -> State:
        """(arrays, numbers) from which `load_state` goes on to the same bits."""
        return {}, {}

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        return True
