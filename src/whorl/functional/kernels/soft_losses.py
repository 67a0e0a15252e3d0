"""Squashed actions, values of pairs and their derivatives, row by row, in numba: twins of SAC, TD3 and DDPG in torch. See `row_losses`."""

from __future__ import annotations

import math

import numpy as np

from whorl.jit import FAST, jit

Rows = np.ndarray
CONSTANT = np.float32(0.5 * math.log(2 * math.pi) + 2 * math.log(2))


@jit(fastmath=FAST, error_model="numpy")
def squash(
    output: Rows, noise: Rows, low: float, high: float, centre: Rows, half: Rows, action: Rows, unit: Rows, log_prob: Rows
) -> None:  # fmt: skip
    """unit <- tanh(u), action <- centre + half * unit [n, D], u = mean + std * noise; log_prob [n] <- the log-density of unit.

    output [n, 2 D]: mean, and log std, which is held from low to high. Haarnoja et al. 2018, appendix C; see
    `SquashedGaussian.unit_sample`.
    """
    least, most, two = np.float32(low), np.float32(high), np.float32(2)
    for i in range(len(noise)):
        total = np.float32(0)
        for d in range(noise.shape[1]):
            log_std = output[i, noise.shape[1] + d]
            log_std = least if log_std < least else log_std
            log_std = most if log_std > most else log_std
            z = noise[i, d]
            u = output[i, d] + np.exp(log_std) * z
            x = -two * u
            softplus = x if x > np.float32(20) else np.log1p(np.exp(x))
            total += two * (u + softplus) - np.float32(0.5) * z * z - log_std - CONSTANT
            unit[i, d] = np.tanh(u)
            action[i, d] = centre[d] + half[d] * unit[i, d]
        log_prob[i] = total


@jit(fastmath=FAST, error_model="numpy")
def squash_gradient(
    output: Rows, noise: Rows, low: float, high: float, half: Rows, unit: Rows, d_action: Rows, d_log_prob: Rows, d: Rows
) -> None:  # fmt: skip
    """d [n, 2 D] <- the gradient by `output` of sum d_action * action + sum d_log_prob * log_prob, as `squash` gave them:

    by u: d_action * half * (1 - unit^2) + d_log_prob * 2 unit; by the mean the same; by log std: that * std * noise - d_log_prob.
    """
    least, most, one = np.float32(low), np.float32(high), np.float32(1)
    size = noise.shape[1]
    for i in range(len(noise)):
        for k in range(size):
            y, log_std = unit[i, k], output[i, size + k]
            by_u = d_action[i, k] * half[k] * (one - y * y) + d_log_prob[i] * np.float32(2) * y
            d[i, k] = by_u
            inside = log_std >= least and log_std <= most
            d[i, size + k] = by_u * np.exp(log_std) * noise[i, k] - d_log_prob[i] if inside else np.float32(0)


@jit(fastmath=FAST, error_model="numpy")
def squared(
    q: Rows, value: Rows, reward: Rows, terminated: Rows, discount: Rows, weight: Rows, counted: Rows, scale: float, error: Rows, sums: Rows
) -> None:  # fmt: skip
    """q [E, n] <- scale * counted * d loss / d q, where loss = sum_e (q_e - target)^2 / 2, target = reward + discount * (1 - terminated)
    * value; error [n] <- the largest |q_e - target|. sums: of the loss by `counted`, and of q by `weight`, over the members' mean."""
    members = q.shape[0]
    for i in range(q.shape[1]):
        target = reward[i] if terminated[i] else reward[i] + discount[i] * value[i]
        largest, loss, total = np.float32(0), np.float32(0), np.float32(0)
        for e in range(members):
            apart = q[e, i] - target
            size = abs(apart)
            largest = size if size > largest or size != size else largest
            loss += np.float32(0.5) * apart * apart
            total += q[e, i]
            q[e, i] = np.float32(scale) * counted[i] * apart if weight[i] != 0 else np.float32(0)
        error[i] = largest
        if weight[i] != 0:
            sums[0] += counted[i] * loss
            sums[1] += weight[i] * total / np.float32(members)


@jit(fastmath=FAST, error_model="numpy")
def least(q: Rows, log_prob: Rows, alpha: float, weight: Rows, counted: Rows, scale: float, sums: Rows) -> None:
    """q [E, n] <- scale * counted * d loss / d q, where loss = alpha * log_prob - min_e q_e.

    sums: of the loss by `counted`, of the entropy -log_prob by `weight`, and by `counted`.
    """
    for i in range(q.shape[1]):
        first = 0
        for e in range(1, q.shape[0]):
            if q[e, i] < q[first, i] or (q[e, i] != q[e, i] and q[first, i] == q[first, i]):
                first = e
        lowest = q[first, i]
        for e in range(q.shape[0]):
            q[e, i] = -np.float32(scale) * counted[i] if e == first and weight[i] != 0 else np.float32(0)
        if weight[i] != 0:
            sums[0] += counted[i] * (np.float32(alpha) * log_prob[i] - lowest)
            sums[1] -= weight[i] * log_prob[i]
            sums[2] -= counted[i] * log_prob[i]
