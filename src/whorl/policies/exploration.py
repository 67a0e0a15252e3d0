"""How exploration is said in numbers that compiled code reads, and acting by them, row by row."""

from __future__ import annotations

import numpy as np
from numba.extending import register_jitable

from whorl.nets.tile_coding import Features

EPSILON_GREEDY, SOFTMAX = 0, 1
KIND, EPSILON, TEMPERATURE = 0, 1, 2  # entries of `exploration` [3], float64


@register_jitable(forceinline=True)
def probabilities(q: np.ndarray, allowed: np.ndarray, exploration: np.ndarray, out: np.ndarray) -> int:
    """`Greedy.probabilities` of one row, compiled: writes `out` [A] and returns the best action, the first of equals."""
    best, count = -1, 0
    for a in range(len(q)):
        if allowed[a]:
            count += 1
            if best < 0 or q[a] > q[best]:
                best = a
    if exploration[KIND] == SOFTMAX:
        total = 0.0
        for a in range(len(q)):
            out[a] = np.exp((q[a] - q[best]) / exploration[TEMPERATURE]) if allowed[a] else 0.0
            total += out[a]
        for a in range(len(q)):
            out[a] /= total
    else:
        for a in range(len(q)):
            out[a] = exploration[EPSILON] / count if allowed[a] else 0.0
        out[best] += 1.0 - exploration[EPSILON]
    return best


@register_jitable(forceinline=True)
def choose(
    q: np.ndarray, allowed: np.ndarray, exploration: np.ndarray, explore: float, which: float, scratch: np.ndarray
) -> int:
    """The action for values q [A] of one row and two uniform numbers; `scratch` [A]."""
    best, count = -1, 0
    for a in range(len(q)):
        if allowed[a]:
            count += 1
            if best < 0 or q[a] > q[best]:
                best = a
    softmax = exploration[KIND] == SOFTMAX
    if not softmax and explore >= exploration[EPSILON]:
        return best
    if softmax:
        probabilities(q, allowed, exploration, scratch)
    below, last = 0.0, best
    for a in range(len(q)):
        if allowed[a]:
            last = a
            below += scratch[a] if softmax else 1.0 / count
            if which < below:
                return a
    return last


def row_of(features: Features) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(index [active], value [active], key [tilings]) for `code` to write into; what it leaves alone stands there already."""
    index, value = np.arange(features.active), np.ones(features.active)
    if features.bias:
        index[-1] = features.size - 1
    return index, value, np.zeros(features.active - features.bias, np.int64)
