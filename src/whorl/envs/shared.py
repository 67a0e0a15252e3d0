"""What a worker process and the one that started it share: a block of memory with named arrays, and messages.

A message is the lengths of its two parts, JSON, and named arrays or bytes behind it.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import signal
import struct
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
