"""What a run does to its process: threads of torch, and an orderly end on a signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from whorl.errors import BadInput

MOST_THREADS = 1024


@contextmanager
def threads_of_torch(number: int) -> Iterator[None]:
    """torch on this many threads inside the block. Raises BadInput for more than MOST_THREADS, which would end the process."""
    if number > MOST_THREADS:
        raise BadInput(f"threads = {number} is more than the {MOST_THREADS:,} that torch is given")
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class StopSignals:
    """Ctrl-C and SIGTERM inside the block set `number`, so that the run can end after the rollout under way; a second one ends it at once.

    Only in the main thread, the only one that Python gives signals to; elsewhere `number` stays 0.
    """

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            raise KeyboardInterrupt
        self.number = number

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
