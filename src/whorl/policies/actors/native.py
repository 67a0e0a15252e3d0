"""A small `Stochastic` policy row by row, for loops that are compiled around it: equal to its `act` but for float32 rounding."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba.extending import register_jitable

from whorl.functional.kernels.cached import cached
from whorl.jit import FAST
from whorl.nets import packed
from whorl.nets.encoder import Encoder
from whorl.nets.normalizer import NoNormalizer, Normalizer
from whorl.nets.packed import affine, tanh
from whorl.policies.actors.mlp import Given, Memory
from whorl.policies.distributions import LOG_STD_RANGE, MASKED, Gaussian, ScaledGaussian
from whorl.policies.policy import Acted, Policy
from whorl.policies.stochastic import Stochastic

Rows = np.ndarray
SOURCES = (__file__, packed.__file__ or "")  # of what a loop that calls these is made of
HALF_LOG_2PI = np.float32(0.5 * np.log(2 * np.pi))


class Network(NamedTuple):
    """What the loop reads of a policy."""

    mean: Rows  # of the observations [D], their scale and bound
    scale: Rows
    clip: float
    theta: Rows  # a copy: of each layer the weights [inputs, outputs], then the biases
    sizes: Rows  # of the layers, the inputs first
    relu: bool
    own_log_std: Rows  # [D]; of no entries where the network gives it, or there is none
    tanh_mean: bool
    centre: Rows  # of Box actions [D], and the units they are in
    half: Rows


class Decided(NamedTuple):
    """Where decisions are written, [T, N, ...]."""

    action: Rows
    log_prob: Rows


def compilable(policy: Policy) -> bool:
    """Whether it is one: an MLP over one float vector on the CPU, with Discrete actions, or Gaussian ones that are not squashed."""
    if type(policy) is not Stochastic or policy.critic is not None or not policy.head.weight.is_cpu:
        return False
    encoder, discrete = policy.encoder, policy.sizes is not None and policy.scalar
    plain = (
        isinstance(encoder, Encoder) and encoder.straight and isinstance(policy.normalizer, Normalizer | NoNormalizer)
    )
    return plain and (discrete or policy.family in (Gaussian, ScaledGaussian))


class RowPolicy:
    """The network of a policy that is `compilable`, how it decides, and scratch memory."""

    def __init__(self, policy: Stochastic):
        layers: list[Any] = [layer for layer in policy.encoder.mlp if hasattr(layer, "weight")]  # type: ignore[union-attr]
        pairs = [(layer.weight.detach().numpy(), layer.bias.detach().numpy()) for layer in [*layers, policy.head]]
        sizes = np.array([pairs[0][0].shape[1], *(len(bias) for _, bias in pairs)])
        theta, at = np.zeros(sum(weight.size + bias.size for weight, bias in pairs), np.float32), 0
        self._copies: list[tuple[Rows, Rows]] = []  # (copy, what it is of)
        for weight, bias in pairs:
            middle, end = at + weight.size, at + weight.size + bias.size
            self._copies += [(theta[at:middle].reshape(weight.T.shape), weight.T), (theta[middle:end], bias)]
            at = end
        size, none = sizes[0], np.zeros(0, np.float32)
        normal: Any = policy.normalizer
        known = isinstance(normal, Normalizer)
        discrete = policy.sizes is not None
        unit = discrete or policy.family is Gaussian
        low, high = (none, none) if discrete else (policy.low.numpy(), policy.high.numpy())
        self.network = Network(
            mean=normal.mean.numpy() if known else np.zeros(size, np.float32),
            scale=normal.scale.numpy() if known else np.ones(size, np.float32),
            clip=normal.clip if known else np.inf,
            theta=theta,
            sizes=sizes,
            relu=policy.encoder.mlp.activation == "relu",  # type: ignore[union-attr]
            own_log_std=none if discrete or policy.std == "dependent" else policy.log_std.detach().numpy(),
            tanh_mean=policy.mean == "tanh",
            centre=np.zeros_like(low) if unit else (low + high) / 2,
            half=np.ones_like(low) if unit else (high - low) / 2,
        )
        self.scratch = np.zeros((2, sizes.max()), np.float32)
        self.decide, self._discrete, self._drawn = choose if discrete else draw, discrete, policy.outputs
        self._every = np.zeros((0, 0), bool)  # no action mask
        self.action = np.zeros((0, *([] if discrete else low.shape)), np.int64 if discrete else np.float32)  # none yet
        self._decided = Decided(self.action[None], np.zeros((1, 0), np.float32))

    def act(self, observation: Rows, carry: Memory, is_first: Rows, noise: Given, action_mask: Given = None) -> Acted:
        """As an `Actor`, with the weights of the last `refresh`."""
        n = len(observation)
        if len(self._decided.log_prob[0]) != n:
            action = np.zeros((1, n, *self.action.shape[1:]), self.action.dtype)
            self._decided = Decided(action, np.zeros((1, n), np.float32))
        numbers = np.zeros((n, self._drawn), np.float32) if noise is None else noise
        allowed = self._every if action_mask is None else action_mask
        act = _act_discrete if self._discrete else _act_box
        act(observation.reshape(n, -1), self.network, numbers, allowed, self._decided, self.scratch)
        return {"action": self._decided.action[0], "log_prob": self._decided.log_prob[0]}, carry

    def refresh(self) -> None:
        """Copy the weights as they are now."""
        for copy, weight in self._copies:
            np.copyto(copy, weight)


@cached(packed, fastmath=FAST)
def outputs(x: Rows, network: Network, scratch: Rows) -> int:
    """Which row of scratch [2, *] holds what the network gives for the observation x [D]."""
    limit, here, at, sizes = np.float32(network.clip), 0, 0, network.sizes
    for k in range(len(x)):
        z = (x[k] - network.mean[k]) * network.scale[k]
        z = limit if z > limit else z
        scratch[0, k] = -limit if z < -limit else z
    for layer in range(len(sizes) - 1):
        out, n = scratch[1 - here], sizes[layer + 1]
        affine(scratch[here], network.theta, at, sizes[layer], n, out)
        at += (sizes[layer] + 1) * n
        if layer < len(sizes) - 2 and network.relu:
            for j in range(n):
                out[j] = np.float32(0) if out[j] < 0 else out[j]
        elif layer < len(sizes) - 2:
            for j in range(n):
                out[j] = tanh(out[j])
        here = 1 - here
    return here


@cached(packed, fastmath=FAST)
def _hide(logits: Rows, allowed: Rows, i: int) -> None:
    """What row i of `allowed` (of no rows: everything) forbids is never chosen."""
    if len(allowed):
        for a in range(allowed.shape[1]):
            if not allowed[i, a]:
                logits[a] = np.float32(MASKED)


@register_jitable  # a loop around a function of numba's own would be compiled anew in every process
def choose(logits: Rows, network: Network, noise: Rows, m: Decided, t: int, i: int) -> None:
    """The first argmax of logits + noise [A], and its log-probability."""
    best, score, top, total = 0, -np.inf, -np.inf, np.float32(0)
    for a in range(len(noise)):
        top = max(top, logits[a])
        if logits[a] + noise[a] > score:
            best, score = a, logits[a] + noise[a]
    for a in range(len(noise)):
        total += np.exp(np.float32(logits[a] - top))
    m.action[t, i], m.log_prob[t, i] = best, logits[best] - top - np.log(total)


@register_jitable
def draw(output: Rows, network: Network, noise: Rows, m: Decided, t: int, i: int) -> None:
    """centre + half * (mean + std * noise) [D], and its log-density."""
    d, total, action = len(network.centre), np.float32(0), m.action[t, i]
    low, high = np.float32(LOG_STD_RANGE[0]), np.float32(LOG_STD_RANGE[1])
    for k in range(d):
        mean = np.float32(np.tanh(output[k])) if network.tanh_mean else output[k]
        if len(network.own_log_std):
            log_std = network.own_log_std[k]
        else:
            log_std = min(max(output[d + k], low), high)
        action[k] = network.centre[k] + network.half[k] * (mean + np.exp(log_std) * noise[k])
        total += np.float32(-0.5) * noise[k] * noise[k] - log_std - np.log(network.half[k]) - HALF_LOG_2PI
    m.log_prob[t, i] = total


@cached(packed)
def _act_discrete(x: Rows, network: Network, noise: Rows, allowed: Rows, m: Decided, scratch: Rows) -> None:
    for i in range(len(x)):
        logits = scratch[outputs(x[i], network, scratch)]
        _hide(logits, allowed, i)
        choose(logits, network, noise[i], m, 0, i)


@cached(packed)
def _act_box(x: Rows, network: Network, noise: Rows, allowed: Rows, m: Decided, scratch: Rows) -> None:
    for i in range(len(x)):
        draw(scratch[outputs(x[i], network, scratch)], network, noise[i], m, 0, i)
