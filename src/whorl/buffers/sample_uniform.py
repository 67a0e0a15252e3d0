"""Uniform sampling: every live row with equal probability, with or without replacement."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from whorl.batch import Arrays, Numbers, State
from whorl.buffers.parts import Draw, Storage
from whorl.errors import BadInput
from whorl.functional.streams import stream

BLOCK = 65_536  # random numbers drawn at once
MOST = 2**31  # rows that an epoch can have


class Uniforms:
    """float64 numbers in [0, 1): block b comes from the stream (seed, name, b). The state is where one stands."""

    def __init__(self, seed: int, name: str = "sampler"):
        self.seed, self.name, self.block, self.position = seed, name, 0, 0
        self._numbers = self._draw(0)

    def _draw(self, block: int) -> np.ndarray:
        return np.random.Generator(np.random.Philox(stream(self.seed, self.name, block))).random(BLOCK)

    def take(self, size: int) -> np.ndarray:
        """The next `size` numbers; valid until the block is left."""
        end = self.position + size
        if end <= BLOCK:
            numbers = self._numbers[self.position : end]
            self.position = end
            return numbers
        pieces = [self._numbers[self.position :]]
        size -= BLOCK - self.position
        while size > 0:
            self.block += 1
            self._numbers = self._draw(self.block)
            pieces.append(self._numbers[:size])
            self.position = min(size, BLOCK)
            size -= BLOCK
        return np.concatenate(pieces)

    def state(self) -> State:
        return {}, {"block": self.block, "position": self.position}

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        block, position = numbers["block"], numbers["position"]
        if block < 0 or not 0 <= position <= BLOCK:
            raise BadInput(
                f"random numbers come in blocks 0, 1, ... of {BLOCK:,}, the saved ones stand at {position} of block {block}"
            )
        self.block, self.position = block, position
        self._numbers = self._draw(self.block)
        return True


class Uniform:
    """Rows with replacement: absolute index = low * L + floor(u * (high - low) * L), u uniform in [0, 1)."""

    def __init__(self, seed: int = 0):
        self._uniforms = Uniforms(seed)

    def draw(self, storage: Storage, size: int) -> Draw:
        """(absolute indexes int64 [size], None, {}). Raises BadInput when nothing is live."""
        window = storage.window()
        if window is None:
            return torch.from_numpy(self._uneven(storage, size)), None, {}
        low, high = window
        live = (high - low) * storage.lanes
        if live == 0:
            raise empty()
        index = (self._uniforms.take(size) * live).astype(np.int64)
        if low:
            index += low * storage.lanes
        return torch.from_numpy(index), None, {}

    def _uneven(self, storage: Storage, size: int) -> np.ndarray:
        """Lanes of different lengths: the j-th live row of all, counted lane by lane."""
        low, high = storage.live()
        ends = np.cumsum(high - low)
        if ends[-1] == 0:
            raise empty()
        j = (self._uniforms.take(size) * ends[-1]).astype(np.int64)
        lane = np.searchsorted(ends, j, side="right")
        return (high[lane] - (ends[lane] - j)) * storage.lanes + lane

    def written(self, storage: Storage, index: Tensor) -> None:
        pass

    def feedback(self, storage: Storage, index: Tensor, priority: Tensor) -> None:
        raise BadInput("uniform sampling has no priorities: use a prioritized sampler, or leave feedback out")

    def state(self) -> State:
        return self._uniforms.state()

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        return self._uniforms.load_state(arrays, numbers)


class WithoutReplacement:
    """Every row that is live when an epoch begins, once, in a random order; rows overwritten before their turn are left out.

    The order of epoch e comes from the stream (seed, "sampler", e). The last batch of an epoch is smaller, or dropped.
    """

    def __init__(self, seed: int = 0, drop_last: bool = False):
        self.seed, self.drop_last = seed, drop_last
        self.epoch, self.position = -1, 0  # epochs are numbered from 0
        self._low = self._high = np.zeros(0, np.int64)
        self._order = np.zeros(0, np.int64)

    def draw(self, storage: Storage, size: int) -> Draw:
        """(absolute indexes int64 [size or fewer], None, {}). Raises BadInput when nothing is live, or too little for drop_last."""
        index = self._take(storage, size)
        if not len(index) or (self.drop_last and len(index) < size):
            self._begin(*storage.live())
            index = self._take(storage, size)
            if not len(index):
                raise empty()
            if self.drop_last and len(index) < size:
                raise BadInput(
                    f"{len(index)} rows are fewer than a batch of {size}, and drop_last drops them: use a smaller batch"
                )
        return torch.from_numpy(index), None, {}

    def _begin(self, low: np.ndarray, high: np.ndarray) -> None:
        self.epoch += 1
        self.position = 0
        self._low, self._high = low, high
        self._shuffle()

    def _shuffle(self) -> None:
        """The epoch's order, from the epoch's number and the rows it began with."""
        generator = np.random.Generator(np.random.Philox(stream(self.seed, "sampler", self.epoch)))
        lanes = len(self._low)
        rows = [np.arange(low, high) * lanes + lane for lane, (low, high) in enumerate(zip(self._low, self._high))]
        self._order = generator.permutation(np.concatenate(rows)) if rows else np.zeros(0, np.int64)

    def _take(self, storage: Storage, size: int) -> np.ndarray:
        """The next `size` rows of this epoch that are still live."""
        low, _ = storage.live()
        taken = self._order[:0]
        while len(taken) < size and self.position < len(self._order):
            piece = self._order[self.position : self.position + size - len(taken)]
            self.position += len(piece)
            alive = piece // storage.lanes >= low[piece % storage.lanes]
            taken = np.concatenate([taken, piece[alive]])
        return taken

    def written(self, storage: Storage, index: Tensor) -> None:
        pass

    def feedback(self, storage: Storage, index: Tensor, priority: Tensor) -> None:
        raise BadInput("uniform sampling has no priorities: use a prioritized sampler, or leave feedback out")

    def state(self) -> State:
        return {}, {
            "epoch": self.epoch,
            "position": self.position,
            "low": self._low.tolist(),
            "high": self._high.tolist(),
        }

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        low, high = np.array(numbers["low"], np.int64), np.array(numbers["high"], np.int64)
        epoch, position, rows = numbers["epoch"], numbers["position"], int((high - low).sum())
        if (
            epoch < -1
            or low.shape != high.shape
            or not ((low >= 0) & (low <= high)).all()
            or not 0 <= position <= rows <= MOST
        ):
            raise BadInput(
                f"a saved epoch stands within the rows that were live, at most {MOST:,}; got place {position} of epoch {epoch}, "
                f"rows {low.tolist()} to {high.tolist()}"
            )
        self.epoch, self.position, self._low, self._high = epoch, position, low, high
        if self.epoch >= 0:
            self._shuffle()
        return True


def empty() -> BadInput:
    return BadInput("the replay buffer is empty: add rollouts before sampling")
