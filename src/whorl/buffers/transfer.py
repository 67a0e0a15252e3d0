"""Batches to another device: one pinned block of memory, one copy that the learner need not wait for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from whorl import batch
from whorl.batch import Batch

ALIGN = 16


class Transfer:
    """`transfer(batch)` is the batch on `device`. `alive` results of one kind stay valid at the same time."""

    def __init__(self, device: str | torch.device, alive: int = 1):
        self.device, self.alive = torch.device(device), alive
        self._blocks: dict[Any, list[_Block]] = {}

    def __call__(self, source: Batch) -> Batch:
        values = [(name, batch.get(source, name)) for name in batch.names(source)]
        kind = tuple((name, value.dtype, value.shape) for name, value in values)
        if kind not in self._blocks:
            self._blocks = {kind: [_Block(values, source.batch_size, self.device) for _ in range(self.alive)]}
        blocks = self._blocks[kind]
        blocks.append(blocks.pop(0))
        return blocks[-1].filled(values)


class _Block:
    def __init__(self, values: list[Any], shape: torch.Size, device: torch.device):
        cuda = device.type == "cuda"
        columns, end = [], 0
        for name, value in values:
            columns.append((name, value, end))
            end += -(-value.numel() * value.element_size() // ALIGN) * ALIGN
        self.here = torch.empty(end, dtype=torch.uint8, pin_memory=cuda)
        self.there = torch.empty(end, dtype=torch.uint8, device=device)
        self.columns = [_view(self.here, x, start) for _, x, start in columns]
        self.batch = batch.make({}, tuple(shape))
        for name, x, start in columns:
            self.batch[tuple(name.split("."))] = _view(self.there, x, start)
        self.copied = torch.cuda.Event() if cuda else None

    def filled(self, values: list[Any]) -> Batch:
        if self.copied:
            self.copied.synchronize()  # the last copy out of this block
        for column, (_, value) in zip(self.columns, values):
            column.copy_(value)
        self.there.copy_(self.here, non_blocking=True)
        if self.copied:
            self.copied.record()
        return self.batch


def _view(block: Tensor, like: Tensor, start: int) -> Tensor:
    """Bytes of a block from `start` on, with the dtype and shape of `like`."""
    return block[start : start + like.numel() * like.element_size()].view(like.dtype).view(like.shape)
