"""Lookups on sequences [T, B]."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from whorl.batch import Arrays, Batch, Numbers, State, get
from whorl.buffers.lookup.lookup import Lookup
from whorl.buffers.parts import Storage
from whorl.buffers.sample_uniform import Uniforms
from whorl.errors import BadInput
from whorl.functional.returns import reward_to_go


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
        steps, size = _sequences(batch, "RandomCrop")
        if self.length > steps:
            raise BadInput(f"RandomCrop takes {self.length} rows of a sequence, and these have {steps}")
        start = (self._uniforms.take(size) * (steps - self.length + 1)).astype(np.int64)
        rows = torch.from_numpy(start + np.arange(self.length)[:, None]).to(storage.device)
        return batch[rows, torch.arange(size, device=storage.device)]

    def state(self) -> State:
        return self._uniforms.state()

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        return self._uniforms.load_state(arrays, numbers)


class RewardToGo(Lookup):
    """`return` [T, B]: the discounted rewards from each row to the end of its episode, or of the sequence.

    Rows that carry a `next.discount` are discounted by that. TorchRL: Reward2GoTransform; for single rows there is NStep.
    Raises BadInput for a discount outside of [0, 1], and for single rows.
    """

    def __init__(self, discount: float) -> None:
        if not 0 <= discount <= 1:
            raise BadInput(f"discount must lie in [0, 1], got {discount}")
        self.discount = discount

    def __call__(self, storage: Storage, index: Tensor, batch: Batch) -> Batch:
        _sequences(batch, "RewardToGo")
        after = batch["next"]
        over, first = after["truncated"].clone(), get(batch, "is_first")
        if first is not None:  # an episode may be given up without an end
            over[:-1] |= first[1:]
        discount = get(batch, "next.discount", self.discount)
        batch["return"] = reward_to_go(after["reward"], after["terminated"], over, discount)
        return batch


def _sequences(batch: Batch, name: str) -> tuple[int, int]:
    """T and B. Raises BadInput for single rows."""
    if len(batch.batch_size) != 2:
        raise BadInput(f"{name} takes sequences [T, B], which `Sequences` draws; got rows {list(batch.batch_size)}")
    return batch.batch_size[0], batch.batch_size[1]
