"""TD(lambda) with traces: compiled = the textbook's dense loop; hand-worked numbers; forward views; Monte Carlo."""

import numpy as np
import pytest
import torch

from tests import seeds
from whorl.functional import traces
from whorl.functional.kernels.cached import cached
from whorl.functional.returns import lambda_return
from whorl.functional.traces import (
    ACCUMULATING,
    AGE,
    COUNT,
    DUTCH,
    OLD_VALUE,
    REPLACING,
    SCALE,
    SWEEP,
    Phi,
    Rule,
    Traces,
    clear,
    fetch,
    read,
    read_all,
    store,
    update,
)

KINDS = {"accumulating": ACCUMULATING, "replacing": REPLACING, "dutch": DUTCH}


@cached(traces)
def play(weight, trace, rule, discount, rows, history):
    """Learns from every row in order; `history` [T, size] is the weights after each."""
    index, value, offset, reward, next_index, next_value, next_offset, terminated, ended = rows
    for t in range(len(index)):
        phi, following = Phi(index[t], value[t], offset[t]), Phi(next_index[t], next_value[t], next_offset[t])
        q = read(weight, trace, phi)
        future = 0.0 if terminated[t] else read(weight, trace, following)
        update(weight, trace, phi, rule, q, reward[t] + discount * future)
        trace.numbers[OLD_VALUE] = future
        if ended[t]:
            clear(weight, trace)
        store(weight, trace)
        for i in range(len(weight)):
            history[t, i] = weight[i]


def compiled(weight, rows, kind, step_size, discount, trace_decay, exclusive=False, size=0, trace=None):
    weight, history = weight.copy(), np.zeros((len(rows[0]), len(weight)))
    trace = Traces.empty(len(weight)) if trace is None else trace
    trace.numbers[SCALE] = 1e300  # no guard against divergence
    rule = Rule(KINDS[kind], exclusive, size or len(weight), step_size, discount * trace_decay)
    play(weight, trace, rule, discount, rows, history)
    assert np.array_equal(history[-1], weight)
    return history


def dense(size, index, value):
    phi = np.zeros(size)
    phi[index] = value
    return phi


def textbook(weight, rows, kind, step_size, discount, trace_decay, exclusive=False, size=0):
    """Sutton and Barto 2018, sections 12.2, 12.5 and 12.7, over all weights."""
    w, e, old, history = weight.copy(), np.zeros(len(weight)), 0.0, []
    size = size or len(w)
    for index, value, offset, reward, next_index, next_value, next_offset, terminated, ended in zip(*rows, strict=True):
        phi = dense(len(w), index + offset, value)
        q, future = w @ phi, (0.0 if terminated else w @ dense(len(w), next_index + next_offset, next_value))
        delta = reward + discount * future - q
        e = discount * trace_decay * e
        if kind == "accumulating":
            e = e + phi
        elif kind == "replacing":
            if exclusive:
                for first in range(0, len(w), size):
                    e[index + first] = 0
            e[index + offset] = 1
        else:
            e = e + (1 - step_size * (e @ phi)) * phi
        w = w + step_size * delta * e
        if kind == "dutch":
            w = w + step_size * (q - old) * (e - phi)
            old = future
        if ended:
            e, old = np.zeros(len(w)), 0.0
        history.append(w)
    return np.array(history)


def random_rows(seed, length, size=12, actions=3, active=4, binary=True, end=0.15):
    """`active` of `size` features of `actions` actions; each row's successor is the next row unless the episode ends there."""
    rng = np.random.default_rng(seeds.seed(seed))
    index = np.array([rng.choice(size, active, replace=False) for _ in range(length + 1)])
    value = np.ones((length + 1, active)) if binary else rng.normal(size=(length + 1, active))
    offset = rng.integers(actions, size=length + 1) * size
    terminated = rng.random(length) < end
    ended = terminated | (rng.random(length) < end)
    next_index, next_value, next_offset = index[1:].copy(), value[1:].copy(), offset[1:].copy()
    for t in np.flatnonzero(ended):  # the true successor, which is not where the next episode begins
        next_index[t], next_offset[t] = rng.choice(size, active, replace=False), rng.integers(actions) * size
    reward = rng.normal(size=length)
    rows = (index[:-1], value[:-1], offset[:-1], reward, next_index, next_value, next_offset, terminated, ended)
    return rng.normal(size=size * actions), rows


@pytest.mark.parametrize("trace_decay", [0.0, 0.7, 1.0])
@pytest.mark.parametrize(
    ("kind", "exclusive", "binary"),
    [
        ("accumulating", False, True),
        ("accumulating", False, False),
        ("replacing", False, True),
        ("replacing", True, True),
        ("dutch", False, True),
        ("dutch", False, False),
    ],
)
def test_compiled_equals_the_textbook(kind, exclusive, binary, trace_decay):
    for seed in range(10):
        weight, rows = random_rows(seed, 60, binary=binary)
        for discount in (1.0, 0.9):
            options = (kind, 0.05, discount, trace_decay, exclusive, 12)
            ours, expected = compiled(weight, rows, *options), textbook(weight, rows, *options)
            np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-12)
            assert np.abs(expected[-1] - weight).max() > 0.05  # it did learn something


def test_the_kinds_differ_where_they_should():
    weight, rows = random_rows(0, 40)
    runs = [compiled(weight, rows, kind, 0.05, 1.0, 0.9, e, 12)[-1] for kind in KINDS for e in (False, True)]
    different = {run.round(9).tobytes() for run in runs}
    assert len(different) == 4  # three kinds, and clearing matters to replacing only
    flat = [compiled(weight, rows, kind, 0.05, 1.0, 0.0)[-1] for kind in KINDS]
    assert np.array_equal(flat[0], flat[1]) and np.array_equal(flat[0], flat[2])  # lambda 0: no kind at all


def test_read_all_reads_every_action_and_the_newer_copy():
    weight, trace, q = np.arange(6.0), Traces.empty(6), np.zeros(2)
    trace.slot[4], trace.feature[0], trace.packed[0, 0], trace.numbers[COUNT] = 0, 4, 100.0, 1
    read_all(weight, trace, Phi(np.array([0, 1]), np.array([1.0, 2.0]), 0), 3, q)
    assert q.tolist() == [0 + 2 * 1, 3 + 2 * 100]
    store(weight, trace)
    assert weight[4] == 100
    weight[4] = 7
    fetch(weight, trace)
    assert trace.packed[0, 0] == 7


def walk(states, rewards, terminated=True):
    """Rows of one episode over a table."""
    n = len(rewards)
    states = np.array(states)[:, None]
    ones, zeros, end = np.ones((n, 1)), np.zeros(n, np.int64), np.arange(n) == n - 1
    return states[:-1], ones, zeros, np.array(rewards, float), states[1:], ones, zeros, end & terminated, end


def test_three_steps_by_hand():
    """States 0, 0, 1, end; rewards 1, 0, 2; alpha 1/2, discount 1, lambda 1/2, from zero.

    delta_0 = 1 + 0 - 0 = 1;  e = (1, 0) for every kind:  w = (1/2, 0)
    delta_1 = 0 + 0 - 1/2 = -1/2
        accumulating  e = (1/2 + 1, 0)                 w = (1/2 - 3/8, 0) = (1/8, 0)
        replacing     e = (1, 0)                       w = (1/2 - 1/4, 0) = (1/4, 0)
        dutch         e = 1/2 + 1 - 1/2 * 1/2 = 5/4    V_old = 0 (V(s_1) before the first update), Q = 1/2
                      w = 1/2 - 1/2 * 1/2 * 5/4 + 1/2 * (1/2 - 0) * (5/4 - 1) = 1/2 - 5/16 + 1/16 = 1/4
    delta_2 = 2 + 0 - 0 = 2
        accumulating  e = (3/4, 1)   w = (1/8 + 3/4, 1)
        replacing     e = (1/2, 1)   w = (1/4 + 1/2, 1)
        dutch         e = (5/8, 1)   V_old = 0, Q = 0: w = (1/4 + 5/8, 1)
    """
    rows = walk([0, 0, 1, 1], [1, 0, 2])
    for kind, second, last in (("accumulating", 1 / 8, 7 / 8), ("replacing", 1 / 4, 3 / 4), ("dutch", 1 / 4, 7 / 8)):
        for learn in (compiled, textbook):
            history = learn(np.zeros(2), rows, kind, 0.5, 1.0, 0.5)
            assert history.tolist() == [[0.5, 0], [second, 0], [last, 1]], (kind, learn)


@pytest.mark.parametrize("kind", KINDS)
def test_tiny_traces_are_swept_and_the_result_stays(kind):
    """Features 0..7 are seen once, then only 8..15 for longer than two sweeps, then the first again."""
    length = 2 * SWEEP + 100
    weight, rows = random_rows(1, length, size=16, actions=1, end=0.0)
    late = (np.arange(length) > 4) & (np.arange(length) < length - 20)
    for index in (rows[0], rows[4]):
        index[:] = np.random.default_rng(seeds.seed(2)).permuted(np.tile(np.arange(8), (length, 1)), axis=1)[:, :4]
        index[late] += 8
    trace = Traces.empty(16)
    ours = compiled(weight, rows, kind, 0.02, 1.0, 0.5, trace=trace)
    np.testing.assert_allclose(ours, textbook(weight, rows, kind, 0.02, 1.0, 0.5), rtol=1e-12, atol=1e-12)
    swept = Traces.empty(16)
    compiled(weight, tuple(x[: 2 * SWEEP] for x in rows), kind, 0.02, 1.0, 0.5, trace=swept)
    assert swept.numbers[COUNT] == 8  # the first eight were dropped
    for t in (trace, swept):
        count = int(t.numbers[COUNT])
        assert sorted(np.flatnonzero(t.slot >= 0)) == sorted(t.feature[:count])
        assert (t.slot[t.feature[:count]] == np.arange(count)).all()


def test_clear_forgets_everything_but_the_weights():
    weight, rows = random_rows(3, 10, end=0.0)
    trace = Traces.empty(36)
    compiled(weight, rows, "dutch", 0.1, 1.0, 0.9, trace=trace)
    assert trace.numbers[COUNT] > 0 and trace.numbers[OLD_VALUE] != 0
    clear(weight.copy(), trace)
    assert not trace.numbers[[COUNT, OLD_VALUE, AGE]].any() and (trace.slot == -1).all()


def test_values_that_diverge_are_left_as_they_were():
    """Refused: a TD error beyond 1e100, and with accumulating traces one that is beyond 1,000 times the largest reward and overshoots."""
    phi = Phi(np.array([0]), np.ones(1), 0)

    def learn(kind, trace, decay, delta, scale=1.0, step_size=1.0):
        weight, traces = np.zeros(2), Traces.empty(2)
        traces.slot[0], traces.numbers[COUNT], traces.packed[1, 0], traces.numbers[SCALE] = 0, 1, trace, scale
        done = update(weight, traces, phi, Rule(KINDS[kind], False, 2, step_size, decay), 0.0, delta)
        store(weight, traces)
        assert weight.any() == done
        return done

    for kind in KINDS:
        for bad in (np.nan, np.inf, -1e100):
            assert not learn(kind, 0.0, 0.9, bad) and not learn(kind, 0.0, 0.0, bad)
    assert not learn("accumulating", 2.0, 0.9, 1001.0) and not learn("accumulating", 2.0, 0.9, -1001.0)
    assert learn("accumulating", 2.0, 0.9, 999.0) and learn("accumulating", 2.0, 0.9, 1001.0, scale=1.02)
    assert learn("accumulating", 2.0, 0.9, 1001.0, step_size=0.7) and learn("accumulating", 1.0, 0.9, 1001.0)
    assert learn("replacing", 2.0, 0.9, 1001.0) and learn("dutch", 2.0, 0.9, 1001.0)


# -- forward views ---------------------------------------------------------------------------------------------------


def offline(weight, rows, step_size, discount, trace_decay):
    """The backward view's updates of one episode, added up while the weights stay as they are."""
    total, trace = np.zeros_like(weight), Traces.empty(len(weight))
    trace.numbers[SCALE] = 1e300
    index, value, offset, reward, next_index, next_value, next_offset, terminated, _ = rows
    for t in range(len(index)):
        w = weight.copy()
        fetch(w, trace)
        phi = Phi(index[t], value[t], offset[t])
        q = read(w, trace, phi)
        future = 0.0 if terminated[t] else read(w, trace, Phi(next_index[t], next_value[t], next_offset[t]))
        rule = Rule(ACCUMULATING, False, len(w), step_size, discount * trace_decay)
        update(w, trace, phi, rule, q, reward[t] + discount * future)
        store(w, trace)
        total += w - weight
    return total


def episode(seed, length=30, terminated=True, **options):
    weight, rows = random_rows(seed, length, end=0.0, **options)
    rows[7][-1], rows[8][-1] = terminated, True
    return weight, rows


@pytest.mark.parametrize("terminated", [True, False])
@pytest.mark.parametrize("trace_decay", [0.0, 0.4, 0.9, 1.0])
def test_offline_forward_view_is_the_backward_view(trace_decay, terminated):
    for seed in range(5):
        weight, rows = episode(seed, terminated=terminated, binary=False)
        index, value, offset, reward, next_index, next_value, next_offset, over, ended = rows
        phi = np.array([dense(len(weight), i + o, v) for i, v, o in zip(index, value, offset, strict=True)])
        successor = zip(next_index, next_value, next_offset, strict=True)
        next_v = np.array([weight @ dense(len(weight), i + o, v) for i, v, o in successor])
        G = lambda_return(*map(torch.tensor, (reward, next_v, over, ended & ~over)), 0.95, trace_decay).numpy()
        forward = 0.1 * ((G - phi @ weight)[:, None] * phi).sum(0)
        np.testing.assert_allclose(offline(weight, rows, 0.1, 0.95, trace_decay), forward, rtol=0, atol=1e-8)


@pytest.mark.parametrize("trace_decay", [0.0, 0.5, 0.9, 1.0])
def test_true_online_td_is_its_online_forward_view_at_every_step(trace_decay):
    """van Seijen et al. 2016, section 4: at every step h the whole episode so far is learned again from interim lambda-returns."""
    step_size, discount = 0.1, 0.95
    for seed in range(3):
        weight, rows = episode(seed, length=15, binary=False)
        index, value, offset, reward, next_index, next_value, next_offset, terminated, _ = rows
        n = len(reward)
        phi = [dense(len(weight), index[t] + offset[t], value[t]) for t in range(n)]
        phi.append(np.zeros(len(weight)))  # the terminal state
        ours = compiled(weight, rows, "dutch", step_size, discount, trace_decay)
        theta = [weight]  # theta[t]: the weights after t steps
        for h in range(1, n + 1):
            w = weight
            for t in range(h):
                n_step, total = [], 0.0
                for k in range(1, h - t + 1):
                    total += discount ** (k - 1) * reward[t + k - 1]
                    n_step.append(total + discount**k * theta[t + k - 1] @ phi[t + k])
                G = sum((1 - trace_decay) * trace_decay**i * g for i, g in enumerate(n_step[:-1]))
                G += trace_decay ** (len(n_step) - 1) * n_step[-1]
                w = w + step_size * (G - w @ phi[t]) * phi[t]
            theta.append(w)
            np.testing.assert_allclose(ours[h - 1], w, rtol=0, atol=1e-8)


def test_td_1_is_every_visit_monte_carlo():
    rng = np.random.default_rng(seeds.seed(0))
    for _ in range(10):
        n = 25
        states, rewards, weight = rng.integers(5, size=n + 1), rng.normal(size=n), rng.normal(size=5)
        expected = np.zeros(5)
        for t in range(n):
            expected[states[t]] += 0.1 * (rewards[t:].sum() - weight[states[t]])
        np.testing.assert_allclose(offline(weight, walk(states, rewards), 0.1, 1.0, 1.0), expected, rtol=0, atol=1e-10)
