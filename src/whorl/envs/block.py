"""Memory that several processes map: arrays one behind the other in a file without a name, so that nothing is left when they are gone."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from math import prod
from typing import TypeAlias

import numpy as np

Form: TypeAlias = "tuple[str, tuple[int, ...]]"  # of an array: dtype and shape
ALIGNED = 64  # bytes: no two arrays share a line of the processor's cache


def new_block(name: str) -> int:
    """The descriptor of an empty block, for `arrays` here and in the processes that it is passed on to; `os.close` it."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def arrays(block: int, forms: Sequence[Form]) -> list[np.ndarray]:
    """Arrays of these forms in a block, zeros where nobody has written yet. Who maps the same forms sees the same numbers; the block grows
    to hold them, and its memory lasts as long as somebody's arrays do."""
    sizes = [np.dtype(dtype).itemsize * prod(shape) for dtype, shape in forms]
    places = np.cumsum([0, *(-(-size // ALIGNED) * ALIGNED for size in sizes)]).tolist()
    total = max(ALIGNED, places.pop())
    if os.fstat(block).st_size < total:
        os.ftruncate(block, total)
    memory = mmap.mmap(block, total)
    return [
        np.frombuffer(memory, dtype, prod(shape), place).reshape(shape)
        for (dtype, shape), place in zip(forms, places, strict=True)
    ]
