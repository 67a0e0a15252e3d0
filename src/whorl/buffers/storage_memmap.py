"""Replay rows on disk: larger than memory, shared between processes, and there again after a crash.

    rows.bin       the packed rows, all slots, mapped; allocated in full when it is made
    counters.bin   int64 [3, lanes], mapped: `begun`, `count`, `floor`
    layout.json    sizes and fields; written last, once, by whoever writes the first row

A writer raises begun[e] to k + T, writes its rows, then raises count[e]. So rows below `count` are whole whenever a process
is killed, and row k of lane e is intact as long as k >= begun[e] - ring: a reader looks at `begun` after it has copied the
rows, and draws again if a writer came too close (`ReplayBuffer.sample`). Each lane has one writer. That stores are seen in
order by other processes is what x86 gives; readers copy first and look after. Counters and rows outlive the process, not a power
cut before `flush`.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whorl.batch import Arrays, Batch, Numbers, State
from whorl.buffers.layout import Layout, check_disk
from whorl.buffers.ring_file import intact_from
from whorl.buffers.storage_memory import Memory
from whorl.errors import BadInput, Damaged
from whorl.files import lock
from whorl.folders import Folder, make

RESIDENT = 1 << 30  # bytes of the file that may be mapped in before they are let go
AROUND = 1 << 16  # bytes that the system maps in around a row that is read


class Memmap(Memory):
    """`Memory`, with its rows in a file of `folder`. A folder that holds rows already is opened, and must be of the same size.

    Raises BadInput when sizes differ or the disk is too small (then nothing is made), Damaged when files are not as written.
    """

    def __init__(self, folder: str | Path, capacity: int, lanes: int, slack: int = 128, writer: str = "ring"):
        super().__init__(capacity, lanes, slack, writer=writer)
        self.folder = Path(folder)
        self._touched = 0
        self._branches: list[list[int]] = []
        self._past = [0] * lanes
        self._open()

    @classmethod
    def open(cls, folder: str | Path, writer: str = "ring") -> Memmap:
        """The storage that is in `folder`. Raises BadInput when there is none."""
        if not (Path(folder) / "layout.json").is_file():
            raise BadInput(f"there is no replay buffer in {folder}")
        sizes = _read(Path(folder))
        return cls(folder, sizes["capacity"], sizes["lanes"], sizes["slack"], writer)

    # ------------------------------------------------------------------------------------------------ files

    def allocate(self, layout: Layout) -> None:
        """Makes the files, in full, or opens those that another process has just made."""
        size = self._size * layout.row_bytes
        if not (self.folder / "layout.json").exists():
            check_disk(size, self.folder)
        make(self.folder.absolute().parent)
        with Folder.inside(self.folder, make=True) as folder, lock(self.folder, wait=True):
            if not folder.holds("layout.json"):
                for name, length in (("rows.bin", size), ("counters.bin", 3 * 8 * self.lanes)):
                    with folder.file(name, os.O_RDWR | os.O_CREAT) as file:
                        file.truncate(0)
                        os.posix_fallocate(file.fileno(), 0, length)
                        os.fsync(file.fileno())
                sizes = {"capacity": self.capacity, "lanes": self.lanes, "slack": self.slack}
                folder.write_json(
                    "layout.json", {**sizes, "layout": layout.to_json(), "branches": [], "past": [0] * self.lanes}
                )
        self._open()

    def _open(self) -> None:
        if not (self.folder / "layout.json").exists():
            return
        sizes = _read(self.folder)
        for name in ("capacity", "lanes", "slack"):
            if sizes[name] != getattr(self, name):
                raise BadInput(
                    f"the replay buffer in {self.folder} has {name}={sizes[name]}, {getattr(self, name)} was asked for: "
                    "use the same, or another folder"
                )
        layout = Layout.from_json(sizes["layout"])
        self._branches, self._past = sizes["branches"], sizes["past"]
        self._file_rows = _map(self.folder / "rows.bin", self._size * layout.row_bytes)
        self._file_rows.madvise(mmap.MADV_RANDOM)
        counters = _map(self.folder / "counters.bin", 3 * 8 * self.lanes)
        self._begun, self.count, self.floor = np.frombuffer(counters, np.int64).reshape(3, self.lanes)
        if (self.count < 0).any() or (self._begun < self.count).any():
            raise Damaged(f"{self.folder / 'counters.bin'} does not hold counters: it was changed")
        self._use(layout, torch.frombuffer(self._file_rows, dtype=torch.uint8).view(self._size, layout.row_bytes))

    def _touch(self, size: int) -> None:
        """Lets pages of a large file go, so that they do not count as this process's memory; the system keeps them cached."""
        self._touched += size
        if self._touched > RESIDENT and self.nbytes > RESIDENT:
            self._file_rows.madvise(mmap.MADV_DONTNEED)
            self._touched = 0

    def looked_at(self, rows: int) -> None:
        self._touch(rows * max(AROUND, self._width if self.layout else 0))

    def flush(self) -> None:
        if self.layout:
            for name in ("rows.bin", "counters.bin"):
                with Folder.inside(self.folder) as folder, folder.file(name, os.O_RDWR) as file:
                    os.fdatasync(file.fileno())

    # ------------------------------------------------------------------------------------------------ rows

    def _claim(self, first: int, steps: int, envs: int) -> np.ndarray:
        self._touch(steps * envs * self._width)
        self._begun[first : first + envs] = self.count[first : first + envs] + steps
        return self.count.copy()

    def _publish(self, first: int, envs: int, count: np.ndarray) -> None:
        self.count[first : first + envs] = count[first : first + envs]
        self._begun[first : first + envs] = count[first : first + envs]

    def live(self) -> tuple[np.ndarray, np.ndarray]:
        if self.layout is None:
            self._open()  # another process may have made it
        # first: writers who go round the ring between the two reads must not leave nothing; `intact` looks again
        begun = self._begun.copy() if self.layout else None
        high = self.count.copy()
        low = np.maximum(high - self.rows, self.floor)
        return (low if begun is None else np.minimum(np.maximum(low, begun - self.ring), high)), high

    def window(self) -> tuple[int, int] | None:
        low, high = self.live()
        if self.lanes > 1 and ((high != high[0]).any() or (low != low[0]).any()):
            return None
        return int(low[0]), int(high[0])

    def read(self, index: Tensor) -> Batch:
        self.looked_at(index.numel())
        return super().read(index)

    def intact(self, index: Tensor) -> bool:
        begun = self._begun.copy()
        lowest = int(index.min()) if index.numel() else 0
        if lowest >= (int(begun.max()) - self.ring + 1) * self.lanes:
            return True
        k, lane = np.divmod(index.numpy(), self.lanes)
        return bool((k >= begun[lane] - self.ring).all())

    # ------------------------------------------------------------------------------------------------ resuming

    def state(self) -> State:
        return {}, {**self._numbers(), "kept": True, "life": len(self._branches)}

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        count, floor = self._counters(numbers)
        if self.layout is None and numbers["layout"] is None:
            return True
        if self.layout is None:
            raise Damaged(f"the checkpoint has rows of a replay buffer in {self.folder}, but there is none")
        counters = {"branches": self._branches, "past": self._past, "begun": self._begun.tolist()}
        if numbers["life"] == len(self._branches) and (count > self.count).any():
            raise Damaged(
                f"{self.folder} holds {self.count.tolist()} rows of each lane, the checkpoint needs {count.tolist()}"
            )
        intact = intact_from(counters, count, numbers["life"], self.ring)
        if numbers["life"] != len(self._branches) or (count != self._begun).any():
            self._branches = [*self._branches, count.tolist()]
            self._past = np.maximum(self._past, self._begun).tolist()
            with Folder.inside(self.folder) as folder:
                folder.write_json("layout.json", _read(self.folder) | {"branches": self._branches, "past": self._past})
        exact = self._set(count, floor, intact)
        self._begun[:] = count
        return exact

    def restore(self, folder: Path, numbers: Numbers, name: str = "rows.bin") -> None:
        super().restore(folder, numbers, name)
        if self.layout:
            self._begun[:] = self.count


def _read(folder: Path) -> dict[str, Any]:
    """layout.json, each number of it checked."""
    with Folder.inside(folder) as inside:
        sizes = inside.read_json("layout.json")
    try:
        lanes = sizes["lanes"]
        rows = [sizes["past"], *sizes["branches"]]
        good = all(type(sizes[name]) is int for name in ("capacity", "lanes", "slack"))
        if good and all(len(row) == lanes and all(type(k) is int for k in row) for row in rows) and sizes["layout"]:
            return sizes
    except (TypeError, KeyError):
        pass
    raise Damaged(f"{folder / 'layout.json'} was not written by whorl: it was changed")


def _map(path: Path, size: int) -> mmap.mmap:
    with Folder.inside(path.parent) as folder:
        if not folder.holds(path.name):
            raise Damaged(f"{path} is missing")
        with folder.file(path.name, os.O_RDWR) as file:
            if (found := os.fstat(file.fileno()).st_size) != size:
                raise Damaged(f"{path} has {found} bytes, {size} were expected")
            return mmap.mmap(file.fileno(), size)
