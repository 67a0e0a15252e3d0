"""The buffer of online agents: it holds the step that was just taken."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from whorl.batch import Arrays, Batch, Numbers, State
from whorl.errors import BadInput


class StreamBuffer:
    """Hands out each rollout once, as it is; nothing is copied, so it is valid until the next one is collected."""

    def __init__(self) -> None:
        self._rollout: Batch | None = None

    def add(self, rollout: Batch) -> None:
        self._rollout = rollout

    def batches(self, count: int | None = None) -> Iterator[Batch]:
        if self._rollout is not None:
            yield self._rollout
        self._rollout = None

    def feedback(self, index: Tensor, priority: Tensor) -> None:
        """Raises BadInput."""
        raise BadInput("steps that are learned from once have no priorities")

    def state(self) -> State:
        return {}, {}

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        return True
