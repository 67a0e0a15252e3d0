"""The compiled copies between rollouts, packed rows and batches. Compiled on first use, then cached on disk."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from whorl.buffers.layout import Layout
from whorl.jit import jit

compiled: Any = jit(nogil=True)
primitive: Any = intrinsic


@primitive
def _pointer(typing: Any, address: Any) -> Any:
    """An integer as a pointer."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), codegen


@primitive
def _memcpy(typing: Any, target: Any, source: Any, size: Any) -> Any:
    """memcpy between two addresses."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointers = [builder.inttoptr(address, cgutils.voidptr_t) for address in arguments[:2]]
        cgutils.raw_memcpy(builder, pointers[0], pointers[1], arguments[2], 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@compiled
def scatter(
    rows: int, width: int, fields: np.ndarray, mask: int, steps: int,
    envs: int, first: int, ring: int, count: np.ndarray, index: np.ndarray
) -> tuple[int, bool]:  # fmt: skip
    """Writes row (t, e) to slot (count[lane] % ring) * lanes + lane and raises count[lane], lane = first + e; masked rows are left out.

    `rows` is the address of slots of `width` bytes. `fields` int64 [3, F]: address of a contiguous [T, N, *shape], bytes
    a row, offset in the packed row. `mask`: address of a contiguous bool [T, N], or 0. Absolute indexes go to `index`,
    oldest first. Returns (rows written, whether all counts agree).
    """
    lanes = len(count)
    written, last, place = 0, -1, 0
    kept = carray(_pointer(mask), (steps * envs if mask else 0,), np.bool_)
    for t in range(steps):
        for e in range(envs):
            row = t * envs + e
            if mask and not kept[row]:
                continue
            lane = first + e
            k = count[lane]
            if k != last:  # a division takes as long as copying a field, and lanes mostly agree
                last, place = k, (k % ring) * lanes
            slot = rows + (place + lane) * width
            for f in range(fields.shape[1]):
                size = fields[1, f]
                target, source = slot + fields[2, f], fields[0, f] + row * size
                if size == 4:  # a move where the size is known, else a call
                    _memcpy(target, source, 4)
                elif size == 1:
                    _memcpy(target, source, 1)
                else:
                    _memcpy(target, source, size)
            index[written] = k * lanes + lane
            count[lane] = k + 1
            written += 1
    even = True
    for lane in range(1, lanes):
        even &= count[lane] == count[0]
    return written, even


@compiled
def gather(rows: int, width: int, slots: int, index: int, size: int, packed: int, copied: int) -> None:
    """Copies row index[i] % slots to packed[i], and index[i] to copied[i], for i < size; all four are addresses."""
    wanted = carray(_pointer(index), (size,), np.int64)
    for i in range(size):
        _memcpy(packed + i * width, rows + (wanted[i] % slots) * width, width)
    _memcpy(copied, index, size * 8)


class Indexes:
    """Memory for the indexes of written rows, that of the write before where they were as many: a new tensor takes as long as 30 rows."""

    FEW = 4_096  # rows up to which it is kept

    def __init__(self) -> None:
        self._kept = _both(0)

    def take(self, rows: int) -> tuple[np.ndarray, Tensor]:
        """int64 [rows] as an array and as a tensor, of the same memory."""
        if len(self._kept[0]) == rows:
            return self._kept
        made = _both(rows)
        if rows <= self.FEW:
            self._kept = made
        return made


def _both(rows: int) -> tuple[np.ndarray, Tensor]:
    array = np.empty(rows, np.int64)
    return array, torch.from_numpy(array)


def table(layout: Layout) -> np.ndarray:
    """`fields` of `scatter` for a layout, addresses still zero."""
    fields = np.zeros((3, len(layout.fields)), np.int64)
    fields[1] = [entry.nbytes for entry in layout.fields]
    fields[2] = [entry.offset for entry in layout.fields]
    return fields
