"""Losses and their derivative by a network's outputs, row by row, in numba: twins of what agents write in torch.

Each takes float32 outputs [n, ...] and the rows' columns, overwrites what it is told to, and adds its sums to `sums`. `weight` [n] is
what a row counts: 1 / n, or 0 where its `mask` is False. Such a row may hold anything, and gives nothing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from whorl.jit import jit

Rows = np.ndarray
FAST = {"contract", "arcp", "nsz", "reassoc"}  # of LLVM; never "nnan" or "ninf": what is not finite must be seen
HALF_LOG_2PI = np.float32(0.5 * math.log(2 * math.pi))
LOG_2 = np.float32(math.log(2))
PLAIN, SQUASHED = 0, 1  # kinds of Gaussian


@jit(fastmath=FAST, error_model="numpy")
def mean_and_scale(x: Rows, mask: Rows, moments: Rows) -> None:
    """moments <- (mean, 1 / (std + 1e-8)) of x [n] over the rows of `mask` [n]: what `standardise` subtracts and multiplies by."""
    total, count = 0.0, 0
    for i in range(len(x)):
        if mask[i]:
            total += x[i]
            count += 1
    count = max(count, 1)
    mean, square = total / count, 0.0
    for i in range(len(x)):
        if mask[i]:
            square += (x[i] - mean) ** 2
    moments[0] = mean
    moments[1] = 1 / (math.sqrt(square / count) + 1e-8)


@jit(fastmath=FAST, error_model="numpy")
def categorical_score(
    logits: Rows, sizes: Rows, allowed: Rows, masked: np.float32, action: Rows, weight: Rows, log_prob: Rows, entropy: Rows
) -> None:  # fmt: skip
    """Independent choices, `sizes` [K] of them, action [n, K]: their log-probability and entropy [n], summed over the choices.

    logits [n, sum(sizes)] become those of the softmax, log p; what `allowed` (of their shape, or of no rows) forbids is `masked` first.
    """
    for i in range(len(logits)):
        log_prob[i] = entropy[i] = np.float32(0)
        if weight[i] == 0:
            continue
        start = 0
        for k in range(len(sizes)):
            stop = start + sizes[k]
            if len(allowed):
                for a in range(start, stop):
                    if not allowed[i, a]:
                        logits[i, a] = masked
            top = logits[i, start]
            for a in range(start + 1, stop):
                top = logits[i, a] if logits[i, a] > top else top
            total = np.float32(0)
            for a in range(start, stop):
                total += np.exp(logits[i, a] - top)
            shift = top + np.log(total)
            for a in range(start, stop):
                logits[i, a] -= shift
                entropy[i] -= np.exp(logits[i, a]) * logits[i, a]
            log_prob[i] += logits[i, start + action[i, k]]
            start = stop


@jit(fastmath=FAST, error_model="numpy")
def categorical_gradient(
    log_p: Rows, sizes: Rows, allowed: Rows, action: Rows, d_log_prob: Rows, entropy_weight: float, weight: Rows
) -> None:  # fmt: skip
    """log_p <- d_log_prob * d log pi(a) - entropy_weight * weight * d entropy, by the logits. Where pi = softmax and a choice is k:

    d log pi(k) / d logit_a = [a = k] - p_a;  d entropy / d logit_a = -p_a (log p_a + entropy). Forbidden logits get 0.
    """
    for i in range(len(log_p)):
        pull = np.float32(entropy_weight) * weight[i]
        start = 0
        for k in range(len(sizes)):
            stop, entropy = start + sizes[k], np.float32(0)
            if weight[i] == 0:
                for a in range(start, stop):
                    log_p[i, a] = np.float32(0)
                start = stop
                continue
            if pull != 0:
                for a in range(start, stop):
                    entropy -= np.exp(log_p[i, a]) * log_p[i, a]
            for a in range(start, stop):
                p = np.exp(log_p[i, a])
                d = -d_log_prob[i] * p
                if pull != 0:
                    d += pull * p * (log_p[i, a] + entropy)
                if a == start + action[i, k]:
                    d += d_log_prob[i]
                log_p[i, a] = d
            if len(allowed):
                for a in range(start, stop):
                    if not allowed[i, a]:
                        log_p[i, a] = np.float32(0)
            start = stop


@jit(fastmath=FAST, error_model="numpy")
def _slope(u: np.float32) -> np.float32:
    """log(1 - tanh(u)^2), in the form that does not lose digits for large |u|."""
    x = np.float32(-2) * u
    softplus = x if x > np.float32(20) else np.log1p(np.exp(x))
    return np.float32(2) * (LOG_2 - u - softplus)


@jit(fastmath=FAST, error_model="numpy")
def gaussian_score(
    mean: Rows, log_std: Rows, kind: int, centre: Rows, half: Rows, limit: float, nodes: Rows, weights: Rows, action: Rows, weight: Rows,
    z: Rows, log_prob: Rows, entropy: Rows,
) -> None:  # fmt: skip
    """Diagonal normals, mean and log_std [n, D], around `centre` in units of `half` [D]: log-density and entropy [n] of action [n, D].

    z <- (x - mean) / std, where x is the action in those units; SQUASHED: atanh of it, held `limit` away from the bounds. The entropy
    behind the tanh has no closed form: the quadrature of `nodes` and `weights`, for N(0, 1).
    """
    one, hold = np.float32(1), np.float32(limit)
    for i in range(len(mean)):
        log_prob[i] = entropy[i] = np.float32(0)
        if weight[i] == 0:
            continue
        for d in range(mean.shape[1]):
            x = (action[i, d] - centre[d]) / half[d]
            inner = np.float32(0)
            if kind == SQUASHED:
                x = hold if x > hold else x
                x = -hold if x < -hold else x
                x = np.arctanh(x)
                inner = _slope(x)
                expected, std = np.float32(0), np.exp(log_std[i, d])
                for k in range(len(nodes)):
                    expected += weights[k] * _slope(mean[i, d] + std * nodes[k])
                entropy[i] += expected
            own = (x - mean[i, d]) * np.exp(-log_std[i, d])
            z[i, d] = own
            outer = np.log(half[d])
            log_prob[i] += np.float32(-0.5) * own * own - log_std[i, d] - HALF_LOG_2PI - inner - outer
            entropy[i] += log_std[i, d] + HALF_LOG_2PI + np.float32(0.5) * one + outer


@jit(fastmath=FAST, error_model="numpy")
def gaussian_gradient(
    mean: Rows, log_std: Rows, kind: int, nodes: Rows, weights: Rows, z: Rows, d_log_prob: Rows, entropy_weight: float, weight: Rows,
    d_mean: Rows, d_log_std: Rows,
) -> None:  # fmt: skip
    """d_log_prob * d log_prob - entropy_weight * weight * d entropy, by mean and log_std [n, D], from the z of `gaussian_score`:

    d log_prob / d mean = z / std, / d log_std = z^2 - 1;  d entropy / d log_std = 1, and of SQUASHED, where the slope's derivative is
    -2 tanh(u), E[-2 tanh(u)] more by the mean and E[-2 tanh(u) std n] by log_std, u = mean + std n.
    """
    one = np.float32(1)
    for i in range(len(mean)):
        pull = np.float32(entropy_weight) * weight[i]
        for d in range(mean.shape[1]):
            if weight[i] == 0:
                d_mean[i, d] = d_log_std[i, d] = np.float32(0)
                continue
            by_mean, by_log_std = np.float32(0), one
            if kind == SQUASHED and pull != 0:
                std = np.exp(log_std[i, d])
                for k in range(len(nodes)):
                    slope = np.float32(-2) * weights[k] * np.tanh(mean[i, d] + std * nodes[k])
                    by_mean += slope
                    by_log_std += slope * std * nodes[k]
            d_mean[i, d] = d_log_prob[i] * z[i, d] * np.exp(-log_std[i, d]) - pull * by_mean
            d_log_std[i, d] = d_log_prob[i] * (z[i, d] * z[i, d] - one) - pull * by_log_std


POLICY, CRITIC, ENTROPY, KL, CLIPPED = range(5)  # places in `sums`


@jit(fastmath=FAST, error_model="numpy")
def clipped_surrogate(
    log_prob: Rows, entropy: Rows, old: Rows, advantage: Rows, moments: Rows, clip_range: float, weight: Rows, scale: float, d: Rows,
    sums: Rows,
) -> None:  # fmt: skip
    """d <- scale * weight * d(-min(r A, clip(r, 1 - e, 1 + e) A)) / d log_prob, r = exp(log_prob - old), A = (advantage - m0) * m1.

    sums: of -min(...), the entropy, KL(old || new) by r - 1 - log r (http://joschu.net/blog/kl-approx.html, k3), and |r - 1| > e.
    """
    one, e, by = np.float32(1), np.float32(clip_range), np.float32(scale)
    for i in range(len(log_prob)):
        w = weight[i]
        if w == 0:
            d[i] = np.float32(0)
            continue
        log_ratio = log_prob[i] - old[i]
        ratio = np.exp(log_ratio)
        near = one - e if ratio < one - e else ratio
        near = one + e if near > one + e else near
        a = (advantage[i] - moments[0]) * moments[1]
        free, held = ratio * a, near * a
        least = held if held < free else free
        d[i] = -by * w * free if near == ratio or not held < free else np.float32(0)
        sums[POLICY] -= w * least
        sums[ENTROPY] += w * entropy[i]
        sums[KL] += w * (math.expm1(log_ratio) - log_ratio)  # in float64: near 0 little is left of float32
        sums[CLIPPED] += w if abs(ratio - one) > e else np.float32(0)


@jit(fastmath=FAST, error_model="numpy")
def score_function(
    log_prob: Rows, entropy: Rows, advantage: Rows, weight: Rows, scale: float, d: Rows, sums: Rows
) -> None:
    """d <- scale * weight * d(-log_prob A) / d log_prob; sums: of -log_prob A and the entropy. Williams 1992."""
    for i in range(len(log_prob)):
        w = weight[i]
        if w == 0:
            d[i] = np.float32(0)
            continue
        d[i] = -np.float32(scale) * w * advantage[i]
        sums[POLICY] -= w * log_prob[i] * advantage[i]
        sums[ENTROPY] += w * entropy[i]


@jit(fastmath=FAST, error_model="numpy")
def value_loss(value: Rows, old: Rows, target: Rows, clip_range: float, weight: Rows, scale: float, sums: Rows) -> None:
    """value [n, 1] <- scale * weight * d loss / d value; sums: of the loss, (value - target)^2 / 2, or where clip_range is above 0 the
    larger of it and the same of old + clip(value - old, -+clip_range)."""
    e, by, half = np.float32(clip_range), np.float32(scale), np.float32(0.5)
    for i in range(len(value)):
        w, v = weight[i], value[i, 0]
        if w == 0:
            value[i, 0] = np.float32(0)
            continue
        error = v - target[i]
        loss, d = half * error * error, error
        if e > 0:
            moved = v - old[i]
            held = e if moved > e else moved
            held = -e if held < -e else held
            other = old[i] + held - target[i]
            if half * other * other > loss:
                loss, d = half * other * other, (other if held == moved else np.float32(0))
        value[i, 0] = by * w * d
        sums[CRITIC] += w * loss


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
