"""The fast twins of `Squashed`: equal to its `act` but for float32 rounding."""

from __future__ import annotations

import math

import numpy as np

from whorl.jit import jit
from whorl.policies.actors.mlp import Given, Memory, Network, Rows
from whorl.policies.distributions import LOG_STD_RANGE, SDE_MEAN, SquashedGaussian
from whorl.policies.policy import Acted, Actor

LIMIT = np.float32(SquashedGaussian.LIMIT)


@jit
def _squashed(
    mean: Rows, log_std: Rows, low: Rows, high: Rows, noise: Rows, warming: bool, limit: np.float32, action: Rows
) -> None:  # fmt: skip
    """squash(mean + exp(log_std) * noise), or uniform by the same noise while warming."""
    for i in range(mean.shape[0]):
        for d in range(mean.shape[1]):
            if warming:
                z = np.float32(math.erf(noise[i, d] * math.sqrt(0.5)))
            else:
                z = np.tanh(mean[i, d] + np.exp(log_std[i, d]) * noise[i, d])
                z = min(max(z, -limit), limit)
            action[i, d] = low[d] + (high[d] - low[d]) / 2 * (z + 1)


@jit
def _sde(features: Rows, log_std: Rows, matrix: Rows, offset: Rows) -> None:
    """offset[i] = features[i] @ (exp(log_std) * matrix[i]); log_std [F, D], matrix [N, F * D]."""
    width, outputs = log_std.shape
    offset[:] = 0
    for i in range(len(features)):
        for f in range(width):
            for d in range(outputs):
                offset[i, d] += features[i, f] * np.exp(log_std[f, d]) * matrix[i, f * outputs + d]


def squashed(network: Network, low: Rows, high: Rows, warming: Rows, num_envs: int) -> Actor:
    """With mean and log std from the network. `warming` is looked at in every call."""
    outputs = len(low)
    action, zeros = np.empty((num_envs, outputs), np.float32), np.zeros((num_envs, outputs), np.float32)
    decided = {"action": action}

    def act(observation: Rows, carry: Memory, is_first: Rows, noise: Given, action_mask: Given = None) -> Acted:
        _, output = network(observation)
        mean = output[:, :outputs]
        if noise is None:
            _squashed(mean, zeros, low, high, zeros, False, LIMIT, action)
        else:
            _squashed(mean, output[:, outputs:].clip(*LOG_STD_RANGE), low, high, noise, bool(warming), LIMIT, action)
        return decided, carry

    return act


def sde(
    network: Network, low: Rows, high: Rows, warming: Rows, num_envs: int, log_std: Rows, every: int
) -> Actor:  # fmt: skip
    """With state-dependent exploration: matrices of log_std [width, D], held for `every` steps (0: to the episode's end)."""
    action, zeros, offset = (np.zeros((num_envs, len(low)), np.float32) for _ in range(3))
    decided = {"action": action}

    def act(observation: Rows, carry: Memory, is_first: Rows, noise: Given, action_mask: Given = None) -> Acted:
        features, mean = network(observation)
        np.clip(mean, -SDE_MEAN, SDE_MEAN, out=mean)
        if noise is None:
            _squashed(mean, zeros, low, high, zeros, False, LIMIT, action)
            return decided, carry
        held, matrix = np.asarray(carry["held"]), np.asarray(carry["exploration"])
        renew = is_first | (held >= every) if every else is_first
        if renew.any():
            matrix = np.where(renew[:, None], noise, matrix)
        if warming:
            _squashed(mean, zeros, low, high, noise, True, LIMIT, action)
        else:
            _sde(features, log_std, matrix, offset)
            _squashed(mean, zeros, low, high, offset, False, LIMIT, action)
        return decided, {"exploration": matrix, "held": np.where(renew, 1, held + 1)}

    return act
