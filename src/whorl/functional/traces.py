"""TD(lambda) with linear values and eligibility traces, one step at a time, compiled.

phi is a list of active features (index, value), w the weights, e the trace, and

    delta = r + discount * (0 if terminated, else V') - Q,     Q = w . phi,   V' the target's value of the successor
    e    <- discount * trace_decay * e + phi                   accumulating (Sutton 1988)
    e    <- discount * trace_decay * e, then 1 where phi is    replacing (Singh and Sutton 1996)
    e    <- decayed e + (1 - alpha * decayed e . phi) phi      dutch (van Seijen et al. 2016)
    w    <- w + alpha * delta * e                              and, with dutch traces, the rest of true online TD(lambda):
    w    <- w + alpha * (Q - Q_old) * (e - phi),  Q_old <- V'

Only features that were active since the episode began have a trace. They are kept side by side (`Traces.packed`), with a copy of their
weights, so that the two long loops are over contiguous numbers; nothing is cut off but traces below 1e-200.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

ACCUMULATING, REPLACING, DUTCH = 0, 1, 2
WEIGHT, TRACE = 0, 1  # rows of `packed`
COUNT, OLD_VALUE, AGE, SCALE = range(4)  # entries of `numbers`
TINY, SWEEP = 1e-200, 1024  # a trace that cannot move any weight; steps between two looks for them
HUGE = 1e100  # a TD error beyond this is on its way to infinity
LARGE = 1000.0  # one of so many times the largest reward is lost, too, where the update overshoots its target


class Traces(NamedTuple):
    """The traces of one environment, all arrays; `size` weights.

    numbers: how many have a trace, Q_old of true online TD, steps since the last sweep, largest |reward|.
    """

    slot: np.ndarray  # [size] int32, place in `packed`, -1 = no trace
    feature: np.ndarray  # [size] int32, the inverse
    packed: np.ndarray  # [2, size] float64: copies of the weights, and the traces
    numbers: np.ndarray  # [4] float64

    @classmethod
    def empty(cls, size: int) -> Traces:
        """No trace of any of `size` weights."""
        return cls(np.full(size, -1, np.int32), np.zeros(size, np.int32), np.zeros((2, size)), np.zeros(4))


def sound(traces: Traces) -> bool:
    """Whether these are traces of one environment that compiled code may walk through: it looks at no index of theirs again."""
    slot, feature, packed, numbers = traces
    if not (np.isfinite(packed).all() and np.isfinite(numbers).all() and 0 <= numbers[COUNT] <= len(slot)):
        return False
    count = int(numbers[COUNT])
    held = feature[:count]
    if count != numbers[COUNT] or ((held < 0) | (held >= len(slot))).any():
        return False
    places = np.full(len(slot), -1, slot.dtype)
    places[held] = np.arange(count)
    return bool((places == slot).all()) and len(np.unique(held)) == count


class Phi(NamedTuple):
    """The features of a state and an action that are not 0."""

    indices: np.ndarray  # [active] int64, within those of an action
    values: np.ndarray  # [active] float64
    offset: int  # of the action: `size` features each


class Rule(NamedTuple):
    """How weights and traces move."""

    kind: int  # ACCUMULATING, REPLACING or DUTCH
    exclusive: bool  # replacing traces clear those of the other actions in the same state (Singh and Sutton 1996)
    size: int  # features of an action
    step_size: float  # alpha
    decay: float  # discount * trace_decay


@register_jitable(forceinline=True)
def read(weight: np.ndarray, traces: Traces, phi: Phi) -> float:
    """w . phi; where there is a trace, the copy is the newer number."""
    index, value, offset = phi
    total = 0.0
    if traces.numbers[COUNT] == 0.0:
        for k in range(len(index)):
            total += value[k] * weight[index[k] + offset]
        return total
    for k in range(len(index)):
        i = index[k] + offset
        p = traces.slot[i]
        total += value[k] * (traces.packed[WEIGHT, p] if p >= 0 else weight[i])
    return total


@register_jitable(forceinline=True)
def read_all(weight: np.ndarray, traces: Traces, phi: Phi, size: int, q: np.ndarray) -> None:
    """q[a] = w . phi for every action a, `size` features each; the first one's phi."""
    for a in range(len(q)):
        q[a] = read(weight, traces, Phi(phi.indices, phi.values, a * size))


@register_jitable(forceinline=True)
def update(weight: np.ndarray, traces: Traces, phi: Phi, rule: Rule, q: float, target: float) -> bool:
    """One update towards `target` for the features `phi`, whose value is `q`.

    Returns whether it was done. Not when the values diverge, which is to say: the TD error is beyond HUGE, or it is beyond LARGE times
    the largest reward and the update would overshoot its target (alpha e . phi > 2, possible with accumulating traces), so that the next
    error is larger still. The weights are then as they were.
    """
    slot, feature, packed, numbers = traces
    index, value, offset = phi
    kind, exclusive, size, step_size, decay = rule
    delta = target - q
    if not abs(delta) < HUGE:
        return False
    if decay == 0.0:  # the trace is phi itself, whatever its kind
        for k in range(len(index)):
            weight[index[k] + offset] += step_size * delta * value[k]
        return True
    count = np.int64(numbers[COUNT])
    for p in range(count):
        packed[TRACE, p] *= decay
    overlap = 0.0
    for k in range(len(index)):
        i = index[k] + offset
        if slot[i] < 0:
            slot[i], feature[count] = count, i
            packed[WEIGHT, count], packed[TRACE, count] = weight[i], 0.0
            count += 1
        overlap += packed[TRACE, slot[i]] * value[k]
    if kind == REPLACING and exclusive:
        for k in range(len(index)):
            for other in range(index[k], len(weight), size):
                if slot[other] >= 0:
                    packed[TRACE, slot[other]] = 0.0
    for k in range(len(index)):
        p = slot[index[k] + offset]
        if kind == REPLACING:
            packed[TRACE, p] = 1.0
        elif kind == ACCUMULATING:
            packed[TRACE, p] += value[k]
        else:
            packed[TRACE, p] += (1.0 - step_size * overlap) * value[k]
    numbers[COUNT] = count
    if kind == ACCUMULATING and abs(delta) > LARGE * numbers[SCALE]:
        reach = 0.0
        for k in range(len(index)):
            reach += packed[TRACE, slot[index[k] + offset]] * value[k]
        if step_size * reach > 2.0:
            return False
    if kind == DUTCH:
        drift = step_size * (q - numbers[OLD_VALUE])
        for p in range(count):
            packed[WEIGHT, p] += (step_size * delta + drift) * packed[TRACE, p]
        for k in range(len(index)):
            packed[WEIGHT, slot[index[k] + offset]] -= drift * value[k]
    else:
        for p in range(count):
            packed[WEIGHT, p] += step_size * delta * packed[TRACE, p]
    numbers[AGE] += 1
    if numbers[AGE] >= SWEEP:
        sweep(weight, traces)
    return True


@register_jitable(forceinline=True)
def store(weight: np.ndarray, traces: Traces) -> None:
    """The copies back into the weights."""
    for p in range(np.int64(traces.numbers[COUNT])):
        weight[traces.feature[p]] = traces.packed[WEIGHT, p]


@register_jitable(forceinline=True)
def fetch(weight: np.ndarray, traces: Traces) -> None:
    """The weights into the copies, where somebody else may have written them."""
    for p in range(np.int64(traces.numbers[COUNT])):
        traces.packed[WEIGHT, p] = weight[traces.feature[p]]


@register_jitable(forceinline=True)
def clear(weight: np.ndarray, traces: Traces) -> None:
    """No trace any more: an episode ended, or Watkins's cut. Stores the weights."""
    store(weight, traces)
    for p in range(np.int64(traces.numbers[COUNT])):
        traces.slot[traces.feature[p]] = -1
    traces.numbers[COUNT], traces.numbers[OLD_VALUE], traces.numbers[AGE] = 0.0, 0.0, 0.0


@register_jitable(forceinline=True)
def sweep(weight: np.ndarray, traces: Traces) -> None:
    """Forget traces below TINY: denormal numbers are slow, and cannot move a weight."""
    slot, feature, packed, numbers = traces
    kept = 0
    for p in range(np.int64(numbers[COUNT])):
        i = feature[p]
        if abs(packed[TRACE, p]) < TINY:
            weight[i], slot[i] = packed[WEIGHT, p], -1
            continue
        feature[kept], slot[i] = i, kept
        packed[WEIGHT, kept], packed[TRACE, kept] = packed[WEIGHT, p], packed[TRACE, p]
        kept += 1
    numbers[COUNT], numbers[AGE] = kept, 0.0
