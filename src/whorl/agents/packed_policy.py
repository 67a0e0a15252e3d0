"""The losses of PPO, A2C and REINFORCE by rows: what they say in torch, value, metrics and gradient, without autograd.

Each raises Incompatible, with the reason, for parts that are not plain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from whorl.agents.packed_parts import NOTHING, Inputs, Part, Vectors, column, row_weights, tower
from whorl.batch import Batch, Metrics, get
from whorl.errors import Incompatible
from whorl.functional.kernels import row_losses as kernels
from whorl.nets.encoder import Encoder
from whorl.nets.heads import Critic
from whorl.nets.normalizer import NoNormalizer, Normalizer
from whorl.nets.packed import CHUNK, Rows, Vector
from whorl.policies.distributions import (
    LOG_STD_RANGE,
    MASKED,
    NODES,
    WEIGHTS,
    Categorical,
    Gaussian,
    ScaledGaussian,
    SquashedGaussian,
)
from whorl.policies.stochastic import Stochastic

if TYPE_CHECKING:
    from whorl.agents.a2c import A2C
    from whorl.agents.impala import Impala
    from whorl.agents.ppo import PPO
    from whorl.agents.reinforce import REINFORCE


class Objective(NamedTuple):
    """What the losses of policy gradients differ by."""

    value_weight: float
    entropy_weight: float
    clip_range: float | None = None  # None: the score function
    value_clip_range: float = 0.0
    standardise: bool = False  # advantages, over the batch
    total: bool = False  # the sum over the rows that count, not their mean


def ppo(agent: PPO) -> list[Part]:
    """The loss of PPO by rows, with its optimizer."""

    def objective() -> Objective:
        c = agent.config
        return Objective(c.value_weight, c.entropy_weight, c.clip_range, c.value_clip_range, c.normalize_advantage)

    return _one(agent, agent.return_normalizer, objective)


def a2c(agent: A2C | Impala) -> list[Part]:
    """The loss of A2C and IMPALA by rows, with its optimizer."""

    def objective() -> Objective:
        return Objective(agent.config.value_weight, agent.config.entropy_weight)

    return _one(agent, agent.return_normalizer, objective)


def reinforce(agent: REINFORCE) -> list[Part]:
    """The loss of REINFORCE by rows, with its optimizer."""

    def objective() -> Objective:
        c = agent.config
        return Objective(c.value_weight, c.entropy_weight, total=c.reduction == "sum")

    return _one(agent, NoNormalizer(), objective)


def _one(
    agent: PPO | A2C | Impala | REINFORCE, normalizer: Normalizer | NoNormalizer, objective: Callable[[], Objective]
) -> list[Part]:
    def rows(vectors: Vectors) -> PolicyGradient:
        loss = PolicyGradient(agent.policy, agent.critic, normalizer, objective, vectors(agent.optimizer))
        agent.step.value = None if agent.critic is None else loss.value
        return loss

    return [Part(agent.loss, agent.optimizer, rows)]


class Head(Protocol):
    """What a policy's last layer means: scores of actions, and the gradient of a loss on them."""

    def score(self, output: Rows, action: Rows, allowed: Rows, weight: Rows, log_prob: Rows, entropy: Rows) -> None:
        """log_prob and entropy [n] <- those of action [n, *], where the network gives output [n, *]."""

    def gradient(self, action: Rows, allowed: Rows, weight: Rows, d_log_prob: Rows, entropy_weight: float) -> Rows:
        """The gradient by that output: sum d_log_prob * log_prob - entropy_weight * weight * entropy."""


class Choices:
    """Categorical actions."""

    def __init__(self, sizes: tuple[int, ...]):
        self.sizes, self._p = np.array(sizes), np.empty((CHUNK, sum(sizes)), np.float32)

    def score(self, output: Rows, action: Rows, allowed: Rows, weight: Rows, log_prob: Rows, entropy: Rows) -> None:
        self.log_p, self.p = output, self._p[: len(output)]
        masked = np.float32(MASKED)
        kernels.categorical_score(output, self.p, self.sizes, allowed, masked, action, weight, log_prob, entropy)

    def gradient(self, action: Rows, allowed: Rows, weight: Rows, d_log_prob: Rows, entropy_weight: float) -> Rows:
        kernels.categorical_gradient(
            self.log_p, self.p, self.sizes, allowed, action, d_log_prob, entropy_weight, weight
        )
        return self.log_p


class Normal:
    """Gaussian actions of any kind: plain, scaled, squashed; std independent, dependent, fixed; mean linear or tanh."""

    def __init__(self, policy: Stochastic, vector: Vector):
        self.policy, self.outputs, self.dependent = policy, policy.outputs, policy.std == "dependent"
        low, high = policy.low.numpy(), policy.high.numpy()
        unit = policy.family is Gaussian
        self.centre = np.zeros_like(low) if unit else (low + high) / 2
        self.half = np.ones_like(low) if unit else (high - low) / 2
        self.kind = kernels.SQUASHED if policy.family is SquashedGaussian else kernels.PLAIN
        nodes = NODES.astype(np.float32), WEIGHTS.astype(np.float32)
        self.nodes = nodes if self.kind == kernels.SQUASHED else tuple(x[:0] for x in nodes)
        width = self.outputs * (2 if self.dependent else 1)
        self.d_output = np.empty((CHUNK, width), np.float32)
        self.z, self.d_log_std = (np.empty((CHUNK, self.outputs), np.float32) for _ in range(2))
        self.d_own = None
        if not self.dependent:
            self.log_std = policy.log_std.detach().numpy()
            self.d_own = vector.like(policy.log_std, vector.gradient) if policy.std == "independent" else None

    def score(self, output: Rows, action: Rows, allowed: Rows, weight: Rows, log_prob: Rows, entropy: Rows) -> None:
        n, k = len(output), self.outputs
        self.raw, self.mean = output[:, k:], output[:, :k]
        if self.policy.mean == "tanh":
            self.mean = np.tanh(self.mean)
        own = self.raw.clip(*LOG_STD_RANGE) if self.dependent else np.broadcast_to(self.log_std, (n, k))
        self.spread = np.ascontiguousarray(own)
        kernels.gaussian_score(
            self.mean, self.spread, self.kind, self.centre, self.half, SquashedGaussian.LIMIT, *self.nodes, action, weight,
            self.z[:n], log_prob, entropy,
        )  # fmt: skip

    def gradient(self, action: Rows, allowed: Rows, weight: Rows, d_log_prob: Rows, entropy_weight: float) -> Rows:
        n, k = len(d_log_prob), self.outputs
        d, d_log_std = self.d_output[:n], self.d_log_std[:n]
        kernels.gaussian_gradient(
            self.mean, self.spread, self.kind, *self.nodes, self.z[:n], d_log_prob, entropy_weight, weight, d[:, :k], d_log_std
        )  # fmt: skip
        if self.policy.mean == "tanh":
            d[:, :k] *= 1 - self.mean * self.mean
        if self.dependent:
            low, high = LOG_STD_RANGE
            d[:, k:] = np.where((self.raw >= low) & (self.raw <= high), d_log_std, 0)
        elif self.d_own is not None:
            self.d_own += d_log_std.sum(0)
        return d


def head_of(policy: Stochastic, vector: Vector) -> Head:
    """The one of a policy. Raises Incompatible for a distribution of the user's."""
    if policy.family is Categorical and policy.sizes is not None:
        return Choices(policy.sizes)
    if policy.family in (Gaussian, ScaledGaussian, SquashedGaussian):
        return Normal(policy, vector)
    raise Incompatible(f"its actions are {policy.family.__name__}")


class PolicyGradient:
    """The loss of PPO, A2C and REINFORCE: an actor's objective, its entropy, and a critic's regression where there is one."""

    def __init__(
        self, policy: Stochastic, critic: nn.Module | None, normalizer: Normalizer | NoNormalizer, objective: Callable[[], Objective],
        vector: Vector,
    ):  # fmt: skip
        if type(policy) is not Stochastic:
            raise Incompatible(f"its policy is a {type(policy).__name__}")
        if critic is not None and type(critic) is not Critic:
            raise Incompatible(f"its critic is a {type(critic).__name__}")
        self.inputs = Inputs(policy.normalizer, policy.encoder, *([] if critic is None else [critic.encoder]))
        assert isinstance(policy.encoder, Encoder)
        self.seen = policy.encoder.vectors[0][1].shape or ()
        self.actor = tower(policy.encoder, policy.head, vector)
        self.critic = None if critic is None else tower(critic.encoder, critic.head, vector)
        self.head, self.objective, self.normalizer = head_of(policy, vector), objective, normalizer
        self.log_prob, self.entropy, self.d = (np.empty(CHUNK, np.float32) for _ in range(3))

    def __call__(self, batch: Batch, share: float) -> tuple[float, Metrics]:
        n, o = batch.numel(), self.objective()
        observation, action = batch["observation"].numpy().reshape(n, -1), column(batch, "action", n)
        allowed = get(batch, "action_mask")
        allowed = NOTHING if allowed is None else allowed.numpy().reshape(n, -1)
        weight, mask, counted = row_weights(batch, n)
        advantage = batch["advantage"].numpy().reshape(n)
        old = advantage if o.clip_range is None else batch["log_prob"].numpy().reshape(n)
        moments = np.array([0, 1], np.float32)
        if o.standardise:
            kernels.mean_and_scale(advantage, mask, moments)
        target = old_value = advantage
        if self.critic is not None:
            target = self.normalizer(batch["return"]).numpy().reshape(n)
            old_value = self.normalizer(batch["value"]).numpy().reshape(n) if o.value_clip_range else target
        scale = share * counted if o.total else share
        sums = np.zeros(5)
        for a in range(0, n, CHUNK):
            b = min(n, a + CHUNK)
            x, w, act = self.inputs(observation[a:b]), weight[a:b], action[a:b]
            log_prob, entropy, d = self.log_prob[: b - a], self.entropy[: b - a], self.d[: b - a]
            can = allowed[a:b]
            self.head.score(self.actor.forward(x), act, can, w, log_prob, entropy)
            if o.clip_range is None:
                kernels.score_function(log_prob, entropy, advantage[a:b], w, scale, d, sums)
            else:
                kernels.clipped_surrogate(
                    log_prob, entropy, old[a:b], advantage[a:b], moments, o.clip_range, w, scale, d, sums
                )
            self.actor.add_gradient(self.head.gradient(act, can, w, d, o.entropy_weight * scale))
            if self.critic is not None:
                value = self.critic.forward(x)
                kernels.value_loss(
                    value, old_value[a:b], target[a:b], o.value_clip_range, w, o.value_weight * scale, sums
                )
                self.critic.add_gradient(value)
        loss = sums[kernels.POLICY] + o.value_weight * sums[kernels.CRITIC] - o.entropy_weight * sums[kernels.ENTROPY]
        return float(loss) * (counted if o.total else 1), self._metrics(sums, o)

    @np.errstate(over="ignore", invalid="ignore")
    def value(self, observation: Tensor) -> Tensor:
        """The critic's values [...] of observations [..., *obs], of the weights as they are."""
        assert self.critic is not None
        rows = observation.shape[: observation.ndim - len(self.seen)]
        x = observation.numpy().reshape(rows.numel(), *self.seen)
        found = np.empty(len(x), np.float32)
        for a in range(0, len(x), CHUNK):
            found[a : a + CHUNK] = self.critic.forward(self.inputs(x[a : a + CHUNK]))[:, 0]
        return torch.from_numpy(found).view(rows)

    def _metrics(self, sums: Rows, o: Objective) -> Metrics:
        sums[kernels.ENTROPY] *= -1
        policy, critic, entropy, kl, clipped = torch.from_numpy(sums.astype(np.float32)).unbind()
        value = {} if self.critic is None else {"value_loss": critic}
        metrics = {"policy_gradient_loss": policy, **value, "entropy_loss": entropy}
        return metrics if o.clip_range is None else metrics | {"approx_kl": kl, "clip_fraction": clipped}
