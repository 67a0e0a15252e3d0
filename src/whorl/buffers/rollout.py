"""The on-policy buffer: epochs of shuffled minibatches of the last rollout."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from whorl.batch import Arrays, Batch, Numbers, State
from whorl.errors import BadInput, BatchError
from whorl.feeds import Rollouts
from whorl.functional.streams import stream


class RolloutBuffer:
    """Holds one prepared rollout [T, N] and cuts it into minibatches [B]. Rows are shuffled once an epoch, then sliced.

    sequence: rows of time that stay together: minibatches are [sequence, B], of sequences that are shuffled and sliced.
    """

    def __init__(self, feed: Rollouts, seed: int = 0, sequence: int = 0):
        self.feed, self.seed, self.sequence = feed, seed, sequence
        self.draws = 0  # shuffles so far: their stream is (seed, draw)
        self._rollout: Batch | None = None
        self._generator = torch.Generator()

    def add(self, rollout: Batch) -> None:
        """Take a prepared rollout. It is used before the next one is collected, and shuffling copies, so nothing is copied here."""
        self._rollout = rollout

    def batches(self, count: int | None = None) -> Iterator[Batch]:
        """`epochs` x `minibatches` batches of the rollout, or `count` of as many epochs as that takes; their sizes differ by one row at
        most."""
        if self._rollout is None:
            raise BatchError("no rollout is here: an agent's `prepare` must return the rollout, and `add` takes it")
        rows, whole = self._rollout.reshape(-1), self._rollout
        if length := self.sequence:
            steps, lanes = whole.batch_size
            rows = whole.reshape(steps // length, length, lanes).transpose(1, 2).reshape(-1, length)  # [T / L * N, L]
        total = self.feed.epochs * self.feed.minibatches if count is None else count
        for i in range(total):
            piece = i % self.feed.minibatches
            if self.feed.minibatches == 1:
                yield rows.transpose(0, 1) if self.sequence else rows
                continue
            if piece == 0:
                self._generator.manual_seed(stream(self.seed, "sampler", self.draws))
                self.draws += 1
                order = torch.randperm(len(rows), generator=self._generator)
                shuffled = rows[order.to(rows.device) if rows.device is not None else order]
            size = len(rows) / self.feed.minibatches
            part = shuffled[round(piece * size) : round((piece + 1) * size)]
            yield part.transpose(0, 1) if self.sequence else part

    def feedback(self, index: Tensor, priority: Tensor) -> None:
        """Raises BadInput."""
        raise BadInput("rows of a rollout have no priorities: each is used as often as the others")

    def state(self) -> State:
        return {}, {"draws": self.draws}

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        self.draws = numbers["draws"]
        return True
