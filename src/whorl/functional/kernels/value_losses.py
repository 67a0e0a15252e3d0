"""Losses of action values and their derivatives, row by row, in numba: twins of what agents write in torch. See `row_losses`."""

from __future__ import annotations

from typing import Any

import numpy as np

from whorl.jit import FAST, jit

Rows = np.ndarray
LOSS, VALUE, ERROR = range(3)  # places in `sums` of what follows


@jit(fastmath=FAST, error_model="numpy")
def first_best(scores: Rows, allowed: Rows, i: int) -> int:
    """The first argmax of scores [A] among what row i of `allowed` [n, A] (of no rows: everything) allows. A NaN wins, as in torch."""
    best, top = 0, np.float32(-np.inf)
    for a in range(len(scores)):
        x = scores[a] if not len(allowed) or allowed[i, a] else np.float32(-np.inf)
        if x > top or (x != x and top == top):
            best, top = a, x
    return best


@jit(fastmath=FAST, error_model="numpy")
def td(
    q: Rows, next_q: Rows, chooser: Rows, allowed: Rows, action: Rows, reward: Rows, terminated: Rows, discount: Rows, weight: Rows,
    importance: Rows, scale: float, error: Rows, sums: Rows, threshold: float,
) -> None:  # fmt: skip
    """q [n, A] <- scale * weight * importance * d loss / d q, where loss = huber(q(s, a) - target, threshold) and

    target = reward + discount * (1 - terminated) * next_q(s', argmax_a chooser(s', a)) over the allowed a.
    error [n] <- |target - q(s, a)|. sums: of the loss, importance included, of q(s, a) and of the error, by weight.
    """
    most, half = np.float32(threshold), np.float32(0.5)
    for i in range(len(q)):
        k = action[i]
        target = reward[i]
        if not terminated[i]:
            target += discount[i] * next_q[i, first_best(chooser[i], allowed, i)]
        value, w = q[i, k], weight[i]
        apart = value - target
        size = abs(apart)
        error[i] = size
        held = most if apart > most else apart
        held = -most if held < -most else held
        q[i] = np.float32(0)
        if w == 0:
            continue
        q[i, k] = np.float32(scale) * w * importance[i] * held
        loss = half * apart * apart if not size > most else most * (size - half * most)
        sums[LOSS] += w * importance[i] * loss
        sums[VALUE] += w * value
        sums[ERROR] += w * size


@jit(fastmath=FAST, error_model="numpy")
def exp(x: Any) -> Any:
    """exp of a float32 of at most 0, off by 1e-7 of itself; a loop over it is vectorised, which one over the C library's is not.

    (Taylor's series of x / 256) ^ 256, in float64 so that squaring eight times loses nothing.
    """
    wide: Any = np.float64(x)
    y = (-104.0 if wide < -104.0 else wide) / 256  # below, float32 has 0; a NaN stays one
    p = 1 + y / 8 * (1 + y / 9)
    p = 1 + y / 6 * (1 + y / 7 * p)
    p = 1 + y / 4 * (1 + y / 5 * p)
    p = 1 + y * (1 + y / 2 * (1 + y / 3 * p))
    for _ in range(8):
        p *= p
    return np.float32(p)


@jit(fastmath=FAST, error_model="numpy")
def softmax(x: Rows, out: Rows) -> np.float32:
    """out [K] <- softmax(x); returns log sum exp(x)."""
    top, total = x[0], np.float32(0)
    for k in range(len(x)):
        top = x[k] if x[k] > top or x[k] != x[k] else top
    for k in range(len(x)):
        out[k] = exp(x[k] - top)
        total += out[k]
    for k in range(len(x)):
        out[k] /= total
    return top + np.log(total)


@jit(fastmath=FAST, error_model="numpy")
def categorical_td(
    logits: Rows, next_logits: Rows, chooser: Rows, allowed: Rows, action: Rows, reward: Rows, terminated: Rows, discount: Rows,
    weight: Rows, importance: Rows, scale: float, error: Rows, sums: Rows, support: Rows,
) -> None:  # fmt: skip
    """logits [n, A * K] <- scale * weight * importance * d loss / d logits, where loss = -sum_k p_k log softmax(logits(s, a))_k

    and p is the distribution of reward + discount * (1 - terminated) * Z(s', a') put back onto the atoms `support` [K]
    (`categorical_projection`), a' the allowed action with the largest mean under `chooser`. error [n] <- KL(p || prediction), at least 0.
    sums: of the loss, importance included, of the mean of Z(s, a), and of the divergence, by weight. Bellemare et al. 2017, algorithm 1.
    """
    atoms = len(support)
    actions, last = logits.shape[1] // atoms, np.float32(atoms - 1)
    p, there, here = np.empty(atoms, np.float32), np.empty(atoms, np.float32), np.empty(atoms, np.float32)
    scores, spread = np.empty(actions, np.float32), last / (support[-1] - support[0])
    for i in range(len(logits)):
        for a in range(actions):
            softmax(chooser[i, a * atoms : (a + 1) * atoms], here)
            scores[a] = np.float32(0)
            for k in range(atoms):
                scores[a] += here[k] * support[k]
        best, taken = first_best(scores, allowed, i) * atoms, action[i] * atoms
        softmax(next_logits[i, best : best + atoms], there)
        p[:] = np.float32(0)
        kept = np.float32(0) if terminated[i] else discount[i]
        for k in range(atoms):
            place = (reward[i] + kept * support[k] - support[0]) * spread
            place = np.float32(0) if place < 0 else place
            place = last if place > last else place
            floor = np.floor(place)
            share, below = place - floor, int(floor) if floor == floor else 0
            above = min(below + 1, atoms - 1)
            p[below] += there[k] * (np.float32(1) - share)
            p[above] += there[k] * share
        shift = softmax(logits[i, taken : taken + atoms], here)
        loss, divergence, mean, mass, w = np.float32(0), np.float32(0), np.float32(0), np.float32(0), weight[i]
        for k in range(atoms):
            loss -= p[k] * (logits[i, taken + k] - shift)
            divergence += p[k] * np.log(p[k]) if p[k] > 0 else np.float32(0) * p[k]
            mean += here[k] * support[k]
            mass += p[k]
        divergence += loss
        error[i] = np.float32(0) if divergence < 0 else divergence
        logits[i] = np.float32(0)
        if w == 0:
            continue
        by = np.float32(scale) * w * importance[i]
        for k in range(atoms):
            logits[i, taken + k] = by * (mass * here[k] - p[k])
        sums[LOSS] += w * importance[i] * loss
        sums[VALUE] += w * mean
        sums[ERROR] += w * divergence


@jit(fastmath=FAST, error_model="numpy")
def quantile_td(
    quantiles: Rows, next_quantiles: Rows, chooser: Rows, allowed: Rows, action: Rows, reward: Rows, terminated: Rows, discount: Rows,
    weight: Rows, importance: Rows, scale: float, error: Rows, sums: Rows, count: int, threshold: float,
) -> None:  # fmt: skip
    """quantiles [n, A * N] <- scale * weight * importance * d loss / d quantiles, where, with u_ij = target_j - quantile_i(s, a),

    loss = sum_i mean_j |tau_i - 1(u_ij < 0)| huber(u_ij, threshold) / threshold, tau_i = (i + 1/2) / N, and target is reward +
    discount * (1 - terminated) * quantiles(s', a'), a' the allowed action with the largest mean under `chooser`; threshold 0: |u|.
    error [n] <- |mean target - mean quantile|. sums: of the loss, importance included, of the mean quantile, and of the error, by
    weight. Dabney et al. 2018a, eq. 10.
    """
    one, half, most, sharp = np.float32(1), np.float32(0.5), np.float32(threshold), threshold == 0
    actions, each = quantiles.shape[1] // count, np.float32(1) / np.float32(count)
    unit = one if sharp else most
    scores, target, d = np.empty(actions, np.float32), np.empty(count, np.float32), np.empty(count, np.float32)
    for i in range(len(quantiles)):
        for a in range(actions):
            scores[a] = chooser[i, a * count : (a + 1) * count].sum()
        best, taken = first_best(scores, allowed, i) * count, action[i] * count
        hoped, value, loss, w = np.float32(0), np.float32(0), np.float32(0), weight[i]
        for j in range(count):
            target[j] = reward[i] if terminated[i] else reward[i] + discount[i] * next_quantiles[i, best + j]
            hoped += target[j]
            value += quantiles[i, taken + j]
        for k in range(count):
            own, tau = quantiles[i, taken + k], (np.float32(k) + half) * each
            pull, part = np.float32(0), np.float32(0)
            for j in range(count):
                u = target[j] - own
                tilt = one - tau if u < 0 else tau
                size = abs(u)
                near = half * size * size
                far = most * (size - half * most)
                slope = u if size <= most else (most if u > 0 else -most)
                slope = (one if u > 0 else (-one if u < 0 else u)) if sharp else slope
                part += tilt * (size if sharp else (far if size > most else near))
                pull += tilt * slope
            loss += part
            d[k] = -pull * each / unit
        loss *= each / unit
        size = abs(hoped - value) * each
        error[i] = size
        quantiles[i] = np.float32(0)
        if w == 0:
            continue
        for k in range(count):
            quantiles[i, taken + k] = np.float32(scale) * w * importance[i] * d[k]
        sums[LOSS] += w * importance[i] * loss
        sums[VALUE] += w * value * each
        sums[ERROR] += w * size
