"""Replay rows in memory (main memory or a device's): one packed row per transition, so a sample is one gather.

Storage of L lanes (environments), each a ring of its own. The k-th row ever written to lane e has the absolute index
k * L + e and lies in slot (k % ring) * L + e = index % (ring * L). `rows` = ceil(capacity / L) rows of a lane are live; the
ring has `slack` rows more, which are never sampled: what they hold is still there after later rows were written.
See docs/design/008-replay.md.
"""

from __future__ import annotations

import struct
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whorl import batch
from whorl.batch import Arrays, Batch, Numbers, State
from whorl.buffers.layout import Layout, Reader, check_room
from whorl.buffers.ring_file import RingFile, load_rows, save_rows
from whorl.errors import BadInput, BatchError, Damaged

SHAPES = 8  # batch shapes whose memory is kept
MOST = 2**48  # rows that are ever written to a lane
_is_cpu = attrgetter("is_cpu")


class Memory:
    """`lanes` rings of packed rows in the memory of `device`.

    `capacity` rows altogether can be sampled. `writer`: "ring" forgets the oldest, "once" refuses rows beyond the
    capacity (an offline dataset). Memory is taken at the first write, which shows the keys, or by `allocate`. With a
    `folder`, `flush` keeps a copy of the rows there, so that `state` is a few counters (see ring_file.py); `parts` of its
    names may be a stranger's.

    Raises BadInput for sizes that cannot be.
    """

    def __init__(
        self,
        capacity: int,
        lanes: int,
        slack: int = 0,
        device: str | torch.device = "cpu",
        writer: str = "ring",
        folder: str | Path | None = None,
        parts: int = 1,
    ):
        if lanes < 1 or slack < 0:
            raise BadInput(f"a storage needs at least 1 lane and 0 rows of slack, got lanes={lanes}, slack={slack}")
        if capacity < lanes:
            raise BadInput(
                f"capacity={capacity} rows is less than one row for each of the {lanes} lanes (environments): "
                "raise the capacity or use fewer environments"
            )
        if writer not in ("ring", "once"):
            raise BadInput(f"writer must be 'ring' or 'once', got {writer!r}")
        self.capacity, self.lanes, self.slack, self.writer = capacity, lanes, slack, writer
        self.rows = -(-capacity // lanes)
        self.ring = self.rows + slack
        self._size = self.ring * lanes  # slots
        self.device = torch.device(device)
        self._compiled = self.device.type == "cpu"
        self.count = np.zeros(lanes, np.int64)  # rows ever written to each lane
        self.floor = np.zeros(lanes, np.int64)  # rows before these are gone for another reason than age
        self._kept = 1  # batches of one shape that stay valid at the same time
        self.layout: Layout | None = None
        self._file = RingFile(folder, parts) if folder is not None else None
        self._batches: dict[Any, list[_Batch]] = {}  # by shape, the one to write next first
        self._index = (
            np.empty(0, np.int64),
            torch.empty(0, dtype=torch.int64),
        )  # of the last few rows written, one memory
        self._floored = False  # whether any floor is above 0
        self._even = True  # all lanes have equal counts, and no floor

    # ------------------------------------------------------------------------------------------------ memory

    def needs(self, layout: Layout) -> int:
        """The bytes that `nbytes` will be, for rows of this layout."""
        return self._size * layout.row_bytes

    def allocate(self, layout: Layout) -> None:
        """Takes the memory for rows of this layout. Raises BadInput, before anything is taken, when there is too little."""
        check_room(self._size * layout.row_bytes, self.device)
        if self.device.type == "cpu":  # numpy asks for huge pages, torch does not: a third of the time of a random read
            memory = torch.from_numpy(np.empty((self._size, layout.row_bytes), np.uint8))
        else:
            memory = torch.empty((self._size, layout.row_bytes), dtype=torch.uint8, device=self.device)
        self._use(layout, memory)

    def _use(self, layout: Layout, packed: Tensor) -> None:
        self.layout, self._rows, self._width = layout, packed, layout.row_bytes
        self._reader = Reader(layout)
        self._batches = {}
        if self._compiled:
            from whorl.buffers import pack  # brings numba

            self._scatter, self._gather, self._indexes = pack.scatter, pack.gather, pack.Indexes()
            self._fields: Any = pack.table(layout)
            self._addresses = struct.Struct(f"{len(layout.fields)}q")
            self._address = packed.data_ptr()

    @property
    def nbytes(self) -> int:
        """Bytes of all slots; 0 before memory was taken."""
        return self._size * self.layout.row_bytes if self.layout else 0

    # ------------------------------------------------------------------------------------------------ writing

    def write(self, rollout: Batch, first_lane: int = 0) -> Tensor:
        """Stores the rows of a rollout [T, N] in lanes first_lane ... first_lane + N - 1, but those with `mask` False.

        Returns the absolute indexes of the rows written, oldest first (int64 [rows]), valid until the next write.
        Raises BatchError when keys, shapes or dtypes differ from the first rollout's, BadInput when a storage that is
        written once is full.
        """
        shape = rollout.batch_size
        if len(shape) != 2 or first_lane < 0 or first_lane + shape[1] > self.lanes:
            raise BatchError(
                f"a rollout [T, N] for lanes {first_lane} to {first_lane} + N - 1 of {self.lanes} was expected, got {list(shape)}"
            )
        if self.layout is None:
            self.allocate(Layout.of(rollout))
        steps, envs = shape
        values, mask = self._reader.leaves(rollout)
        if self.writer == "once":
            self._refuse_overflow(steps, envs, first_lane, mask)
        count = self._claim(first_lane, steps, envs)
        if self._compiled:
            index, even = self._write_compiled(values, mask, steps, envs, first_lane, count)
        else:
            index, even = self._write_torch(values, mask, steps, envs, first_lane, count)
        self._even = even and not self._floored
        self._publish(first_lane, envs, count)
        return index

    def _claim(self, first: int, steps: int, envs: int) -> np.ndarray:
        """Counters to raise, before rows are written; `_publish` gets them back after."""
        return self.count

    def _publish(self, first: int, envs: int, count: np.ndarray) -> None:
        pass

    def _write_compiled(
        self, values: list[Tensor], mask: Tensor | None, steps: int, envs: int, first: int, count: np.ndarray
    ) -> tuple[Tensor, bool]:
        if not (all(map(_is_cpu, values)) and all(map(Tensor.is_contiguous, values))):
            values = [value.cpu().contiguous() for value in values]
        self._addresses.pack_into(self._fields, 0, *map(Tensor.data_ptr, values))
        kept = 0
        if mask is not None:
            mask = mask.cpu().contiguous()
            kept = mask.data_ptr()
        memory, index = self._indexes.take(steps * envs)
        written, even = self._scatter(
            self._address, self._width, self._fields, kept, steps, envs, first, self.ring, count, memory
        )
        return index[:written] if kept else index, even

    def _write_torch(
        self, values: list[Tensor], mask: Tensor | None, steps: int, envs: int, first: int, count: np.ndarray
    ) -> tuple[Tensor, bool]:
        """The same for rows on any device: packed there, then scattered by one copy."""
        assert self.layout is not None
        kept = np.ones((steps, envs), bool) if mask is None else mask.cpu().numpy()
        k = count[first : first + envs] + np.cumsum(kept, 0) - 1
        index = (k * self.lanes + np.arange(first, first + envs))[kept]
        count[first : first + envs] += kept.sum(0)
        packed = torch.empty((steps, envs, self.layout.row_bytes), dtype=torch.uint8, device=self.device)
        for entry, value in zip(self.layout.fields, values):
            self.layout.column(packed, entry).copy_(value)
        packed = packed.view(-1, self.layout.row_bytes)
        if mask is not None:
            packed = packed[torch.from_numpy(kept.reshape(-1)).to(self.device)]
        last = slice(-self._size, None) if steps > self.ring else slice(None)  # each slot at most once
        slots = torch.from_numpy(index[last] % self._size).to(self.device)
        self._rows.index_copy_(0, slots, packed[last])
        return torch.from_numpy(index), bool((count == count[0]).all())

    def _refuse_overflow(self, steps: int, envs: int, first: int, mask: Tensor | None) -> None:
        new = np.full(envs, steps) if mask is None else mask.sum(0).cpu().numpy()
        if (self.count[first : first + envs] + new > self.rows).any():
            raise BadInput(
                f"this storage is written once and holds {self.rows} rows a lane: {int(new.max())} more do not fit after "
                f"{int(self.count[first : first + envs].max())}. Use a larger capacity, or writer='ring'"
            )

    # ------------------------------------------------------------------------------------------------ reading

    def __len__(self) -> int:
        window = self.window()
        if window:
            return (window[1] - window[0]) * self.lanes
        low, high = self.live()
        return int((high - low).sum())

    def live(self) -> tuple[np.ndarray, np.ndarray]:
        """(low, high), int64 [L] each: the rows low <= k < high of each lane may be sampled."""
        high = self.count.copy()
        return np.maximum(high - self.rows, self.floor), high

    def window(self) -> tuple[int, int] | None:
        """(low, high) as integers where all lanes agree, else None: the cheap way for the common case."""
        if not self._even:
            return None
        high = int(self.count[0])
        return max(high - self.rows, 0), high

    def slot(self, index: Tensor) -> Tensor:
        """The slot in memory of each absolute index."""
        return index % self._size

    def column(self, name: str) -> Tensor:
        """One field over all slots, as a view [ring * L, ...]. Raises BatchError when there is none of this name."""
        for entry in self.layout.fields if self.layout else ():
            if entry.name == name:
                assert self.layout is not None
                return self.layout.column(self._rows, entry)
        raise BatchError(f"the buffer has no {name!r}. It has {', '.join(self.names()) or 'nothing yet'}")

    def looked_at(self, rows: int) -> None:
        """To be told by who reads many rows through `column`: a storage on disk lets their pages go."""

    def names(self) -> list[str]:
        return [entry.name for entry in self.layout.fields] if self.layout else []

    def read(self, index: Tensor) -> Batch:
        """The rows of absolute indexes as a batch of shape index.shape: all keys, and `index`.

        Indexes must be live (or in the slack): they are not checked. The batch is valid until another of this shape
        was read (or as many as `keep` was told); then the same object comes again with other contents.
        """
        batches = self._batches.get(index.shape)
        if batches is None or len(batches) < self._kept:
            batches = self._new_batch(index.shape)
        batches.append(batches.pop(0))
        here = batches[-1]
        if self._compiled and index.is_cpu and index.is_contiguous() and index.dtype is torch.int64:
            self._gather(
                self._address, self._width, self._size, index.data_ptr(), here.size, here.address, here.index_address
            )
        else:
            here.index.copy_(index)
            torch.index_select(self._rows, 0, self.slot(here.index).view(-1), out=here.packed)
        return here.restored()

    def _new_batch(self, shape: torch.Size) -> list[_Batch]:
        if self.layout is None:
            raise BadInput("the replay buffer is empty: add rollouts before reading")
        batches = self._batches.pop(shape, [])
        if len(self._batches) >= SHAPES:
            self._batches.pop(next(iter(self._batches)))
        batches.insert(0, _Batch(self.layout, shape, self.device))
        self._batches[shape] = batches
        return batches

    def keep(self, batches: int) -> None:
        """From now on a batch that was read stays valid until so many more of its shape were read."""
        self._kept = batches

    def intact(self, index: Tensor) -> bool:
        """Whether no other process can have overwritten these rows by now."""
        return True

    def ordered(self) -> Batch | list[Batch]:
        """All live rows, oldest first, in memory of their own: a batch [T, L], or where lanes hold different numbers of
        rows, a list of L batches [T_e, 1]. Writing it to an empty storage of equal size (lane by lane) restores the rows.
        """
        low, high = self.live()
        if self.layout is None:
            raise BadInput("the replay buffer is empty: there is nothing to read")
        lanes = np.arange(self.lanes)
        if (high - low == high[0] - low[0]).all():
            return self._fresh((low + np.arange(high[0] - low[0])[:, None]) * self.lanes + lanes)
        return [self._fresh((np.arange(low[e], high[e]) * self.lanes + e)[:, None]) for e in lanes]

    def _fresh(self, index: np.ndarray) -> Batch:
        assert self.layout is not None
        slots = torch.from_numpy(index % self._size).to(self.device)
        packed = self._rows[slots.view(-1)].view(*index.shape, self._width)
        return batch.make(self.layout.views(packed), index.shape)

    # ------------------------------------------------------------------------------------------------ on disk

    def flush(self) -> None:
        """Brings the rows written since the last flush to the folder, if there is one; on return they are on disk."""
        if self._file and self.layout:
            self._file.flush(self._rows, self.layout, self.lanes, self.count)

    def state(self) -> State:
        """What a checkpoint keeps: ({}, counters). The rows are in the folder, as the last `flush` left them."""
        numbers = self._numbers()
        numbers["kept"] = self._file is not None
        numbers["life"] = self._file.life if self._file else 0
        return {}, numbers

    def _numbers(self) -> Numbers:
        layout = self.layout.to_json() if self.layout else None
        return {
            "lanes": self.lanes,
            "ring": self.ring,
            "count": self.count.tolist(),
            "floor": self.floor.tolist(),
            "layout": layout,
        }

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        """Brings back the rows of `state`. False if some of its oldest were overwritten since: then fewer are live.

        Raises BadInput for a state without rows or of another size, Damaged when the file does not hold its rows.
        """
        if not (self._file and numbers["kept"]):
            raise BadInput(
                "the rows of this replay buffer were not kept, so it cannot be resumed: give its storage a folder "
                '(or use storage="memmap"), or `save` the whole buffer'
            )
        count, floor = self._counters(numbers)
        if numbers["layout"] is None:
            self._set(count, floor)
            return True
        if self.layout is None:
            self.allocate(Layout.from_json(numbers["layout"]))
        assert self.layout is not None
        intact = self._file.load(self._rows, self.layout, self.lanes, count, numbers["life"])
        return self._set(count, floor, intact)

    def _counters(self, numbers: Numbers) -> tuple[np.ndarray, np.ndarray]:
        """The saved (count, floor), int64 [L]. Raises BadInput for those of another size, Damaged for what no counters can be."""
        ours = (self.lanes, self.ring)
        if (numbers["lanes"], numbers["ring"]) != ours:
            raise BadInput(
                f"the state has {numbers['lanes']} lanes of {numbers['ring']} rows, this buffer {ours[0]} of {ours[1]}: "
                "use the same capacity and number of environments"
            )
        count, floor = np.array(numbers["count"]), np.array(numbers["floor"])
        whole = count.shape == floor.shape == self.count.shape and count.dtype == floor.dtype == np.int64
        if not (whole and ((floor >= 0) & (floor <= count) & (count <= MOST)).all()):
            raise Damaged(
                f"the rows of {self.lanes} lanes are counted from 0, the saved counters are {count.tolist()} and {floor.tolist()}"
            )
        return count, floor

    def _set(self, count: np.ndarray, floor: np.ndarray, intact: np.ndarray | int = 0) -> bool:
        """New counters in place; whether all live rows of them are intact."""
        wanted, intact = np.maximum(count - self.rows, floor), np.minimum(intact, count)
        self.count[:] = count
        self.floor[:] = np.where(
            intact > wanted, intact, floor
        )  # a floor below the live rows would make them look uneven
        self._floored = bool((self.floor > 0).any())
        self._even = bool((count == count[0]).all()) and not self._floored
        return bool((np.maximum(wanted, intact) == wanted).all())

    def dump(self, folder: Path, name: str = "rows.bin") -> Numbers:
        """Writes all rows to the file `name` in `folder` and returns the counters, for `ReplayBuffer.save`."""
        if self.layout:
            save_rows(folder / name, self._rows[: self._used(self.count)])
        return self._numbers()

    def restore(self, folder: Path, numbers: Numbers, name: str = "rows.bin") -> None:
        """The inverse of `dump`. Raises BadInput for rows of another size, Damaged when the file is too short."""
        count, floor = self._counters(numbers)
        if numbers["layout"] is not None:
            layout = Layout.from_json(numbers["layout"])
            if self.layout is None:
                self.allocate(layout)
            if self.layout != layout:
                raise BadInput(
                    f"{folder} holds rows with the keys {[entry.name for entry in layout.fields]}, this buffer {self.names()}"
                )
            load_rows(folder / name, self._rows[: self._used(count)])
        self._set(count, floor)

    def _used(self, count: np.ndarray) -> int:
        """Slots that were ever written lie before this one."""
        return min(int(count.max()), self.ring) * self.lanes


class _Batch:
    """The memory of one batch, and the TensorDict of views into it."""

    def __init__(self, layout: Layout, shape: torch.Size, device: torch.device):
        self.index = torch.empty(shape, dtype=torch.int64, device=device)
        packed = torch.empty((*shape, layout.row_bytes), dtype=torch.uint8, device=device)
        self.packed = packed.view(-1, layout.row_bytes)
        self.size = self.index.numel()
        self.address, self.index_address = packed.data_ptr(), self.index.data_ptr()
        self.batch = batch.make(layout.views(packed) | {"index": self.index}, tuple(shape))
        self.nodes = [(node, list(node.items())) for node in _nodes(self.batch)]

    def restored(self) -> Batch:
        """The batch as it was handed out first: keys that a lookup or an agent added or replaced are put back."""
        for node, items in self.nodes:
            values = node.values()
            if len(values) == len(items) and all(a is b for a, (_, b) in zip(values, items)):
                continue
            for key in [key for key in node.keys() if key not in dict(items)]:  # noqa: SIM118
                del node[key]
            for key, value in items:
                node[key] = value
        return self.batch


def _nodes(tree: Any) -> list[Any]:
    return [tree] + [node for value in tree.values() if hasattr(value, "keys") for node in _nodes(value)]
