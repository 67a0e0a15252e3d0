"""A worker process as the one that started it sees it: its descriptors, its messages, its end."""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import suppress
from typing import Any

import numpy as np

from whorl.envs.child import Child, Failure, carried
from whorl.envs.worker import CALL, DUMP, STACK_BYTES, Asked, Raised, Task

DOWN, STARTING, BEGINNING, BACK, READY = range(
    5
)  # how far a worker is; BACK: its rows begin an episode after this step
ANSWERED, DIED, SAID = range(3)  # what an event says


class Process:
    """One worker. rows: of all environments, those that it steps. heard: what it said last, until somebody takes it. asked: what it was
    asked for last, and knows."""

    def __init__(self, number: int, rows: slice, command: np.ndarray):
        self.number, self.rows, self._command = number, rows, command
        self.state, self.again, self.deaths = DOWN, 0.0, deque[float]()
        self.heard: list[Any] = []
        self.asked: Asked | None = None
        self._child: Child | None = None
        self._fds: list[int] = []

    @property
    def pid(self) -> int:
        """0: it is not there."""
        return 0 if self._child is None else self._child.process.pid

    def start(self, task: Task) -> list[tuple[int, int]]:
        """Start the process; returns (descriptor, what its event says) of all that tells of it."""
        self._woken, self._done, self._stack = os.eventfd(0), os.eventfd(0), os.memfd_create("whorl-stack")
        self._fds, own = [self._woken, self._done, self._stack], (self._woken, self._done, self._stack)
        task = task._replace(woken=own[0], done=own[1], stack=own[2])
        self._child = Child("whorl.envs.worker", carried(task.kind, task), (task.block, *own))
        died = os.pidfd_open(self.pid)
        self._fds.append(died)
        self.state, self.heard = STARTING, []
        return [(self._done, ANSWERED), (died, DIED), (self._child.pipe.fileno(), SAID)]

    def wake(self, what: int) -> None:
        """Let it step, or look for a message."""
        self._command[self.number] = what
        os.eventfd_write(self._woken, 1)

    def ask(self, asked: Asked) -> None:
        """Send a message; that the answer is there is an event."""
        assert self._child is not None
        self.asked = asked
        self.wake(CALL)
        with suppress(OSError):  # it is dead, which is heard of
            self._child.pipe.send(asked)

    def answered(self) -> None:
        """Take note of a step that is done."""
        os.eventfd_read(self._done)

    def hear(self) -> None:
        """Take its message; nothing, where its end of the pipe is closed."""
        assert self._child is not None
        with suppress(EOFError, OSError):
            said = self._child.pipe.recv()
            self.heard.append(Raised(None, said.text, None, said.trace) if isinstance(said, Failure) else said)

    def stack(self) -> str:
        """What it is doing, by its own account."""
        os.kill(self.pid, DUMP)
        time.sleep(0.2)
        return os.pread(self._stack, STACK_BYTES, 0).decode(errors="replace")

    def ended(self) -> str:
        """How it has ended."""
        assert self._child is not None
        return self._child.ended()

    def leave(self) -> None:
        """Let it close its environments and go."""
        if self._child is not None:
            self._child.pipe.close()

    def bury(self, seconds: float = 0.0) -> list[int]:
        """End it, so many seconds from now at most; the descriptors that are no more."""
        fds, self._fds, self.state = self._fds, [], DOWN
        self.asked = None
        gone = list(fds)
        if self._child is not None:
            with suppress(OSError):
                gone.append(self._child.pipe.fileno())
            self._child.stop(max(0.0, seconds))
            self._child = None
        for fd in fds:
            os.close(fd)
        return gone
