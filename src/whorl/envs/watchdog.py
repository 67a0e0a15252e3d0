"""A hung environment is named: a thread looks whether the environments still come back, and ends the process where one does not."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

QUICK = ("step", "render")  # all else may take SLOW times as long
SLOW = 10
TICK = 1.0  # seconds between two looks, at most


class Turn:
    """Whose turn it is: written by whoever steps environments, at each step, and read by the thread.

    place: says which environment of how far an episode it is; None while none is asked. row: which of its N, where they are stepped
    one after another. method: what it is asked for. number: another one at each turn.
    """

    def __init__(self) -> None:
        self.place: Callable[[int | None], str] | None = None
        self.row: int | None = None
        self.method = "step"
        self.number = 0
        self.patience = 0.0  # seconds, while somebody watches

    def to(self, row: int | None, method: str) -> None:
        """The next environment is asked. Costs nothing to speak of."""
        self.row, self.method = row, method
        self.number += 1


TURN = Turn()  # of this process: one thread of it steps environments


@contextmanager
def watching(seconds: float) -> Iterator[None]:
    """End the process where an environment does not come back within `seconds` (a reset, or to close: ten times as long); 0 = never.

    Ended it is at once, with the exit code 1, after the environment, the step and the stack were written to stderr: nothing is saved,
    and what was published before stands. The seconds are counted while this process runs: one that was stopped and goes on has not
    hung. A step that keeps the interpreter's lock for itself cannot be seen.
    """
    if not seconds or TURN.patience:  # already watched
        yield
        return
    TURN.patience, over = seconds, threading.Event()
    thread = threading.Thread(
        target=_watch, args=(seconds, threading.get_ident(), over), name="environment watchdog", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        TURN.patience = 0.0
        over.set()
        thread.join()


def _watch(seconds: float, stepping: int, over: threading.Event) -> None:
    tick = min(TICK, seconds / 10)
    seen, waited = -1, 0.0
    while not over.wait(tick):
        place, number = TURN.place, TURN.number
        waited = waited + tick if place is not None and number == seen else 0.0
        seen = number
        method = TURN.method
        limit = seconds if method in QUICK else seconds * SLOW
        if place is not None and waited >= limit:
            _end(place(TURN.row), method, limit, stepping)


def _end(where: str, what: str, seconds: float, stepping: int) -> None:
    frame = sys._current_frames().get(stepping)
    stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
    print(
        f"{stack}\n{where}: {what} has not come back for {seconds:g} seconds, so the process ends; the last checkpoint stands. Above is "
        "where it hangs. If it only takes long, give it more seconds: --env-timeout (0 = for ever)",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)
