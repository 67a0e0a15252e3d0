"""One step of TD(lambda) with linear values, compiled: the numbers of `TD`, and the functions that both of its loops are made of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable

from whorl.functional import traces as traces_module
from whorl.functional.kernels.cached import cached
from whorl.functional.traces import OLD_VALUE, SCALE, Phi, Traces, clear, fetch, read, read_all, store, update
from whorl.functional.traces import Rule as Move
from whorl.nets import tile_coding
from whorl.nets.tile_coding import HASHED, code
from whorl.policies import exploration as exploration_module
from whorl.policies.exploration import EPSILON, probabilities

SARSA, EXPECTED_SARSA, Q_LEARNING, NAIVE_Q_LEARNING, PREDICTION = range(5)


class Coder(NamedTuple):
    """How an observation becomes features: see `nets.tile_coding.code`."""

    kind: int
    table: np.ndarray
    slots: int
    size: int  # features, of each action


class Hashing(NamedTuple):
    """Who has been hashed where, arrays [size]; empty where nothing is hashed."""

    owner: np.ndarray  # int64, whose tile came to a slot first
    shared: np.ndarray  # bool, slots that more than one tile uses
    collisions: np.ndarray  # [1] int64, how many these are


class Rule(NamedTuple):
    """What is learned: constant in one compiled loop."""

    target: int  # SARSA, ...
    trace: int  # ACCUMULATING, ...
    exclusive: bool  # see `traces.Rule`


class Rates(NamedTuple):
    step_size: float
    discount: float
    decay: float  # discount * trace_decay
    epsilon_decay: float
    epsilon_min: float


class Learner(NamedTuple):
    """All that `td_step` and `claim` read and write beside a row."""

    coder: Coder
    weight: np.ndarray  # [actions * size] float64
    traces: Traces  # of all environments, each array [N, ...]
    hashing: Hashing
    rule: Rule
    rates: Rates
    exploration: np.ndarray  # [3] float64


class Row(NamedTuple):
    """What `code` writes for one state."""

    indices: np.ndarray  # [active] int64
    values: np.ndarray  # [active] float64
    keys: np.ndarray  # [tilings] int64


class Taken(NamedTuple):
    """What one environment did."""

    action: int
    reward: float
    terminated: bool
    ended: bool  # terminated, or a time limit


class There(NamedTuple):
    """The successor s'."""

    q: np.ndarray  # [A] its values
    action: int  # a'
    allowed: np.ndarray  # [A] bool
    share: np.ndarray  # [A] scratch


class Steps(NamedTuple):
    """One step of N environments."""

    observation: np.ndarray  # [N, components]
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    mask: np.ndarray
    is_first: np.ndarray
    next_observation: np.ndarray
    next_action: np.ndarray
    allowed: np.ndarray  # [N, A] bool


class Scratch(NamedTuple):
    here: Row
    there: Row
    q: np.ndarray  # [outputs]
    share: np.ndarray  # [A]


@register_jitable(forceinline=True)
def td_step(learner: Learner, traces: Traces, row: Row, taken: Taken, there: There) -> tuple[float, bool]:
    """One update of one environment from (s, a, r, s', a'), s as the features `row`. (TD error, whether it was done: see `update`)."""
    target_of, kind, exclusive = learner.rule
    weight, rates, size, q = learner.weight, learner.rates, learner.coder.size, there.q
    phi = Phi(row.indices, row.values, 0 if target_of == PREDICTION else taken.action * size)
    best = there.action
    if target_of == SARSA:
        future = q[there.action]
    elif target_of == PREDICTION:
        future = q[0]
    else:
        best = probabilities(q, there.allowed, learner.exploration, there.share)
        future = q[best]
        if target_of == EXPECTED_SARSA:
            future = 0.0
            for a in range(len(q)):
                if there.allowed[a]:
                    future += there.share[a] * q[a]
    if taken.terminated:
        future = 0.0
    value = read(weight, traces, phi)
    target = taken.reward + rates.discount * future
    traces.numbers[SCALE] = max(traces.numbers[SCALE], abs(taken.reward))
    if not update(weight, traces, phi, Move(kind, exclusive, size, rates.step_size, rates.decay), value, target):
        return target - value, False
    traces.numbers[OLD_VALUE] = future
    if taken.ended or (target_of == Q_LEARNING and q[there.action] < q[best]):  # Watkins: a' was exploratory
        clear(weight, traces)
    return target - value, True


@register_jitable(forceinline=True)
def claim(row: Row, hashing: Hashing) -> None:
    """Count the slots that tiles of more than one place were hashed into."""
    owner, shared, collisions = hashing
    for k in range(len(row.keys)):
        i = row.indices[k]
        if owner[i] == 0:
            owner[i] = row.keys[k]
        elif owner[i] != row.keys[k] and not shared[i]:
            shared[i] = True
            collisions[0] += 1


@register_jitable(forceinline=True)
def anneal(exploration: np.ndarray, rates: Rates) -> None:
    """epsilon <- epsilon * decay, not below its floor."""
    e = exploration[EPSILON]
    if e > rates.epsilon_min:
        exploration[EPSILON] = max(e * rates.epsilon_decay, rates.epsilon_min)


@register_jitable(forceinline=True)
def traces_of(traces: Traces, i: int) -> Traces:
    """Those of environment i."""
    return Traces(traces.slot[i], traces.feature[i], traces.packed[i], traces.numbers[i])


@cached(traces_module, tile_coding, exploration_module)
def learn_rows(steps: Steps, learner: Learner, scratch: Scratch, td_error: np.ndarray, env_steps: np.ndarray) -> int:
    """`td_step` for each environment in turn. Returns the first whose values diverge, or -1."""
    kind, table, slots, size = learner.coder
    weight, (here, there, q, share) = learner.weight, scratch
    before, scale = env_steps[()], 0.0
    for i in range(len(steps.mask)):  # what is large is judged by the rewards of all environments
        scale = max(scale, learner.traces.numbers[i, SCALE])
    for i in range(len(steps.mask)):
        if not steps.mask[i]:
            continue
        env_steps[()] += 1
        traces = traces_of(learner.traces, i)
        traces.numbers[SCALE] = scale
        fetch(weight, traces)
        if steps.is_first[
            i
        ]:  # nothing is left of an episode that was lost, as when a resumed run could not go on with it
            clear(weight, traces)
        code(kind, steps.observation[i], table, slots, here.indices, here.values, here.keys)
        if kind == HASHED:
            claim(here, learner.hashing)
        code(kind, steps.next_observation[i], table, slots, there.indices, there.values, there.keys)
        read_all(weight, traces, Phi(there.indices, there.values, 0), size, q)
        ended = steps.terminated[i] or steps.truncated[i]
        taken = Taken(steps.action[i], steps.reward[i], steps.terminated[i], ended)
        delta, fine = td_step(learner, traces, here, taken, There(q, steps.next_action[i], steps.allowed[i], share))
        td_error[()] = delta
        if not fine:
            return i
        store(weight, traces)
    if env_steps[()] > before and learner.rule.target != PREDICTION:
        anneal(learner.exploration, learner.rates)
    return -1
