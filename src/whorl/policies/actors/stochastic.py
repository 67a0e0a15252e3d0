"""The fast twin of `Stochastic`: equal to its `act` but for float32 rounding."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from whorl.jit import jit
from whorl.policies.actors.mlp import Given, Memory, Network, Rows
from whorl.policies.distributions import LOG_STD_RANGE, MASKED
from whorl.policies.policy import Acted, Actor


@jit
def _categorical(logits: Rows, noise: Rows, action: Rows, log_prob: Rows) -> None:
    """Row by row: argmax of logits + noise, and its log-softmax."""
    for i in range(logits.shape[0]):
        best, score, top = 0, -np.inf, -np.inf
        for a in range(logits.shape[1]):
            top = max(top, logits[i, a])
            s = logits[i, a] + noise[i, a]
            if s > score:
                best, score = a, s
        total = np.float32(0.0)
        for a in range(logits.shape[1]):
            total += np.exp(logits[i, a] - top)
        action[i] = best
        log_prob[i] = logits[i, best] - top - np.log(total)


@jit
def _gaussian(mean: Rows, log_std: Rows, centre: Rows, half: Rows, noise: Rows, action: Rows, log_prob: Rows) -> None:
    for i in range(mean.shape[0]):
        total = np.float32(0.0)
        for d in range(mean.shape[1]):
            action[i, d] = centre[d] + half[d] * (mean[i, d] + np.exp(log_std[i, d]) * noise[i, d])
            total += -0.5 * noise[i, d] * noise[i, d] - log_std[i, d] - np.log(half[d])
        log_prob[i] = total - np.float32(0.5 * math.log(2 * math.pi)) * mean.shape[1]


def categorical(network: Network, actions: int, num_envs: int) -> Actor:
    """For Discrete actions."""
    action, log_prob = np.empty(num_envs, np.int64), np.empty(num_envs, np.float32)
    greedy = np.zeros((num_envs, actions), np.float32)
    decided: Mapping[str, Rows] = {"action": action, "log_prob": log_prob}

    def act(observation: Rows, carry: Memory, is_first: Rows, noise: Given, action_mask: Given = None) -> Acted:
        _, logits = network(observation)
        if action_mask is not None:
            np.copyto(logits, np.float32(MASKED), where=~action_mask)
        _categorical(logits, greedy if noise is None else noise, action, log_prob)
        return decided, carry

    return act


def gaussian(
    network: Network, low: Rows, high: Rows, num_envs: int, log_std: Rows | None, tanh: bool, scale: bool
) -> Actor:
    """For a Box, not squashed. log_std None: the network's second output."""
    outputs = len(low)
    centre, half = ((low + high) / 2, (high - low) / 2) if scale else (np.zeros_like(low), np.ones_like(low))
    own = None if log_std is None else np.broadcast_to(log_std, (num_envs, outputs))
    action, greedy = np.empty((num_envs, outputs), np.float32), np.zeros((num_envs, outputs), np.float32)
    log_prob = np.empty(num_envs, np.float32)
    decided = {"action": action, "log_prob": log_prob}

    def act(observation: Rows, carry: Memory, is_first: Rows, noise: Given, action_mask: Given = None) -> Acted:
        _, output = network(observation)
        mean, spread = output[:, :outputs], output[:, outputs:].clip(*LOG_STD_RANGE) if own is None else own
        if tanh:
            np.tanh(mean, out=mean)
        _gaussian(mean, spread, centre, half, greedy if noise is None else noise, action, log_prob)
        return decided, carry

    return act
