"""Action distributions: plain tensors in, plain tensors out; no validation and no object that outlives a batch.

Joint over the components of an action: [...] out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from whorl.functional.divergences import categorical_entropy, categorical_kl, gaussian_entropy, gaussian_kl

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(16)
WEIGHTS = WEIGHTS / math.sqrt(2 * math.pi)  # sums to 1: an expectation over N(0, 1)
LOG_STD_RANGE = (-5.0, 2.0)  # of a state-dependent std, as in most SAC code
SDE_MEAN = 2.0  # bound of the mean before the tanh under gSDE, as in Stable-Baselines3
MASKED = -1e8  # a logit that never wins and still has a finite gradient


class Distribution(Protocol):
    """What a policy says about the actions of a batch [...]."""

    def sample(self, noise: Tensor) -> Tensor:
        """The actions that these numbers choose."""

    @property
    def mode(self) -> Tensor:
        """The greedy actions."""

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-density of actions, [...]."""

    def entropy(self) -> Tensor:
        """[...], in nats."""

    def kl(self, other: Self) -> Tensor:
        """KL(self || other) [...], in nats, of two of one kind."""

    def tensors(self) -> dict[str, Tensor]:
        """What differs from row to row, each [..., *]: to be put into a batch."""

    def restore(self, tensors: Mapping[str, Tensor]) -> Self:
        """Another of this policy's, from `tensors()` that a batch carried: `old = now.restore(batch["old"])`, `old.kl(now)`."""


def mean_and_log_std(output: Tensor) -> tuple[Tensor, Tensor]:
    """What a network says in [..., 2 D] of a normal with a state-dependent std: its mean and log std [..., D], held in range."""
    mean, log_std = output.chunk(2, -1)
    return mean, log_std.clamp(*LOG_STD_RANGE)


@dataclass
class Categorical:
    """Independent choices. `sizes` holds the number of choices of each component; `scalar` when the action is one number."""

    logits: Tensor  # [..., sum(sizes)], masked ones at MASKED
    sizes: tuple[int, ...]
    scalar: bool

    @staticmethod
    def noise(shape: tuple[int, ...], outputs: int, generator: torch.Generator) -> Tensor:
        """Gumbel noise [*shape, outputs]: argmax(logits + Gumbel) is a sample (Gumbel 1954; Maddison et al. 2014)."""
        uniform = torch.empty(*shape, outputs, dtype=torch.float32, device=generator.device)
        return uniform.exponential_(generator=generator).log_().neg_()

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x,) if self.scalar else x.split(self.sizes, -1)

    def _choose(self, scores: Tensor) -> Tensor:
        chosen = [part.argmax(-1) for part in self._parts(scores)]
        return chosen[0] if self.scalar else torch.stack(chosen, -1)

    def sample(self, noise: Tensor) -> Tensor:
        return self._choose(self.logits + noise)

    @property
    def mode(self) -> Tensor:
        return self._choose(self.logits)

    def log_prob(self, action: Tensor) -> Tensor:
        actions = (action,) if self.scalar else action.unbind(-1)
        total = torch.zeros((), dtype=self.logits.dtype, device=self.logits.device)
        for part, a in zip(self._parts(self.logits), actions, strict=True):
            total = total + part.log_softmax(-1).gather(-1, a.long().unsqueeze(-1)).squeeze(-1)
        return total

    def entropy(self) -> Tensor:
        return torch.stack([categorical_entropy(part) for part in self._parts(self.logits)]).sum(0)

    def kl(self, other: Categorical) -> Tensor:
        pairs = zip(self._parts(self.logits), self._parts(other.logits), strict=True)
        return torch.stack([categorical_kl(p, q) for p, q in pairs]).sum(0)

    def tensors(self) -> dict[str, Tensor]:
        return {"logits": self.logits}

    def restore(self, tensors: Mapping[str, Tensor]) -> Self:
        return replace(self, logits=tensors["logits"])


@dataclass
class Gaussian:
    """Diagonal normal distribution over [..., D]."""

    mean: Tensor
    log_std: Tensor  # [..., D], the same shape as mean

    @staticmethod
    def noise(shape: tuple[int, ...], outputs: int, generator: torch.Generator) -> Tensor:
        """Standard normal noise [*shape, outputs]."""
        return torch.randn(*shape, outputs, dtype=torch.float32, device=generator.device, generator=generator)

    def sample(self, noise: Tensor) -> Tensor:
        return self.mean + self.log_std.exp() * noise

    @property
    def mode(self) -> Tensor:
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        z = (action - self.mean) * (-self.log_std).exp()
        return (-0.5 * z.square() - self.log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        return gaussian_entropy(self.log_std)

    def kl(self, other: Gaussian) -> Tensor:
        """Where the normal is scaled or squashed it is the normals': both maps are one-to-one."""
        return gaussian_kl(self.mean, self.log_std, other.mean, other.log_std)

    def tensors(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "log_std": self.log_std}

    def restore(self, tensors: Mapping[str, Tensor]) -> Self:
        return replace(self, mean=tensors["mean"], log_std=tensors["log_std"])


@dataclass
class ScaledGaussian(Gaussian):
    """centre + half * z with z ~ N(mean, std), centre and half the range being those of the bounds: a normal in their units.

    Not cut at the bounds. `log_prob` and `entropy` are of the action, not of z: half enters them, as a constant.
    """

    low: Tensor
    high: Tensor

    @property
    def _half(self) -> Tensor:
        return (self.high - self.low) / 2

    def _scale(self, z: Tensor) -> Tensor:
        return (self.low + self.high) / 2 + self._half * z

    def sample(self, noise: Tensor) -> Tensor:
        return self._scale(self.mean + self.log_std.exp() * noise)

    @property
    def mode(self) -> Tensor:
        return self._scale(self.mean)

    def log_prob(self, action: Tensor) -> Tensor:
        z = (action - (self.low + self.high) / 2) / self._half
        return Gaussian(self.mean, self.log_std).log_prob(z) - self._half.log().sum(-1)

    def entropy(self) -> Tensor:
        return gaussian_entropy(self.log_std) + self._half.log().sum(-1)


@dataclass
class SquashedGaussian(Gaussian):
    """low + (high - low) * (tanh(u) + 1) / 2 with u ~ N(mean, std). Haarnoja et al. 2018, appendix C.

    `log_prob` inverts the tanh; actions are held 1e-6 (of the half range) away from the bounds so that it stays finite,
    when sampling as well as when scoring.
    """

    low: Tensor
    high: Tensor

    LIMIT = 1 - 1e-6

    @property
    def _half(self) -> Tensor:
        return (self.high - self.low) / 2

    def squash(self, u: Tensor) -> Tensor:
        """The action of a number u of the normal's."""
        return self.low + self._half * (u.tanh().clamp(-self.LIMIT, self.LIMIT) + 1)

    def sample(self, noise: Tensor) -> Tensor:
        return self.squash(self.mean + self.log_std.exp() * noise)

    def unit_sample(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """tanh(u) [..., D] and its log-density [...]: the action in units of half the range. u = mean + std noise.

        The density comes from u itself, log N(u) - sum log(1 - tanh(u)^2) (appendix C): nothing is inverted, so no digit is lost
        near the bounds.
        """
        u = torch.addcmul(self.mean, self.log_std.exp(), noise)
        minus = 0.5 * noise.square() + self.log_std - 2 * (u + softplus(-2 * u))
        return u.tanh(), -minus.sum(-1) - u.shape[-1] * (0.5 * math.log(2 * math.pi) + 2 * math.log(2))

    def sample_and_log_prob(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """`sample(noise)` [..., D] and its log_prob [...], as exact as `unit_sample`."""
        unit, log_prob = self.unit_sample(noise)
        action = self.low + self._half * (unit.clamp(-self.LIMIT, self.LIMIT) + 1)
        return action, log_prob - self._half.log().expand_as(unit).sum(-1)

    @property
    def mode(self) -> Tensor:
        return self.squash(self.mean)

    def log_prob(self, action: Tensor) -> Tensor:
        u = ((action - self.low) / self._half - 1).clamp(-self.LIMIT, self.LIMIT).atanh()
        return Gaussian(self.mean, self.log_std).log_prob(u) - self._log_slope(u).sum(-1)

    def _log_slope(self, u: Tensor) -> Tensor:
        """log |d action / d u| per component, in the form of log(1 - tanh(u)^2) that does not lose digits for large |u|."""
        return 2 * (math.log(2) - u - softplus(-2 * u)) + self._half.log()

    def entropy(self) -> Tensor:
        """H(normal) + E[log |d action / d u|], the expectation by 16-point Gauss-Hermite quadrature: no closed form exists."""
        nodes = torch.as_tensor(NODES, dtype=self.mean.dtype, device=self.mean.device)
        weights = torch.as_tensor(WEIGHTS, dtype=self.mean.dtype, device=self.mean.device)
        u = self.mean.unsqueeze(-2) + self.log_std.exp().unsqueeze(-2) * nodes.unsqueeze(-1)  # [..., 16, D]
        return gaussian_entropy(self.log_std) + self._log_slope(u).sum(-1) @ weights
