"""A worker process as the one that started it sees it: its descriptors, its messages, its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from whorl.envs.shared import CALL, DUMP, HEAD, STACK_BYTES, Block, parse, send

DOWN, STARTING, BEGINNING, BACK, READY = range(
    5
)  # how far a worker is; BACK: its rows begin an episode after this step
ANSWERED, DIED, SAID = range(3)  # what an event says


class Process:
    """One worker, as the process that started it sees it. rows: of all environments, those that it steps."""

    def __init__(self, number: int, rows: slice, block: Block, order: dict[str, Any], data: bytes):
        self.number, self.rows, self._block, self._data = number, rows, block, data
        self._order = order | {"number": number, "first": rows.start, "count": rows.stop - rows.start}
        self.state, self.again, self.deaths = DOWN, 0.0, deque[float]()
        self.message: tuple[dict[str, Any], dict[str, np.ndarray]] | None = None  # an answer that somebody waits for
        self._process: subprocess.Popen | None = None
        self._fds: list[int] = []

    @property
    def pid(self) -> int:
        return 0 if self._process is None else self._process.pid

    def start(self, first: int, replay_steps: int) -> list[tuple[int, int]]:
        """Start the process; returns (descriptor, what its event says) of all that tells of it."""
        down, up, stack = os.eventfd(0), os.eventfd(0), os.memfd_create("whorl-stack")
        hears, says = os.pipe()
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        passed = (down, up, says, stack, self._block.fd)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "whorl.envs.worker", *map(str, (os.getpid(), down, up, says, stack))],
            stdin=subprocess.PIPE, pass_fds=passed, process_group=0, env={"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        os.close(says)
        os.set_blocking(hears, False)
        died = os.pidfd_open(self._process.pid)
        self._down, self._up, self._stack, self._hears, self._heard = down, up, stack, hears, bytearray()
        self._fds, self.state, self.message = [down, up, stack, hears, died], STARTING, None
        self._tell(self._order | {"whole_first": first, "replay_steps": replay_steps}, data=self._data)
        return [(up, ANSWERED), (died, DIED), (hears, SAID)]

    def _tell(self, said: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None, data: bytes = b"") -> None:
        assert self._process is not None and self._process.stdin is not None
        with suppress(BrokenPipeError):  # it is dead, which is heard of
            send(self._process.stdin, said, arrays, data)

    def wake(self, what: int) -> None:
        """Let it step, or look for a message."""
        self._block["command"][self.number] = what
        os.eventfd_write(self._down, 1)

    def ask(self, said: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Send a message; the answer comes with an event."""
        self.wake(CALL)
        self._tell(said, arrays)

    def answered(self) -> None:
        """Take note of a step that is done."""
        os.eventfd_read(self._up)

    def heard(self) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """The message that has come, if all of it has."""
        try:
            while part := os.read(self._hears, 1 << 20):
                self._heard += part
        except BlockingIOError:
            pass
        size = HEAD.size
        if len(self._heard) < size:
            return None
        head, raw = HEAD.unpack(self._heard[:size])
        if len(self._heard) < size + head + raw:
            return None
        said, arrays, _ = parse(
            bytes(self._heard[size : size + head]), bytes(self._heard[size + head : size + head + raw])
        )
        del self._heard[: size + head + raw]
        return said, arrays

    def stack(self) -> str:
        """What it is doing, by its own account."""
        os.kill(self.pid, DUMP)
        time.sleep(0.2)
        return os.pread(self._stack, STACK_BYTES, 0).decode(errors="replace")

    def how_it_died(self) -> str:
        assert self._process is not None
        code = self._process.wait()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"it ended with exit code {code}"

    def bury(self) -> list[int]:
        """End what may be left of it; the descriptors that are no more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self.leave()
        fds, self._fds, self._process, self.state = self._fds, [], None, DOWN
        for fd in fds:
            os.close(fd)
        return fds

    def leave(self) -> None:
        """Ask it to close its environments and go."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()

    def end(self, seconds: float) -> None:
        """Wait so long for it to go, and then no longer."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0.0, seconds))
        self.bury()
