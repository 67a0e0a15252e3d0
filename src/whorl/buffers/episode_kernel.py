"""The compiled walk that finds episodes in new rows. Compiled on first use, then cached on disk."""

from __future__ import annotations

import numpy as np

from whorl.jit import jit

Array = np.ndarray


@jit(nogil=True)
def extend(
    first: Array, last: Array, begin: Array, k: Array, lane: Array, ended: Array, starts: Array, ring: int
) -> None:
    """Fills in the episodes of the rows (k[i], lane[i]), which come in order of time within each lane.

    `first`, `last` int64 [ring * L]: by slot, the k of the first and last row of the row's episode, last -1 while it goes
    on. `begin` [L]: the first row of the episode under way, -1 where none is. Every row is written once and once more when
    its episode ends.
    """
    lanes = len(begin)
    for i in range(len(k)):
        e, now = lane[i], k[i]
        if starts[i] and begin[e] >= 0:  # the episode before was given up without a flag
            for j in range(max(begin[e], now - ring), now):
                last[(j % ring) * lanes + e] = now - 1
            begin[e] = -1
        if begin[e] < 0:
            begin[e] = now
        slot = (now % ring) * lanes + e
        first[slot], last[slot] = begin[e], -1
        if ended[i]:
            for j in range(max(begin[e], now - ring + 1), now + 1):
                last[(j % ring) * lanes + e] = now
            begin[e] = -1
