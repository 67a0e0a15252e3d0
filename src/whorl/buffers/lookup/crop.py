"""Shorter sequences out of sequences."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from whorl.batch import Arrays, Batch, Numbers, State
from whorl.buffers.lookup.lookup import Lookup
from whorl.buffers.parts import Storage
from whorl.buffers.sample_uniform import Uniforms
from whorl.errors import BadInput


class RandomCrop(Lookup):
    """`length` consecutive rows of each sequence, [length, B], begun at any of its rows with equal probability.

    Random numbers: the stream (seed, "crop", block). TorchRL: RandomCropTensorDict.
    Raises BadInput for a length below 1, for single rows, and for sequences that are shorter.
    """

    def __init__(self, length: int, seed: int = 0) -> None:
        if length < 1:
            raise BadInput(f"RandomCrop needs a length of at least 1, got {length}")
        self.length = length
        self._uniforms = Uniforms(seed, "crop")

    def __call__(self, storage: Storage, index: Tensor, batch: Batch) -> Batch:
        if len(batch.batch_size) != 2:
            raise BadInput(
                f"RandomCrop takes sequences [T, B], which `Sequences` draws; got rows {list(batch.batch_size)}"
            )
        steps, size = batch.batch_size
        if self.length > steps:
            raise BadInput(f"RandomCrop takes {self.length} rows of a sequence, and these have {steps}")
        start = (self._uniforms.take(size) * (steps - self.length + 1)).astype(np.int64)
        rows = torch.from_numpy(start + np.arange(self.length)[:, None]).to(storage.device)
        return batch[rows, torch.arange(size, device=storage.device)]

    def state(self) -> State:
        return self._uniforms.state()

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        return self._uniforms.load_state(arrays, numbers)
