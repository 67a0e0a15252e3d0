"""Processes that this one starts: by `subprocess`, never by fork, with a pipe to talk over; none outlives it, none sees Ctrl-C.

What a process is to do goes through `cloudpickle`, so that classes and functions of the user's script can travel: from here to a process
of our own, never to or from a file or a network.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import cloudpickle
import gymnasium
from gymnasium.envs.registration import EnvSpec

from whorl.envs.env import Kind
from whorl.errors import Incompatible, in_words

STOPPING = (signal.SIGINT, signal.SIGTERM)
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


class Failure(NamedTuple):
    """The exception that has ended a process, in words: not every exception can travel."""

    text: str  # class and message
    trace: str


class Child:
    """A process that runs `python -m module` (which calls `serve`) on a carried task. `pipe` is the end of this side."""

    def __init__(self, module: str, task: bytes, blocks: Sequence[int] = ()):
        """task: see `carried`. blocks: descriptors that it gets under the same numbers."""
        self.pipe, there = Pipe()
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        with there, tempfile.TemporaryFile() as file, _signals_wait():
            file.write(task)
            file.seek(0)
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(there.fileno()), str(os.getpid())],
                stdin=file,
                pass_fds=[there.fileno(), *blocks],
                env={**os.environ, "PYTHONPATH": path},
            )

    def gone(self) -> bool:
        """Whether it has ended without a word: its pipe may be held open by what its environment has forked."""
        return self.process.poll() is not None and not self.pipe.poll()

    def hear(self) -> Any:
        """What it says next. Raises EOFError or, in the midst of a message, another OSError where it has ended."""
        if self.gone():
            raise EOFError
        return self.pipe.recv()

    def ended(self) -> str:
        """How it has ended, after its pipe has."""
        code = self.process.wait()
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"

    def stop(self, seconds: float = 0.0) -> None:
        """Close the pipe, which ends it, and kill it where it has not ended so many seconds later."""
        self.pipe.close()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def _signals_wait() -> Iterator[None]:
    """What is started inside never sees Ctrl-C or SIGTERM, until it says itself what they mean; here they come afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def carried(kind: Kind, task: object) -> bytes:
    """A task of environments of this kind, as `Child` takes it. Raises Incompatible for what cannot travel."""
    try:
        spec = gymnasium.registry.get(kind.id)  # which the user's script may have registered
        return cloudpickle.dumps((spec, task))
    except Exception as error:  # pickle raises many kinds
        raise Incompatible(
            f"{kind.name} is made again in processes of their own, and what makes it cannot be handed to them ({in_words(error)}): pass an "
            "id, or a class or function that holds no open file, lock or connection"
        ) from error


def serve(work: Callable[[Any, Connection], None]) -> None:
    """The body of a child: `work(task, pipe)`. What it raises goes through the pipe as a `Failure`; where that is closed, all is over."""
    pipe, parent = Connection(int(sys.argv[1])), int(sys.argv[2])
    os.set_inheritable(pipe.fileno(), False)
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        return
    try:
        spec, task = cloudpickle.load(sys.stdin.buffer)
        if isinstance(spec, EnvSpec):
            gymnasium.registry.setdefault(spec.id, spec)
        work(task, pipe)
    except BaseException as error:  # also that the pipe is closed
        with suppress(OSError):
            pipe.send(Failure(in_words(error), traceback.format_exc()))
    sys.stdout.flush()
    os._exit(0)  # as processes of multiprocessing end: torch alone takes a second to leave
