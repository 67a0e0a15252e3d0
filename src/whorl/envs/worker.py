"""The process that steps a part of N environments for `Workers` (workers.py): `python -m whorl.envs.worker`, started with nothing but
descriptors of its own.

What is small and often goes through one block of shared memory and an eventfd each way; all else are messages: lengths, JSON, and named
arrays or bytes behind it. Imports what its environments import, and numpy.
"""

from __future__ import annotations

import ctypes
import faulthandler
import json
import math
import mmap
import os
import pickle
import select
import signal
import struct
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import IO, Any, NamedTuple

import numpy as np

STEP, STEP_ROWS, CALL = 0, 1, 2  # what a worker is woken for, and
SECOND = 4  # into which of two memories observations go: the other one holds where all stood
MOVED, INVALID = 1, 2  # what came of a step: successors differ; `valid` was given
ALIGNED, HEAD = 64, struct.Struct("<QQ")  # bytes; lengths of a message's JSON and of what is behind it
DUMP = signal.SIGUSR2  # asks for the Python stack
STACK_BYTES = 1 << 16  # of a stack or a traceback that is told
BESIDE = ("raw_reward", "reward_vector", "cost", "trajectory")  # attributes of an environment that cross with each step


class Field(NamedTuple):
    """An array [N, *shape] of the block."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Block:
    """Shared memory with named arrays, in the order of `fields`; `fd` is a file without a name, which dies with its last descriptor."""

    def __init__(self, fields: list[Field], n: int, workers: int, fd: int | None = None):
        self.fields, self.arrays, at = fields, dict[str, np.ndarray](), 0
        layout = [
            (Field("command", "int64", ()), workers),
            (Field("answer", "int64", ()), workers),
            *((f, n) for f in fields),
        ]
        places = []
        for field, rows in layout:
            places.append(at)
            at += -(-rows * math.prod(field.shape) * np.dtype(field.dtype).itemsize // ALIGNED) * ALIGNED
        self.fd = os.memfd_create("whorl-workers") if fd is None else fd
        if fd is None:
            os.ftruncate(self.fd, at)
        self._map = mmap.mmap(self.fd, at)
        for (field, rows), place in zip(layout, places, strict=True):
            count = rows * math.prod(field.shape)
            flat = np.frombuffer(self._map, field.dtype, count, place)
            self.arrays[field.name] = flat.reshape(rows, *field.shape)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def like(self, kind: str, rows: slice = slice(None)) -> list[np.ndarray]:
        """The leaves of a kind of observation, see `observed`."""
        return [array[rows] for name, array in self.arrays.items() if name.startswith(f"{kind}.")]

    def close(self) -> None:
        """Give up the descriptor; the arrays stay for those who hold them."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def observed(space: Any, name: str) -> Iterator[Field]:
    """The leaves of an observation of this space, as fields `name.0`, `name.1`, ... in its order."""
    for k, leaf in enumerate(_leaves(space)):
        yield Field(f"{name}.{k}", str(leaf.dtype if leaf.dtype is not None else np.float32), tuple(leaf.shape or ()))


def _leaves(space: Any) -> list[Any]:
    inner = getattr(space, "spaces", None)
    return [leaf for part in inner.values() for leaf in _leaves(part)] if isinstance(inner, Mapping) else [space]


def flat(tree: Any) -> list[Any]:
    """The leaves of nested dicts, in order."""
    return [leaf for part in tree.values() for leaf in flat(part)] if isinstance(tree, Mapping) else [tree]


# -- messages --------------------------------------------------------------------------------------------------------------------


def send(
    file: IO[bytes], said: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None, data: bytes = b""
) -> None:
    """Write one message: plain JSON, and either arrays or bytes."""
    about = {name: [str(array.dtype), list(array.shape)] for name, array in (arrays or {}).items()}
    raw = b"".join(np.ascontiguousarray(array).tobytes() for array in (arrays or {}).values()) or data
    head = json.dumps({**said, "arrays": about}).encode()
    file.write(HEAD.pack(len(head), len(raw)) + head + raw)
    file.flush()


def parse(head: bytes, raw: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray], bytes]:
    """A message's JSON, its arrays, and its bytes."""
    said, arrays, at = json.loads(head), {}, 0
    for name, (dtype, shape) in said.pop("arrays").items():
        count = math.prod(shape)
        arrays[name] = np.frombuffer(raw, dtype, count, at).reshape(shape).copy()
        at += count * np.dtype(dtype).itemsize
    return said, arrays, raw


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
        if "game_over" in of:
            of["game_over"][:] = step.info.get("game_over", step.terminated | step.truncated)
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
    from whorl.envs.make import EnvKind

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


def read(file: IO[bytes]) -> tuple[dict[str, Any], dict[str, np.ndarray], bytes]:
    """Wait for one message. Raises EOFError where the other side is gone."""
    head, raw = HEAD.unpack(_exactly(file, HEAD.size))
    return parse(_exactly(file, head), _exactly(file, raw))


def _exactly(file: IO[bytes], size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        if not (part := file.read(min(size - len(found), 1 << 20))):
            raise EOFError("the other side of the pipe is gone")
        found += part
    return bytes(found)


if __name__ == "__main__":
    main()
