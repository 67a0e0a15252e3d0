"""The loops of the sum tree and of prioritized sampling on the CPU. Imported on first use: numba is slow to import.

`nodes` and `starts` are those of `sum_tree.SumTree`; `low`, `high`, `first` and `ring` those of `sample_prioritized.Priorities`.
All of them run without the interpreter's lock, so that a prefetching thread can draw.
"""

from __future__ import annotations

import numpy as np
from numba import njit

WIDTH, SHIFT = 8, 3
LARGEST = 1e300  # so that sums of up to 1e8 of them are finite


@njit(cache=True, nogil=True, inline="always")
def _wrong(value):
    """Neither zero nor a positive number that can be summed; NaN compares false."""
    return not (value >= 0.0 and value <= LARGEST)


@njit(cache=True, nogil=True, inline="always")
def _sum(nodes, first):
    """The sum of 8 neighbours, added as the halves are folded onto each other: the order of `sum_tree.fold`."""
    a = nodes[first] + nodes[first + 4]
    b = nodes[first + 1] + nodes[first + 5]
    c = nodes[first + 2] + nodes[first + 6]
    d = nodes[first + 3] + nodes[first + 7]
    return (a + c) + (b + d)


@njit(cache=True, nogil=True)
def refresh(nodes, starts, changed, length):
    """Recompute all that lies above the leaves changed[:length], level by level. `changed` is written over."""
    for level in range(starts.size - 2, -1, -1):
        start, below = starts[level], starts[level + 1]
        width = (starts[level + 2] - below if level + 2 < starts.size else nodes.size - below) // WIDTH
        if width <= length:  # the whole level costs less than looking who is in it
            for node in range(width):
                nodes[start + node] = _sum(nodes, below + WIDTH * node)
            length = width
            for node in range(width):
                changed[node] = node
            continue
        kept, previous = 0, -1
        for i in range(length):
            node = changed[i] >> SHIFT
            nodes[start + node] = _sum(nodes, below + WIDTH * node)
            kept += int(node != previous)
            changed[kept - 1] = node  # over its neighbour if that is the same: cheaper than a branch
            previous = node
        length = kept


@njit(cache=True, nogil=True)
def assign(nodes, starts, slots, values):
    """nodes[leaf of slots[i]] = values[i], in turn, and all sums. Returns the first bad position (then nothing changed) or -1."""
    for i in range(values.size):
        if _wrong(values[i]):
            return i
    leaves = starts[-1]
    changed = np.empty(slots.size, np.int64)
    for i in range(slots.size):
        nodes[leaves + slots[i]] = values[i]
        changed[i] = slots[i]
    refresh(nodes, starts, changed, slots.size)
    return -1


@njit(cache=True, nogil=True)
def descend(nodes, starts, masses, slots):
    """The leaf where the running sum of leaves passes masses[i], into slots[i]; `masses` is written over.

    All masses go down one level before any goes down the next: their cache misses overlap.
    """
    slots[:] = 0
    for level in range(1, starts.size):
        start = starts[level]
        for i in range(masses.size):
            child = start + WIDTH * slots[i]
            p0 = nodes[child]
            p1 = p0 + nodes[child + 1]
            p2 = p1 + nodes[child + 2]
            p3 = p2 + nodes[child + 3]
            p4 = p3 + nodes[child + 4]
            p5 = p4 + nodes[child + 5]
            p6 = p5 + nodes[child + 6]
            p7 = p6 + nodes[child + 7]
            mass = masses[i]
            if mass >= p7:  # rounding: the sums were added in another order
                mass = np.nextafter(p7, 0.0)
            passed = int(mass >= p0) + int(mass >= p1) + int(mass >= p2) + int(mass >= p3)
            passed += int(mass >= p4) + int(mass >= p5) + int(mass >= p6)
            below = 0.0
            below = p0 if mass >= p0 else below
            below = p1 if mass >= p1 else below
            below = p2 if mass >= p2 else below
            below = p3 if mass >= p3 else below
            below = p4 if mass >= p4 else below
            below = p5 if mass >= p5 else below
            below = p6 if mass >= p6 else below
            masses[i] = mass - below
            slots[i] = WIDTH * slots[i] + passed


@njit(cache=True, nogil=True)
def draw(nodes, starts, uniform, low, first, ring, beta, index, weight):
    """Stratified draws: their absolute numbers -> `index`, (leaf / the smallest leaf among them)**-beta -> `weight`."""
    n, lanes, leaves = uniform.size, low.size, starts[-1]
    step = nodes[0] / n
    masses = np.empty(n, np.float64)
    for i in range(n):
        masses[i] = (i + uniform[i]) * step
    descend(nodes, starts, masses, index)
    least = np.inf
    for i in range(n):
        slot = index[i]
        masses[i] = nodes[leaves + slot]
        least = min(least, masses[i])
        lane = slot % lanes
        ahead = slot // lanes - first[lane]
        index[i] = (low[lane] + (ahead if ahead >= 0 else ahead + ring)) * lanes + lane
    for i in range(n):
        weight[i] = np.float32(least / masses[i]) ** beta


@njit(cache=True, nogil=True)
def update(nodes, starts, index, priority, low, high, first, ring, alpha, eps, largest):
    """leaf = (priority + eps)**alpha for every index inside the window. Returns (first bad position or -1, largest priority)."""
    for i in range(priority.size):
        if _wrong(priority[i]):
            return i, largest
    lanes, leaves = low.size, starts[-1]
    changed = np.empty(index.size, np.int64)
    kept = 0
    for i in range(index.size):
        row = index[i] // lanes
        lane = index[i] - row * lanes
        if low[lane] <= row < high[lane]:
            place = first[lane] + (row - low[lane])  # a division costs more than all the rest
            slot = (place if place < ring else place - ring) * lanes + lane
            nodes[leaves + slot] = (priority[i] + eps) ** alpha
            largest = max(largest, np.float64(priority[i]))
            changed[kept] = slot
            kept += 1
    refresh(nodes, starts, changed, kept)
    return -1, largest
