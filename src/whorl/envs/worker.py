"""The process that steps a part of N environments for `Workers` (workers.py): `python -m whorl.envs.worker`, started with nothing but
descriptors of its own.

What is small and often goes through one block of shared memory and an eventfd each way; all else are messages: lengths, JSON, and named
arrays or bytes behind it. Imports what its environments import, and numpy.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import pickle
import select
import signal
import sys
import traceback
from typing import IO, Any

import numpy as np

from whorl.envs.make import EnvKind
from whorl.envs.shared import (
    BESIDE,
    CALL,
    DUMP,
    INVALID,
    MOVED,
    SECOND,
    STACK_BYTES,
    STEP_ROWS,
    Block,
    Field,
    flat,
    read,
    send,
)

# -- the process -----------------------------------------------------------------------------------------------------------------


class Part:
    """The environments of this process, between the block and its messages."""

    def __init__(self, said: dict[str, Any], data: bytes):
        self.number, self._row = said["number"], said["first"]
        rows = slice(self._row, self._row + said["count"])
        block = Block(
            [Field(name, dtype, tuple(shape)) for name, dtype, shape in said["fields"]],
            said["rows"],
            said["workers"],
            said["block"],
        )
        self.command, self.answer = block["command"], block["answer"]
        self._of = {name: array[rows] for name, array in block.arrays.items() if name not in ("command", "answer")}
        self.env = _made(said, data)
        self.env.first, self.env.replay_steps = said["whole_first"] + self._row, said["replay_steps"]
        self._here = [block.like(kind, rows) for kind in ("here", "other")]
        self._there, self._fresh = block.like("successor", rows), block.like("fresh", rows)
        self._beside = [name for name in BESIDE if name in self._of]

    def step(self, some: bool, second: bool) -> int:
        """Step, write what came of it, and say what it was."""
        of = self._of
        step = self.env.step(of["action"], of["rows"].copy()) if some else self.env.step(of["action"])
        _copy(self._here[second], step.observation)
        of["reward"][:], of["terminated"][:], of["truncated"][:] = step.reward, step.terminated, step.truncated
        said = 0
        if step.next_observation is not step.observation:
            _copy(self._there, step.next_observation)
            said |= MOVED
        if step.valid is not None:
            of["valid"][:] = step.valid
            said |= INVALID
        if step.discount is not None:
            of["discount"][:] = step.discount
        for name in self.env.told:
            of[f"info.{name}"][:] = step.info[name]
        self._write_beside()
        return said

    def stands(self, observation: Any) -> None:
        """Write where all stand after a call."""
        _copy(self._fresh, observation)
        self._write_beside()

    def _write_beside(self) -> None:
        for name in self._beside:
            self._of[name][:] = getattr(self.env, name)
        if "action_mask" in self._of:
            self._of["action_mask"][:] = self.env.action_mask

    def call(
        self, said: dict[str, Any], arrays: dict[str, np.ndarray]
    ) -> tuple[dict[str, Any], dict[str, np.ndarray] | None]:
        """What a message asks for: (answer, arrays)."""
        env = self.env
        match said["call"]:
            case "reset":
                self.stands(env.reset(said["seed"]))
            case "begin":  # as after a reset with this seed, from the episodes on that come after these
                env.reset(said["seed"])
                if env.episode is not None:
                    env.episode = arrays["episode"]
                    self.stands(env.reset())
                else:
                    self.stands(env.reset(said["otherwise"]))
            case "restart":
                self.stands(env.restart(self._of["rows"].copy()))
            case "state":
                return {"saved": (state := env.state()) is not None}, state
            case "load_state":
                self.stands(env.load_state(arrays))
            case "replay_steps":
                env.replay_steps = said["steps"]
            case "first":
                env.first = said["row"] + self._row
            case "render":
                picture = env.render()
                return {"drawn": picture is not None}, None if picture is None else {"picture": np.asarray(picture)}
        return {}, None


def _copy(there: list[np.ndarray], tree: Any) -> None:
    for array, leaf in zip(there, flat(tree), strict=True):
        array[:] = leaf


def _made(said: dict[str, Any], data: bytes) -> Any:
    env, wrappers, spec = (
        pickle.loads(data) if data else (said["env"], (), None)
    )  # of the parent that started this process
    if spec is not None:
        import gymnasium

        gymnasium.registry.setdefault(spec.id, spec)
    kind = EnvKind(env, said["kwargs"], tuple(wrappers), said["prefer"])
    return kind.make(said["count"], said["seed"], max_episode_steps=said["limit"], pictures=said["pictures"])


def _orphaned(parent: int) -> None:
    """Die with the parent, whatever this process does at the time."""
    libc = ctypes.CDLL(None)
    libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


def _told(error: BaseException) -> dict[str, Any]:
    """An error as a message."""
    try:
        text = str(error)
    except Exception:
        text = ""
    lines = "".join(traceback.format_exception(error))[-STACK_BYTES // 2 :]
    row = getattr(error, "row", None)
    own = type(error).__module__ == "whorl.errors"
    return {"failed": type(error).__name__, "own": own, "text": text[:4000], "row": row, "traceback": lines}


def main() -> None:
    """Serve the process that started this one, until it closes the pipe or dies."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent, down, up, reply, stack = map(int, sys.argv[1:])
    _orphaned(parent)
    faulthandler.register(DUMP, file=stack, all_threads=True)
    asked, answers = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(reply, "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # an environment that reads standard input finds none
    try:
        part = Part(*_first(asked))
    except BaseException as error:  # SystemExit too
        send(answers, _told(error))
        return
    send(answers, {"made": True})
    waiting = select.poll()
    waiting.register(down, select.POLLIN)
    waiting.register(asked, select.POLLHUP)
    while True:
        if not any(fd == down for fd, _ in waiting.poll()):
            part.env.close()
            return
        os.eventfd_read(down)
        asked_for = int(part.command[part.number])
        command = asked_for & 3
        try:
            if command == CALL:
                message, arrays, _ = read(asked)
                send(answers, *part.call(message, arrays))
                continue
            part.answer[part.number] = part.step(command == STEP_ROWS, bool(asked_for & SECOND))
            os.eventfd_write(up, 1)
        except BaseException as error:  # SystemExit too: an environment does not end a run
            send(answers, _told(error))


def _first(asked: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    said, _, data = read(asked)
    return said, data


if __name__ == "__main__":
    main()
