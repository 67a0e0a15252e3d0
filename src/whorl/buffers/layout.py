"""The packed row: where each field of a transition lies in one row of bytes, and whether all rows fit."""

from __future__ import annotations

import os
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whorl import batch
from whorl.batch import Batch, Numbers
from whorl.errors import BadInput, BatchError, Damaged


@dataclass(frozen=True)
class Field:
    name: str  # dotted: next.reward
    dtype: torch.dtype
    shape: tuple[int, ...]  # of one row
    offset: int  # bytes from the row's beginning

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Layout:
    """Fields at aligned offsets (a multiple of 4, and of the element's size); `row_bytes` is a multiple of 8.

    `mask` is no field: masked rows are not stored.
    """

    fields: tuple[Field, ...]
    row_bytes: int

    @classmethod
    def of(cls, rollout: Batch) -> Layout:
        """The layout of the rows of a batch [T, N]. Raises BatchError for leaves that are no dense tensors."""
        entries = []
        for name in batch.names(rollout):
            value = batch.get(rollout, name)
            if value is None:
                raise BatchError(f"the key {name!r} holds a '.', which stands for nesting: rename it")
            if not isinstance(value, Tensor) or value.layout != torch.strided:
                raise BatchError(f"{name!r} is a {type(value).__name__}; a replay buffer keeps dense tensors only")
            if name not in ("mask", "index"):
                entries.append((name, value.dtype, tuple(value.shape[len(rollout.batch_size) :])))
        return cls.pack(entries)

    @classmethod
    def pack(cls, entries: list[tuple[str, torch.dtype, tuple[int, ...]]]) -> Layout:
        """Offsets for (name, dtype, shape of one row), in this order."""
        fields, end, widest = [], 0, 8
        for name, dtype, shape in entries:
            align = max(4, dtype.itemsize)
            widest = max(widest, align)
            fields.append(Field(name, dtype, shape, -(-end // align) * align))
            end = fields[-1].offset + fields[-1].nbytes
        return cls(tuple(fields), max(-(-end // widest), 1) * widest)

    def to_json(self) -> list[list[str | list[int]]]:
        return [[f.name, str(f.dtype).removeprefix("torch."), list(f.shape)] for f in self.fields]

    @classmethod
    def from_json(cls, entries: list) -> Layout:
        """The inverse of `to_json`. Raises Damaged for what it did not write."""
        try:
            result = cls.pack([(str(name), getattr(torch, dtype), tuple(shape)) for name, dtype, shape in entries])
            whole = all(type(size) is int and size >= 0 for entry in result.fields for size in entry.shape)
            if whole and result.to_json() == entries:
                return result
        except (TypeError, ValueError, AttributeError):
            pass
        raise Damaged(f"this is not the layout of a replay buffer: {str(entries)[:200]}")

    def column(self, packed: Tensor, entry: Field) -> Tensor:
        """One field of packed rows [*, row_bytes] as a view [*, *shape]."""
        part = packed[..., entry.offset : entry.offset + entry.nbytes].view(entry.dtype)
        return part.view(*part.shape[:-1], *entry.shape) if entry.shape != part.shape[-1:] else part

    def views(self, packed: Tensor) -> Numbers:
        """All fields of packed rows as a nested dict of views."""
        nested: dict[str, Any] = {}
        for entry in self.fields:
            *parents, key = entry.name.split(".")
            node = nested
            for parent in parents:
                node = node.setdefault(parent, {})
            node[key] = self.column(packed, entry)
        return nested


class Reader:
    """Takes the leaves out of rollouts in a layout's order and checks them, in a few hundred nanoseconds a key."""

    def __init__(self, layout: Layout):
        self.layout = layout
        self.nodes: list[tuple[int, str]] = []  # nested dicts: (their parent's number, key); number 0 is the root
        self.paths: list[tuple[int, str]] = []
        self.sizes: list[int] = [0]
        numbers = {"": 0}
        for entry in layout.fields:
            *parents, key = entry.name.split(".")
            number, prefix = 0, ""
            for parent in parents:
                prefix += parent + "."
                if prefix not in numbers:
                    numbers[prefix] = len(self.sizes)
                    self.nodes.append((number, parent))
                    self.sizes[number] += 1
                    self.sizes.append(0)
                number = numbers[prefix]
            self.paths.append((number, key))
            self.sizes[number] += 1
        self.shape: torch.Size | None = None  # of the last rollout
        self.wanted: list[tuple[int, str, torch.Size, torch.dtype]] = []  # a leaf of it: where, and what it is to be

    def leaves(self, rollout: Batch) -> tuple[list[Tensor], Tensor | None]:
        """(values in the layout's order, mask or None). Raises BatchError naming every key that differs."""
        shape = rollout.batch_size
        if shape != self.shape:
            fields = zip(self.paths, self.layout.fields)
            self.wanted = [(*path, torch.Size((*shape, *entry.shape)), entry.dtype) for path, entry in fields]
            self.shape = shape
        values: list[Tensor] = []
        mask = None
        try:
            nodes: list[dict[str, Any]] = [dict(rollout.items())]
            for number, key in self.nodes:
                nodes.append(dict(nodes[number][key].items()))
            for number, key, wanted, dtype in self.wanted:
                value = nodes[number][key]
                if value.shape != wanted or value.dtype != dtype:
                    break
                values.append(value)
            sizes = list(map(len, nodes))
            if sizes[0] == self.sizes[0] + 1:
                mask = nodes[0]["mask"]
                sizes[0] -= 1
            good = sizes == self.sizes and len(values) == len(self.wanted)
        except (KeyError, IndexError, TypeError, AttributeError, RuntimeError):
            good = False
        if not good:
            raise BatchError(self._differences(rollout))
        return values, mask

    def _differences(self, rollout: Batch) -> str:
        ours = {entry.name: (entry.dtype, entry.shape) for entry in self.layout.fields}
        came = {entry.name: (entry.dtype, entry.shape) for entry in Layout.of(rollout).fields}
        found = [f"{name!r} is missing" for name in ours if name not in came]
        found += [f"{name!r} is new" for name in came if name not in ours]
        for name in ours.keys() & came.keys():
            if ours[name] != came[name]:
                (dtype, shape), (dtype2, shape2) = ours[name], came[name]
                found.append(f"{name!r} has {dtype2} {list(shape2)} a row, expected {dtype} {list(shape)}")
        if not found and batch.get(rollout, "index") is not None:
            found.append("'index' is written by the buffer: leave it out")
        return (
            f"the rollout differs from the rows this buffer holds: {'; '.join(sorted(found))}. "
            "All rollouts of a buffer need the keys, dtypes and shapes of the first one"
        )


def check_room(wanted: int, device: torch.device) -> None:
    """Raises BadInput when `wanted` bytes cannot be had in the memory of `device`; nothing is allocated."""
    if device.type == "cuda":
        available, where = torch.cuda.mem_get_info(device)[0], f"the memory of {device}"
    elif device.type == "cpu":
        available, where = available_memory(), "memory"
    else:
        return
    if wanted > available:
        raise BadInput(
            f"the replay buffer needs {wanted:,} bytes ({wanted / 2**30:.1f} GiB), but {where} has "
            f'{available:,} bytes ({available / 2**30:.1f} GiB) available. Use a smaller capacity, or storage="memmap"'
        )


def available_memory() -> int:
    """Bytes that this process could still take: MemAvailable, or what its control group leaves, if that is less."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            lines = dict(line.split() for line in (group / used).with_name("memory.stat").read_text().splitlines())
            taken = int((group / used).read_text()) - int(lines[cached])  # cached files give way
            available = min(available, int((group / limit).read_text()) - taken)
        except (OSError, ValueError, KeyError):  # no such group, or "max"
            continue
    return available


def check_disk(wanted: int, folder: Path) -> None:
    """Raises BadInput when `wanted` bytes do not fit on the disk of `folder` (which may not exist yet)."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    status = os.statvfs(there)
    available = status.f_bavail * status.f_frsize
    if wanted > available:
        raise BadInput(
            f"the replay buffer needs {wanted:,} bytes ({wanted / 2**30:.1f} GiB), but the disk of {folder} has "
            f"{available:,} bytes ({available / 2**30:.1f} GiB) free. Use a smaller capacity, or another folder"
        )
