"""A small MLP policy without torch: numpy over zero-copy views of the weights. At N = 8 a torch forward is all overhead."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numba
import numpy as np
from torch import nn

from whorl.nets.normalizer import Normalizer, ObservationNormalizer
from whorl.policies.distributions import LOG_STD_RANGE, MASKED, SDE_MEAN, SquashedGaussian
from whorl.policies.policy import Actor

THETA, DT = 0.15, 1e-2  # of Ornstein-Uhlenbeck noise: pull to 0, and the length of a step, as in baselines' code


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


def numpy_mlp(
    modules: Iterable[nn.Module], activation: str, num_envs: int
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """x [N, inputs] -> (what the last layer sees, its output): the linear layers among `modules`, `activation` between them.

    The arrays live until its next call. The weights are views: an optimizer step in place is seen at once.
    """
    layers = [module for module in modules if isinstance(module, nn.Linear)]
    weights = [layer.weight.detach().numpy().T for layer in layers]
    biases = [layer.bias.detach().numpy() for layer in layers]
    outs = [np.empty((num_envs, len(bias)), np.float32) for bias in biases]
    steps, last, relu = list(zip(weights, biases, outs, strict=True)), outs[-1], activation == "relu"

    def forward(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        features = x
        for weight, bias, out in steps:
            features = x
            np.matmul(x, weight, out=out)
            np.add(out, bias, out=out)
            if out is not last:
                np.maximum(out, 0, out=out) if relu else np.tanh(out, out=out)
            x = out
        return features, x

    return forward


def numpy_network(
    normalizer: ObservationNormalizer, modules: Iterable[nn.Module], activation: str, num_envs: int
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """observation [N, ...] -> what `numpy_mlp` of these modules gives for it, normalized and flat."""
    mlp = numpy_mlp(modules, activation, num_envs)
    if isinstance(normalizer, Normalizer):
        mean, scale, clip = normalizer.mean.numpy(), normalizer.scale.numpy(), normalizer.clip
        inputs = np.empty((num_envs, mean.size), np.float32)

    def forward(observation):
        x = observation.reshape(num_envs, -1)
        if isinstance(normalizer, Normalizer):
            np.subtract(x, mean.reshape(-1), out=inputs)
            np.multiply(inputs, scale.reshape(-1), out=inputs)
            x = np.clip(inputs, -clip, clip, out=inputs)
        return mlp(x)

    return forward


def _network(policy, num_envs):
    return numpy_network(policy.normalizer, [*policy.encoder.mlp, policy.head], policy.encoder.mlp.activation, num_envs)


def numpy_actor(policy, num_envs: int) -> Actor:
    """An actor equal to `policy.act` to float32 rounding: Box observation, MLP, Categorical or Gaussian (not squashed)."""
    network = _network(policy, num_envs)
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
        _, x = network(observation)
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


@numba.njit(cache=True)
def _squashed(mean, log_std, low, high, noise, warming, limit, action):
    """squash(mean + exp(log_std) * noise), or uniform by the same noise while warming."""
    for i in range(mean.shape[0]):
        for d in range(mean.shape[1]):
            if warming:
                z = np.float32(math.erf(noise[i, d] * math.sqrt(0.5)))
            else:
                z = np.tanh(mean[i, d] + np.exp(log_std[i, d]) * noise[i, d])
                z = min(max(z, -limit), limit)
            action[i, d] = low[d] + (high[d] - low[d]) / 2 * (z + 1)


@numba.njit(cache=True)
def _sde(features, log_std, matrix, offset):
    """offset[i] = features[i] @ (exp(log_std) * matrix[i]); log_std [F, D], matrix [N, F * D]."""
    width, outputs = log_std.shape
    offset[:] = 0
    for i in range(len(features)):
        for f in range(width):
            for d in range(outputs):
                offset[i, d] += features[i, f] * np.exp(log_std[f, d]) * matrix[i, f * outputs + d]


def squashed_actor(policy, num_envs: int) -> Actor:
    """An actor equal to the `act` of a `Stochastic` for replay, gSDE included, to float32 rounding."""
    network, outputs, warming = _network(policy, num_envs), policy.outputs, policy.warming.numpy()
    low, high = policy.low.numpy(), policy.high.numpy()
    action, zeros = np.empty((num_envs, outputs), np.float32), np.zeros((num_envs, outputs), np.float32)
    offset, limit = np.zeros_like(zeros), np.float32(SquashedGaussian.LIMIT)
    log_std = policy.log_std.detach().numpy() if policy.sde else None
    decided = {"action": action}

    def act(observation, carry, is_first, noise, action_mask=None):
        features, output = network(observation)
        mean = output[:, :outputs]
        if policy.sde:
            np.clip(mean, -SDE_MEAN, SDE_MEAN, out=mean)
        if noise is None:
            _squashed(mean, zeros, low, high, zeros, False, limit, action)
        elif not policy.sde or warming:
            log_std_now = output[:, outputs:].clip(*LOG_STD_RANGE)
            _squashed(mean, log_std_now, low, high, noise, bool(warming), limit, action)
        if noise is not None and policy.sde:
            held, matrix = np.asarray(carry["held"]), np.asarray(carry["exploration"])
            renew = is_first | (held >= policy.sde_every) if policy.sde_every else is_first
            if renew.any():
                matrix = np.where(renew[:, None], noise, matrix)
            carry = {"exploration": matrix, "held": np.where(renew, 1, held + 1)}
            if not warming:
                _sde(features, log_std, matrix, offset)
                _squashed(mean, zeros, low, high, offset, False, limit, action)
        return decided, carry

    return act


@numba.njit(cache=True)
def _bounded(unit, low, high, noise, warming, action):
    """low + (high - low) / 2 * (clip(unit + noise) + 1), or uniform by `noise` while warming."""
    for i in range(unit.shape[0]):
        for d in range(unit.shape[1]):
            z = np.float32(math.erf(noise[i, d] * math.sqrt(0.5))) if warming else unit[i, d] + noise[i, d]
            z = min(max(z, np.float32(-1)), np.float32(1))
            action[i, d] = low[d] + (high[d] - low[d]) / 2 * (z + 1)


def deterministic_actor(policy, num_envs: int) -> Actor:
    """An actor equal to the `act` of a `Deterministic` to float32 rounding."""
    network, warming = _network(policy, num_envs), policy.warming.numpy()
    low, high, std = policy.low.numpy(), policy.high.numpy(), np.float32(policy.std)
    action, nothing = (np.zeros((num_envs, policy.outputs), np.float32) for _ in range(2))
    decay, spread = np.float32(1 - THETA * DT), np.float32(policy.std * DT**0.5)
    decided = {"action": action}

    def act(observation, carry, is_first, noise, action_mask=None):
        _, unit = network(observation)
        np.tanh(unit, out=unit)
        added = nothing
        if noise is not None:
            added = std * noise
            if policy.ou:
                added = np.where(is_first[:, None], np.float32(0), carry["ou"]) * decay + spread * noise
                carry = {"ou": added}
        uniform = noise is not None and bool(warming)
        _bounded(unit, low, high, noise if uniform else added, uniform, action)
        return decided, carry

    return act
