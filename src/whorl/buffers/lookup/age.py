"""Rows that were collected by a policy of long ago."""

from __future__ import annotations

import torch
from torch import Tensor

from whorl.batch import Batch
from whorl.buffers.lookup.lookup import Lookup
from whorl.buffers.lookup.neighbours import counted
from whorl.buffers.parts import Storage
from whorl.errors import BadInput


class DropOld(Lookup):
    """`mask` False in rows whose `version` is more than `versions` below the newest that is stored.

    `version` is the number of the policy's updates when the row was collected. TorchRL: PolicyAgeFilter.
    Raises BadInput for fewer than 0 versions, BatchError where rows have no `version`.
    """

    def __init__(self, versions: int) -> None:
        if versions < 0:
            raise BadInput(f"DropOld needs at least 0 versions, got {versions}")
        self.versions = versions

    def __call__(self, storage: Storage, index: Tensor, batch: Batch) -> Batch:
        count = torch.as_tensor(storage.count)
        newest = ((count - 1) * storage.lanes + torch.arange(storage.lanes))[count > 0]
        version = storage.column("version")[storage.slot(newest.to(storage.device))].max()
        return counted(batch, batch["version"] >= version - self.versions)
