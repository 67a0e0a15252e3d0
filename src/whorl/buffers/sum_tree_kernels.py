"""The loops of the sum tree and of prioritized sampling on the CPU. Imported on first use: numba is slow to import.

`nodes` and `starts` are those of `sum_tree.SumTree`; `low`, `high`, `first` and `ring` those of `sample_prioritized.Priorities`.
All of them run without the interpreter's lock, so that a prefetching thread can draw.
"""

from __future__ import annotations

import numpy as np

from whorl.jit import jit

Array = np.ndarray
WIDTH, SHIFT = 8, 3
LARGEST = 1e300  # so that sums of up to 1e8 of them are finite


@jit(nogil=True, inline="always")
def _wrong(value: float) -> bool:
    """Neither zero nor a positive number that can be summed; NaN compares false."""
    return not (value >= 0.0 and value <= LARGEST)


@jit(nogil=True, inline="always")
def _sum(lines: Array, i: int) -> float:
    """The sum of a line of 8 neighbours, added as its halves are folded onto each other: the order of `sum_tree.fold`."""
    a = lines[i, 0] + lines[i, 4]
    b = lines[i, 1] + lines[i, 5]
    c = lines[i, 2] + lines[i, 6]
    d = lines[i, 3] + lines[i, 7]
    return (a + c) + (b + d)


@jit(nogil=True)
def refresh(nodes: Array, starts: Array, changed: Array, length: int) -> None:
    """Recompute all that lies above the leaves changed[:length], level by level. `changed` is written over."""
    lines = nodes.reshape(-1, WIDTH)
    for level in range(starts.size - 2, -1, -1):
        start, below = starts[level], starts[level + 1] >> SHIFT
        width = (starts[level + 2] >> SHIFT if level + 2 < starts.size else len(lines)) - below
        if width <= length:  # the whole level costs less than looking who is in it
            for node in range(width):
                nodes[start + node] = _sum(lines, below + node)
            length = width
            for node in range(width):
                changed[node] = node
            continue
        kept, previous = 0, -1
        for i in range(length):
            node = changed[i] >> SHIFT
            nodes[start + node] = _sum(lines, below + node)
            kept += int(node != previous)
            changed[kept - 1] = node  # over its neighbour if that is the same: cheaper than a branch
            previous = node
        length = kept


@jit(nogil=True)
def assign(nodes: Array, starts: Array, slots: Array, values: Array) -> int:
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


@jit(nogil=True)
def descend(nodes: Array, starts: Array, masses: Array, slots: Array) -> None:
    """The leaf where the running sum of leaves passes masses[i], into slots[i]; `masses` is written over.

    All masses go down one level before any goes down the next: their cache misses overlap.
    """
    slots[:] = 0
    lines = nodes.reshape(-1, WIDTH)
    for level in range(1, starts.size):
        start = starts[level] >> SHIFT
        for i in range(masses.size):
            line = start + slots[i]
            p0 = lines[line, 0]
            p1 = p0 + lines[line, 1]
            p2 = p1 + lines[line, 2]
            p3 = p2 + lines[line, 3]
            p4 = p3 + lines[line, 4]
            p5 = p4 + lines[line, 5]
            p6 = p5 + lines[line, 6]
            p7 = p6 + lines[line, 7]
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


@jit(nogil=True)
def draw(
    nodes: Array, starts: Array, uniform: Array, low: Array, first: Array,
    ring: int, beta: float, index: Array, weight: Array
) -> None:  # fmt: skip
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


@jit(nogil=True)
def update(
    nodes: Array, starts: Array, index: Array, priority: Array, low: Array, high: Array,
    first: Array, ring: int, alpha: float, eps: float, largest: float
) -> tuple[int, float]:  # fmt: skip
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


@jit(nogil=True)
def slide(
    nodes: Array, starts: Array, low: Array, high: Array, new_low: Array, new_high: Array, ring: int, value: float
) -> None:
    """The window moves: leaves of what left it become 0, those of what came in `value`."""
    lanes, leaves = low.size, starts[-1]
    gone, fresh, total = 0, 0, 0
    for e in range(lanes):
        gone = max(gone, min(high[e], new_low[e]) - low[e])
        fresh = max(fresh, new_high[e] - max(high[e], new_low[e]))
    changed = np.empty((gone + fresh) * lanes, np.int64)
    for step in range(gone):
        for e in range(lanes):
            if low[e] + step < min(high[e], new_low[e]):
                changed[total] = (low[e] + step) % ring * lanes + e
                nodes[leaves + changed[total]] = 0.0
                total += 1
    for step in range(fresh):
        for e in range(lanes):
            row = max(high[e], new_low[e]) + step
            if row < new_high[e]:
                changed[total] = row % ring * lanes + e
                nodes[leaves + changed[total]] = value
                total += 1
    refresh(nodes, starts, changed, total)
