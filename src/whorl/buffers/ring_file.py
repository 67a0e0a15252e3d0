"""Rows on disk beside a storage in memory, so that a checkpoint holds a few counters and not the rows.

    rows.bin       the slots, as in memory
    counters.json  how far they are written; replaced before a flush begins (`begun`) and after it (`written`)

A checkpoint remembers counts c. Row k lies in the file until row k + ring is written over it, so all rows that c can sample
(k >= c - rows) are there as long as begun <= c + slack. Resuming from c starts a new life of the file: what an older life
wrote after c is no longer its own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whorl.batch import Numbers
from whorl.buffers.layout import Layout, check_disk
from whorl.errors import BadInput, Damaged
from whorl.folders import Folder, make
from whorl.json_text import shown

CHUNK = 1 << 26  # bytes copied at once


class RingFile:
    def __init__(self, folder: str | Path, parts: int = 1):
        """parts: names at the end of `folder` that may be a stranger's (see `Folder.inside`)."""
        self.folder, self.parts = Path(folder), parts
        self.flushed: np.ndarray | None = None  # counts of the rows that are in the file; None: not begun
        self.branches: list[list[int]] = []  # counts at which each life but the first began
        self.past: np.ndarray | None = None  # highest counts that former lives began to write

    @property
    def life(self) -> int:
        return len(self.branches)

    def flush(self, rows: Tensor, layout: Layout, lanes: int, count: np.ndarray) -> None:
        """Writes what came since the last flush; on return it is on disk. `rows`: all slots [ring * lanes, row_bytes]."""
        make(self.folder.absolute().parents[self.parts - 1])
        with Folder.inside(self.folder, True, self.parts) as folder:
            if self.flushed is None:
                self._begin(folder, rows, layout, lanes)
            self._flush(folder, rows, layout, lanes, count)

    def _flush(self, folder: Folder, rows: Tensor, layout: Layout, lanes: int, count: np.ndarray) -> None:
        assert self.flushed is not None and self.past is not None
        if (self.flushed == count).all() and folder.holds("counters.json"):
            return
        width = layout.row_bytes
        counters = {"layout": layout.to_json(), "lanes": lanes, "slots": len(rows), "branches": self.branches}
        counters |= {"past": self.past.tolist(), "begun": count.tolist(), "written": self.flushed.tolist()}
        folder.write_json("counters.json", counters)
        ring = len(rows) // lanes
        low, high = int(self.flushed.min()), int(count.max())
        with folder.file("rows.bin", os.O_RDWR) as file:
            while low < high and high - low < ring:  # in pieces that do not wrap
                begin, steps = low % ring, min(high - low, ring - low % ring)
                _write(file, begin * lanes * width, rows[begin * lanes : (begin + steps) * lanes])
                low += steps
            if low < high:
                _write(file, 0, rows[: min(high, ring) * lanes])
            os.fsync(file.fileno())
        folder.write_json("counters.json", counters | {"written": count.tolist()})
        self.flushed = count.copy()

    def _begin(self, folder: Folder, rows: Tensor, layout: Layout, lanes: int) -> None:
        """A new file, or a new life of the one that is there: none of its rows are wanted."""
        size = len(rows) * layout.row_bytes
        if folder.holds("counters.json"):
            old = self.read(layout, lanes, len(rows))
            self.branches = [*old["branches"], [0] * lanes]
            self.past = np.maximum(old["past"], old["begun"])
        else:
            check_disk(size, self.folder)
            with folder.file("rows.bin", os.O_RDWR | os.O_CREAT) as file:
                file.truncate(0)
                file.truncate(size)  # a hole until rows come: a run may end long before the ring is full
            self.past = np.zeros(lanes, np.int64)
        self.flushed = np.zeros(lanes, np.int64)

    def read(self, layout: Layout, lanes: int, slots: int) -> Numbers:
        """The counters. Raises BadInput when the file holds other rows, Damaged when it is not as it was written."""
        try:
            with Folder.inside(self.folder, parts=self.parts) as folder:
                counters = folder.read_json("counters.json")
                file = folder.status("rows.bin") if folder.holds("rows.bin") else None
        except FileNotFoundError:
            raise Damaged(f"there is no folder {self.folder}, which holds the rows of the replay buffer") from None
        ours = {"layout": layout.to_json(), "lanes": lanes, "slots": slots}
        try:
            theirs = {key: counters[key] for key in ours}
            numbers = [counters["past"], counters["begun"], counters["written"], *counters["branches"]]
            typed = all(type(k) is int for row in numbers for k in row) and all(
                len(row) == theirs["lanes"] for row in numbers
            )
        except (TypeError, KeyError):
            typed = False
        if not typed:
            raise Damaged(f"{self.folder / 'counters.json'} was not written by whorl: it was changed")
        for key, value in ours.items():
            if theirs[key] != value:
                raise BadInput(
                    f"{self.folder} holds rows with {key} = {shown(theirs[key], 1000)}, this buffer has {value}: "
                    "use the same capacity, environments and keys, or another folder"
                )
        path, found = self.folder / "rows.bin", file.st_size if file else 0
        if found != slots * layout.row_bytes:
            raise Damaged(f"{path} has {found} bytes, {slots * layout.row_bytes} were expected")
        return counters

    def load(self, rows: Tensor, layout: Layout, lanes: int, count: np.ndarray, life: int) -> np.ndarray:
        """Reads the file into `rows` for a checkpoint with these counts; returns the lowest row of each lane that is intact.

        Raises Damaged when rows of the checkpoint are missing.
        """
        counters = self.read(layout, lanes, len(rows))
        written = np.array(counters["written"])
        low = intact_from(counters, count, life, len(rows) // lanes)
        if life == len(counters["branches"]) and (count > written).any():
            raise Damaged(
                f"{self.folder / 'rows.bin'} holds {written.tolist()} rows of each lane, the checkpoint needs {count.tolist()}"
            )
        load_rows(self.folder / "rows.bin", rows, self.parts)
        self.branches = counters["branches"]
        self.past = np.array(counters["past"])
        if life != self.life or (count != written).any() or counters["begun"] != counters["written"]:
            self.branches = [*self.branches, count.tolist()]
            self.past = np.maximum(self.past, counters["begun"])
        self.flushed = count.copy()
        return low


def intact_from(counters: Numbers, count: np.ndarray, life: int, ring: int) -> np.ndarray:
    """The lowest k of each lane that is still what a checkpoint with `count` rows, of this life of the file, wrote."""
    later = counters["branches"][life:]
    if later and (count > np.min(later, 0)).any():
        return count.copy()  # the run was resumed from an earlier checkpoint and wrote other rows over these
    begun = np.array(counters["begun"])
    return np.maximum((np.maximum(begun, counters["past"]) if later else begun) - ring, 0)


# ------------------------------------------------------------------------------------------------------- files


def _write(file: Any, offset: int, rows: Tensor) -> None:
    step = max(CHUNK // max(rows.shape[1], 1), 1)
    for i in range(0, len(rows), step):
        data = _bytes(rows[i : i + step].cpu().contiguous())
        while data:
            written = os.pwrite(file.fileno(), data, offset)
            offset, data = offset + written, data[written:]


def _bytes(rows: Tensor) -> memoryview:
    array: Any = rows.view(-1).numpy()
    return memoryview(array)


def save_rows(path: Path, rows: Tensor) -> None:
    """Rows [n, row_bytes] as a new file; on return it is on disk."""
    with open(path, "wb", buffering=0) as file:
        _write(file, 0, rows)
        os.fsync(file.fileno())


def load_rows(path: Path, rows: Tensor, parts: int = 1) -> None:
    """The inverse: fills `rows` from the beginning of the file. parts: of its folder. Raises Damaged when it is too short."""
    step = max(CHUNK // max(rows.shape[1], 1), 1)
    with Folder.inside(path.parent, parts=parts) as folder, folder.file(path.name) as file:
        for i in range(0, len(rows), step):
            part = rows[i : i + step]
            here = part if part.device.type == "cpu" else torch.empty(part.shape, dtype=torch.uint8)
            data = _bytes(here)
            while data:
                read = file.readinto(data)
                if not read:
                    raise Damaged(f"{path} is too short: {len(data)} bytes are missing")
                data = data[read:]
            if here is not part:
                part.copy_(here)
