"""A small MLP policy without torch: numpy over zero-copy views of the weights. At N = 8 a torch forward is all overhead."""

from __future__ import annotations

import math

import numba
import numpy as np
from torch import nn

from whorl.nets.normalizer import Normalizer
from whorl.policies.distributions import LOG_STD_RANGE, MASKED
from whorl.policies.policy import Actor


@numba.njit(cache=True)
def _categorical(logits, noise, action, log_prob):
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


@numba.njit(cache=True)
def _gaussian(mean, log_std, centre, half, noise, action, log_prob):
    for i in range(mean.shape[0]):
        total = np.float32(0.0)
        for d in range(mean.shape[1]):
            action[i, d] = centre[d] + half[d] * (mean[i, d] + np.exp(log_std[i, d]) * noise[i, d])
            total += -0.5 * noise[i, d] * noise[i, d] - log_std[i, d] - np.log(half[d])
        log_prob[i] = total - np.float32(0.5 * math.log(2 * math.pi)) * mean.shape[1]


def numpy_actor(policy, num_envs: int) -> Actor:
    """An actor equal to `policy.act` to float32 rounding: Box observation, MLP, Categorical or Gaussian (not squashed).

    The arrays it returns live until its next call. The weights are views: an optimizer step in place is seen at once.
    """
    layers = [m for m in policy.encoder.mlp if isinstance(m, nn.Linear)] + [policy.head]
    weights = [layer.weight.detach().numpy().T for layer in layers]
    biases = [layer.bias.detach().numpy() for layer in layers]
    outs = [np.empty((num_envs, len(b)), np.float32) for b in biases]
    relu = policy.encoder.mlp.activation == "relu"
    normalizer = policy.normalizer if isinstance(policy.normalizer, Normalizer) else None
    if normalizer is not None:
        mean, scale, clip = normalizer.mean.numpy(), normalizer.scale.numpy(), normalizer.clip
    inputs = np.empty((num_envs, weights[0].shape[0]), np.float32)
    discrete = policy.sizes is not None
    action = np.empty(num_envs, np.int64) if discrete else np.empty((num_envs, policy.outputs), np.float32)
    log_prob = np.empty(num_envs, np.float32)
    decided = {"action": action, "log_prob": log_prob}
    greedy = np.zeros((num_envs, policy.outputs), np.float32)
    dependent = not discrete and policy.std == "dependent"
    if not discrete:
        own_std = None if dependent else np.broadcast_to(policy.log_std.detach().numpy(), (num_envs, policy.outputs))
        low, high = policy.low.numpy(), policy.high.numpy()
        one = np.ones(policy.outputs, np.float32)
        centre, half = ((low + high) / 2, (high - low) / 2) if policy.scale else (0 * one, one)

    def act(observation, carry, is_first, noise, action_mask=None):
        x = observation.reshape(num_envs, -1)
        if normalizer is not None:
            np.subtract(x, mean.reshape(-1), out=inputs)
            np.multiply(inputs, scale.reshape(-1), out=inputs)
            x = np.clip(inputs, -clip, clip, out=inputs)
        last = len(weights) - 1
        for i, (weight, bias, out) in enumerate(zip(weights, biases, outs, strict=True)):
            np.matmul(x, weight, out=out)
            np.add(out, bias, out=out)
            if i < last:
                np.maximum(out, 0, out=out) if relu else np.tanh(out, out=out)
            x = out
        noise = greedy if noise is None else noise
        if discrete:
            if action_mask is not None:
                np.copyto(x, np.float32(MASKED), where=~action_mask)
            _categorical(x, noise, action, log_prob)
        else:
            log_std = x[:, policy.outputs :].clip(*LOG_STD_RANGE) if dependent else own_std
            x = x[:, : policy.outputs]
            if policy.mean == "tanh":
                np.tanh(x, out=x)
            _gaussian(x, log_std, centre, half, noise, action, log_prob)
        return decided, carry

    return act
