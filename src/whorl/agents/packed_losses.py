"""The losses of agents by rows, on plain networks: what `agent.loss` says in torch, its value, metrics and gradient without autograd.

An agent takes one with a line, `packed = packed_losses.ppo`. Raises Incompatible, with the reason, for parts that are not plain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from whorl.batch import Batch, Metrics, get
from whorl.errors import Incompatible
from whorl.functional.kernels import row_losses as kernels
from whorl.nets.encoder import Encoder
from whorl.nets.heads import Critic
from whorl.nets.normalizer import NoNormalizer, Normalizer, ObservationNormalizer
from whorl.nets.packed import CHUNK, Rows, Tower, Vector, normalize
from whorl.nets.q import CategoricalQ, QNetwork, QuantileQ
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
    from whorl.agents.c51 import C51
    from whorl.agents.dqn import DQN
    from whorl.agents.ppo import PPO
    from whorl.agents.qr_dqn import QRDQN
    from whorl.agents.reinforce import REINFORCE

NOTHING = np.empty((0, 0), bool)  # no action mask


class Objective(NamedTuple):
    """What the losses of policy gradients differ by."""

    value_weight: float
    entropy_weight: float
    clip_range: float | None = None  # None: the score function
    value_clip_range: float = 0.0
    standardise: bool = False  # advantages, over the batch
    total: bool = False  # the sum over the rows that count, not their mean


def ppo(agent: PPO, vector: Vector) -> PolicyGradient:
    """PPO's."""

    def objective() -> Objective:
        c = agent.config
        return Objective(c.value_weight, c.entropy_weight, c.clip_range, c.value_clip_range, c.normalize_advantage)

    return PolicyGradient(agent.policy, agent.critic, agent.return_normalizer, objective, vector)


def a2c(agent: A2C, vector: Vector) -> PolicyGradient:
    """A2C's."""

    def objective() -> Objective:
        return Objective(agent.config.value_weight, agent.config.entropy_weight)

    return PolicyGradient(agent.policy, agent.critic, agent.return_normalizer, objective, vector)


def reinforce(agent: REINFORCE, vector: Vector) -> PolicyGradient:
    """REINFORCE's."""

    def objective() -> Objective:
        c = agent.config
        return Objective(c.value_weight, c.entropy_weight, total=c.reduction == "sum")

    return PolicyGradient(agent.policy, agent.critic, NoNormalizer(), objective, vector)


def dqn(agent: DQN, vector: Vector) -> QLearning:
    """DQN's."""
    q, target = (QTower(net, v) for net, v in ((agent.policy.q, vector), (agent.target.module, None)))
    return QLearning(agent, q, target, lambda *rows: kernels.td(*rows, agent.config.huber or inf), "td_error")


def c51(agent: C51, vector: Vector) -> QLearning:
    """C51's."""
    z: Any = agent.policy.q
    if type(z) is not CategoricalQ:
        raise Incompatible(f"its values are a {type(z).__name__}'s")
    q, target, support = QTower(z.net, vector), QTower(agent.target.module.net), z.support.numpy()
    return QLearning(agent, q, target, lambda *rows: kernels.categorical_td(*rows, support), "kl")


def qr_dqn(agent: QRDQN, vector: Vector) -> QLearning:
    """QR-DQN's."""
    z: Any = agent.policy.q
    if type(z) is not QuantileQ:
        raise Incompatible(f"its values are a {type(z).__name__}'s")

    def rows(*rows: Any) -> None:
        kernels.quantile_td(*rows, agent.config.quantiles, agent.config.huber)

    return QLearning(agent, QTower(z.net, vector), QTower(agent.target.module.net), rows, "td_error")


# ---------------------------------------------------------------------------------------------------------- parts


class Inputs:
    """Observations of a batch as a plain network sees them, chunk by chunk. Raises Incompatible for what is more than one float vector."""

    def __init__(self, normalizer: ObservationNormalizer, *encoders: nn.Module):
        for encoder in encoders:
            if not isinstance(encoder, Encoder):
                raise Incompatible(f"{type(encoder).__name__} is not one of whorl's MLPs")
            if not encoder.plain:
                raise Incompatible("its observations are more than one float vector")
        if not isinstance(normalizer, Normalizer | NoNormalizer):
            raise Incompatible("its normalizer is of several parts")
        self._statistics = None
        if isinstance(normalizer, Normalizer):
            self._statistics = (
                normalizer.mean.numpy().reshape(-1),
                normalizer.scale.numpy().reshape(-1),
                normalizer.clip,
            )
            self._memory = np.empty((CHUNK, normalizer.mean.numel()), np.float32)

    def __call__(self, x: Rows) -> Rows:
        """x [n, ...] -> [n, inputs], n <= CHUNK; valid until the next call."""
        x = x.reshape(len(x), -1)
        if self._statistics is None:
            return x
        out = self._memory[: len(x)]
        normalize(x, *self._statistics, out)
        return out


def layers(*modules: Iterable[nn.Module] | nn.Module) -> list[nn.Module]:
    """Their layers, in order. Raises Incompatible for one that is no plain linear layer or activation."""
    found: list[nn.Module] = []
    for module in modules:
        found += module if isinstance(module, nn.Sequential) else [module]  # type: ignore[list-item]
    for layer in found:
        if type(layer) not in (nn.Linear, nn.Tanh, nn.ReLU):
            raise Incompatible(f"a {type(layer).__name__} is more than a linear layer or an activation")
    return found


def tower(encoder: nn.Module, head: nn.Module, vector: Vector | None) -> Tower:
    """An encoder's MLP and what stands on it."""
    assert isinstance(encoder, Encoder)
    return Tower(layers(encoder.mlp, head), encoder.mlp.activation, vector)


def column(batch: Batch, key: str, rows: int) -> Rows:
    """A column [rows, *] of a batch, whose axes become one."""
    return batch[key].numpy().reshape(rows, -1)


def row_weights(batch: Batch, rows: int) -> tuple[Rows, Rows, float]:
    """(what each row counts in a mean, the mask, how many rows count)."""
    mask = get(batch, "mask")
    if mask is None:
        return np.full(rows, 1 / rows, np.float32), np.ones(rows, bool), rows
    counts = mask.numpy().reshape(rows)
    total = max(1, int(counts.sum()))
    return counts.astype(np.float32) / np.float32(total), counts, total


class Head:
    """What a policy's last layer means: scores of actions, and the gradient of a loss on them."""

    def score(self, output: Rows, action: Rows, allowed: Rows, weight: Rows, log_prob: Rows, entropy: Rows) -> None:
        """log_prob and entropy [n] <- those of action [n, *], where the network gives output [n, *]."""
        raise NotImplementedError

    def gradient(self, action: Rows, allowed: Rows, weight: Rows, d_log_prob: Rows, entropy_weight: float) -> Rows:
        """The gradient by that output: sum d_log_prob * log_prob - entropy_weight * weight * entropy."""
        raise NotImplementedError


class Choices(Head):
    """Categorical actions."""

    def __init__(self, sizes: tuple[int, ...]):
        self.sizes = np.array(sizes)

    def score(self, output: Rows, action: Rows, allowed: Rows, weight: Rows, log_prob: Rows, entropy: Rows) -> None:
        self.log_p = output
        masked = np.float32(MASKED)
        kernels.categorical_score(output, self.sizes, allowed, masked, action, weight, log_prob, entropy)

    def gradient(self, action: Rows, allowed: Rows, weight: Rows, d_log_prob: Rows, entropy_weight: float) -> Rows:
        kernels.categorical_gradient(self.log_p, self.sizes, allowed, action, d_log_prob, entropy_weight, weight)
        return self.log_p


class Normal(Head):
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

    def _metrics(self, sums: Rows, o: Objective) -> Metrics:
        policy, critic, entropy, kl, clipped = torch.from_numpy(sums.astype(np.float32)).unbind()
        value = {} if self.critic is None else {"value_loss": critic}
        metrics = {"policy_gradient_loss": policy, **value, "entropy_loss": -entropy}
        return metrics if o.clip_range is None else metrics | {"approx_kl": kl, "clip_fraction": clipped}


class QTower:
    """A `QNetwork`, dueling or not: x [n, inputs] -> [n, actions * outputs]."""

    def __init__(self, net: nn.Module, vector: Vector | None = None):
        if type(net) is not QNetwork:
            raise Incompatible(f"its values are a {type(net).__name__}'s")
        if not isinstance(net.encoder, Encoder):
            raise Incompatible(f"{type(net.encoder).__name__} is not one of whorl's MLPs")
        self.trunk, self.value, self.shape, shared = None, None, (net.actions, net.outputs), layers(net.encoder.mlp)
        self.encoder = net.encoder
        if net.value is None:
            self.advantage = Tower([*shared, *layers(net.advantage)], net.activation, vector)
            return
        self.advantage, self.value = (
            Tower(layers(part), net.activation, vector) for part in (net.advantage, net.value)
        )
        if shared:
            self.trunk = Tower(shared, net.activation, vector, open=True)

    def forward(self, x: Rows) -> Rows:
        """As the network; valid until the next call."""
        x = x if self.trunk is None else self.trunk.forward(x)
        q = self.advantage.forward(x)
        if self.value is not None:
            each = q.reshape(len(q), *self.shape)
            each += self.value.forward(x)[:, None] - each.mean(1, keepdims=True)
        return q

    def add_gradient(self, d: Rows) -> None:
        """From that of the first n rows of the outputs, which is overwritten."""
        if self.value is None:
            self.advantage.add_gradient(d)
            return
        each, below = d.reshape(len(d), *self.shape), self.trunk is not None
        total = each.sum(1)
        each -= total[:, None] / np.float32(self.shape[0])
        parts = self.advantage.add_gradient(d, inputs=below), self.value.add_gradient(total, inputs=below)
        if self.trunk is not None and parts[0] is not None:
            self.trunk.add_gradient(parts[0] + parts[1])


class QLearning:
    """The loss of DQN, C51 and QR-DQN, whose rows are a kernel's: see `kernels.td`. error: what its third sum is called."""

    def __init__(self, agent: DQN | C51 | QRDQN, q: QTower, target: QTower, rows: Callable[..., None], error: str):
        self.agent, self.q, self.target, self.rows, self.error = agent, q, target, rows, error
        self.inputs = Inputs(agent.policy.normalizer, q.encoder)

    def __call__(self, batch: Batch, share: float) -> tuple[float, Metrics]:
        c, n, next = self.agent.config, batch.numel(), batch["next"]
        observation, successor = (x["observation"].numpy().reshape(n, -1) for x in (batch, next))
        found = (batch["action"], next["reward"], next["terminated"])
        action, reward, terminated = (x.numpy().reshape(n) for x in found)
        allowed, discount, importance = (get(batch, key) for key in ("next.action_mask", "next.discount", "weight"))
        allowed = NOTHING if allowed is None else allowed.numpy().reshape(n, -1)
        discount = np.full(n, c.discount, np.float32) if discount is None else discount.numpy().reshape(n)
        importance = np.ones(n, np.float32) if importance is None else importance.numpy().reshape(n)
        weight, _, _ = row_weights(batch, n)
        size, sums, half = np.empty(n, np.float32), np.zeros(3), CHUNK // 2
        for a in range(0, n, half):
            b = min(n, a + half)
            m, x = b - a, self.inputs(np.concatenate([observation[a:b], successor[a:b]]))
            there = self.target.forward(x[m:])
            here = self.q.forward(x if c.double else x[:m])
            self.rows(
                here[:m], there, here[m:] if c.double else there, allowed[a:b], action[a:b], reward[a:b], terminated[a:b],
                discount[a:b], weight[a:b], importance[a:b], share, size[a:b], sums,
            )  # fmt: skip
            self.q.add_gradient(here[:m])
        _, value, error = torch.from_numpy(sums.astype(np.float32)).unbind()
        told = {"q_mean": value, self.error: error, "priority": torch.from_numpy(size).view(batch.batch_size)}
        return float(sums[kernels.LOSS]), told
