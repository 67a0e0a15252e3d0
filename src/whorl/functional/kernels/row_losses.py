"""Losses and their derivative by a network's outputs, row by row, in numba: twins of what agents write in torch.

Each takes float32 outputs [n, ...] and the rows' columns, overwrites what it is told to, and adds its sums to `sums`. `weight` [n] is
what a row counts: 1 / n, or 0 where its `mask` is False. Such a row may hold anything, and gives nothing.
"""

from __future__ import annotations

import math

import numpy as np

from whorl.jit import FAST, jit

Rows = np.ndarray
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
    logits: Rows, p: Rows, sizes: Rows, allowed: Rows, masked: np.float32, action: Rows, weight: Rows, log_prob: Rows, entropy: Rows
) -> None:  # fmt: skip
    """Independent choices, `sizes` [K] of them, action [n, K]: their log-probability and entropy [n], summed over the choices.

    logits [n, sum(sizes)] become log p, p <- the softmax; what `allowed` (of their shape, or of no rows) forbids is `masked` first.
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
                p[i, a] = np.exp(logits[i, a] - top)
                total += p[i, a]
            shift = top + np.log(total)
            for a in range(start, stop):
                logits[i, a] -= shift
                p[i, a] /= total
                entropy[i] -= p[i, a] * logits[i, a]
            log_prob[i] += logits[i, start + action[i, k]]
            start = stop


@jit(fastmath=FAST, error_model="numpy")
def categorical_gradient(
    log_p: Rows, p: Rows, sizes: Rows, allowed: Rows, action: Rows, d_log_prob: Rows, entropy_weight: float, weight: Rows
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
                    entropy -= p[i, a] * log_p[i, a]
            for a in range(start, stop):
                d = -d_log_prob[i] * p[i, a]
                if pull != 0:
                    d += pull * p[i, a] * (log_p[i, a] + entropy)
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
            spread = z[i, d] * z[i, d] - one if d_log_prob[i] != 0 else np.float32(0)  # which may be infinite
            d_log_std[i, d] = d_log_prob[i] * spread - pull * by_log_std


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
