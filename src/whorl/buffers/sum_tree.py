"""A sum tree with 8 children a node: a node's children are one cache line, so 1,000,000 leaves are 7 lines away from the root."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from whorl.errors import BadInput

WIDTH = 8
LARGEST = 1e300  # so that sums of up to 1e8 of them are finite


class SumTree:
    """`size` leaves, float64, zero at the start; every node is the sum of its 8 children.

    Sums are always recomputed from the children, bottom-up and in one order, never by differences: no rounding errors
    gather, and a tree that is built anew from its leaves has the same bits.

    backend: "numba" for the compiled loops (CPU), "torch" for the same level by level in torch operations (any device),
    None: numba on the CPU, torch elsewhere. Both have the same nodes: `nodes`, all levels from the root (nodes[0]) down
    to the leaves, each padded with zeros to whole cache lines; level l begins at starts[l].
    """

    def __init__(self, size: int, device: str | torch.device = "cpu", backend: str | None = None):
        if size < 1:
            raise BadInput(f"a sum tree needs at least 1 leaf, got {size}")
        self.size, self.device = size, torch.device(device)
        self.backend = backend or ("numba" if self.device.type == "cpu" else "torch")
        lengths = [-(-size // WIDTH) * WIDTH]
        while lengths[0] > WIDTH:
            lengths.insert(0, -(-lengths[0] // WIDTH**2) * WIDTH)
        lengths.insert(0, WIDTH)  # the root, alone in its line
        self.starts = np.cumsum([0, *lengths[:-1]])
        self.nodes = torch.zeros(sum(lengths), dtype=torch.float64, device=self.device)
        self.leaves = self.nodes[int(self.starts[-1]) :][:size]
        if self.backend == "numba":
            self.array = self.nodes.numpy()

    @property
    def total(self) -> float:
        """The sum of all leaves."""
        return self.nodes[0].item()

    def get(self, slots: Tensor) -> Tensor:
        """The leaves at `slots` (int64, any shape)."""
        return self.leaves[slots]

    def set(self, slots: Tensor, values: Tensor) -> None:
        """leaf[slots[i]] = values[i]; where a slot comes twice, the last value stays. slots: int64 [n], values: [n].

        Raises BadInput for a value that is NaN, negative or infinite; then nothing has changed.
        """
        if self.backend == "numba":
            bad = kernels().assign(self.array, self.starts, slots.numpy(), values.numpy())
            if bad >= 0:
                raise wrong("value of a sum tree", values, bad)
            return
        check("value of a sum tree", values)
        slots, order = slots.sort(stable=True)
        last = torch.ones_like(slots, dtype=torch.bool)
        last[:-1] = slots[1:] != slots[:-1]
        self.leaves[slots[last]] = values[order[last]].double()
        for level in range(len(self.starts) - 2, -1, -1):
            slots = slots // WIDTH
            below = self.nodes[self.starts[level + 1] :].narrow(0, 0, self._length(level + 1)).view(-1, WIDTH)
            self.nodes[slots + self.starts[level]] = fold(below[slots])

    def fill(self, leaves: Tensor) -> None:
        """Set all leaves at once: the tree that the same leaves had before, bit for bit. Raises BadInput as `set` does."""
        if leaves.shape != (self.size,):
            raise BadInput(f"a sum tree of {self.size} leaves cannot be filled with {list(leaves.shape)} values")
        self.set(torch.arange(self.size, device=self.device), leaves)

    def find(self, masses: Tensor) -> Tensor:
        """slots int64 [n]: the first s with leaf[0] + ... + leaf[s] > masses[i], for 0 <= masses[i] < total.

        Never a leaf of zero (as long as the total is positive), whatever rounding does to masses at an edge.
        """
        if self.backend == "numba":
            slots = torch.empty(len(masses), dtype=torch.int64)
            kernels().descend(self.array, self.starts, masses.numpy().copy(), slots.numpy())
            return slots
        slots = torch.zeros(len(masses), dtype=torch.int64, device=self.device)
        for level in range(1, len(self.starts)):
            below = self.nodes[self.starts[level] :].narrow(0, 0, self._length(level)).view(-1, WIDTH)
            sums = below[slots].cumsum(-1)
            masses = torch.minimum(masses, torch.nextafter(sums[:, -1], sums.new_zeros(())))
            passed = (masses[:, None] >= sums).sum(-1)
            before = sums.gather(1, (passed - 1).clamp(min=0)[:, None]).squeeze(1)
            masses = masses - torch.where(passed > 0, before, 0.0)
            slots = WIDTH * slots + passed
        return slots

    def _length(self, level: int) -> int:
        end = self.starts[level + 1] if level + 1 < len(self.starts) else len(self.nodes)
        return int(end - self.starts[level])


def fold(children: Tensor) -> Tensor:
    """[n, 8] -> [n], added in the order of the compiled loop."""
    children = children[:, :4] + children[:, 4:]
    children = children[:, :2] + children[:, 2:]
    return children[:, 0] + children[:, 1]


def check(name: str, values: Tensor) -> None:
    """Raises BadInput, naming the first, if a value is NaN, negative, infinite or too large to be summed."""
    numbers = values.double()  # LARGEST is infinite in float32
    bad = ~((numbers >= 0) & (numbers <= LARGEST))
    if bad.any():
        raise wrong(name, values, int(bad.nonzero()[0, 0]))


def wrong(name: str, values: Tensor, position: int) -> BadInput:
    return BadInput(
        f"a {name} must be a finite number of at least 0, got {values[position].item()} at position {position}; nothing was changed"
    )


@cache
def kernels() -> ModuleType:
    return import_module("whorl.buffers.sum_tree_kernels")
