"""The losses of SAC by rows: what they say in torch, value, metrics and gradient, without autograd.

Raises Incompatible, with the reason, for parts that are not plain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from whorl.agents.packed_parts import Inputs, Part, column, row_weights, tower
from whorl.batch import Batch, Metrics, get
from whorl.errors import Incompatible
from whorl.functional.kernels import soft_losses as kernels
from whorl.nets.ensemble import EnsembleLinear, QEnsemble
from whorl.nets.mlp import alternate
from whorl.nets.packed import CHUNK, Rows, Tower, Vector, member_layers
from whorl.policies.distributions import LOG_STD_RANGE
from whorl.policies.squashed import Squashed

if TYPE_CHECKING:
    from whorl.agents.sac import SAC

Vectors = Callable[[Optimizer], Vector]


def sac(agent: SAC) -> list[Part]:
    """SAC's two."""
    return [
        Part(agent.critic_loss, agent.critic_optimizer, lambda vectors: SoftCritic(agent, vectors)),
        Part(agent.actor_loss, agent.optimizer, lambda vectors: SoftActor(agent, vectors)),
    ]


class Pairs:
    """A `QEnsemble` of values of (observation, action), member by member."""

    def __init__(self, net: nn.Module, vector: Vector | None = None):
        if type(net) is not QEnsemble or not net.scalar:
            raise Incompatible(f"its critic is a {type(net).__name__}")
        layers = list(net.layers)
        activation = "tanh" if any(isinstance(layer, nn.Tanh) for layer in layers) else "relu"
        if not alternate(layers, activation, EnsembleLinear):
            raise Incompatible(f"its critic is more than linear layers and {activation} between them")
        self.encoder, inputs = net.inputs.encoder, net.inputs
        self.towers = [Tower(member_layers(layers, e, vector), activation) for e in range(net.members)]
        size = inputs.width - self.encoder.width
        scaled = inputs.scaled
        self.centre = inputs.centre.numpy() if scaled else np.zeros(size, np.float32)
        self.half = inputs.half_range.numpy() if scaled else np.ones(size, np.float32)
        self._x = np.empty((CHUNK, inputs.width), np.float32)

    def forward(self, x: Rows, action: Rows) -> Rows:
        """x [n, inputs], action [n, D] -> [members, n]."""
        pairs, width = self._x[: len(x)], x.shape[1]
        pairs[:, :width] = x
        np.subtract(action, self.centre, out=pairs[:, width:])
        pairs[:, width:] /= self.half
        return np.stack([one.forward(pairs)[:, 0] for one in self.towers])

    def add_gradient(self, d: Rows) -> None:
        """From that of the values [members, n]."""
        for one, own in zip(self.towers, d, strict=True):
            one.add_gradient(own[:, None])

    def action_gradient(self, d: Rows) -> Rows:
        """That of the action [n, D], from that of the values [members, n]; the weights get none."""
        actions = len(self.centre)
        parts = [one.input_gradient(own[:, None])[:, -actions:] for one, own in zip(self.towers, d, strict=True)]
        return np.sum(parts, 0) / self.half


class SoftPolicy:
    """A `Squashed` policy: actions, their log-densities, and the gradient of both."""

    def __init__(self, policy: Squashed, vector: Vector | None = None):
        if type(policy) is not Squashed or policy.sde:
            raise Incompatible(
                "it explores by its state (sde)" if policy.sde else f"its policy is a {type(policy).__name__}"
            )
        self.inputs = Inputs(policy.normalizer, policy.encoder)
        self.tower = tower(policy.encoder, policy.head, vector)
        self.centre, self.half = policy.centre.numpy(), policy.half_range.numpy()
        self._drawn = tuple(np.empty((CHUNK, policy.outputs), np.float32) for _ in range(2))  # actions, tanh(u)
        self._log_prob, self._d = np.empty(CHUNK, np.float32), np.empty((CHUNK, 2 * policy.outputs), np.float32)

    def sample(self, x: Rows, noise: Rows) -> tuple[Rows, Rows]:
        """x [n, inputs], noise [n, D] -> actions [n, D], log-densities [n] in units of half the range; valid until the next call."""
        n = len(x)
        self._noise, self._output = noise, self.tower.forward(x)
        (action, unit), log_prob = (y[:n] for y in self._drawn), self._log_prob[:n]
        kernels.squash(self._output, noise, *LOG_STD_RANGE, self.centre, self.half, action, unit, log_prob)
        return action, log_prob

    def add_gradient(self, d_action: Rows, d_log_prob: Rows) -> None:
        """Add that of the weights."""
        n = len(d_log_prob)
        d, unit = self._d[:n], self._drawn[1][:n]
        kernels.squash_gradient(self._output, self._noise, *LOG_STD_RANGE, self.half, unit, d_action, d_log_prob, d)
        self.tower.add_gradient(d)


class Soft:
    """What both losses read."""

    def __init__(self, agent: SAC):
        self.agent, self.seen = agent, Inputs(agent.policy.normalizer, agent.policy.encoder)
        self.log_temperature = agent.temperature.log_temperature

    def temperature(self) -> np.float32:
        return np.exp(self.log_temperature.detach().numpy())[()]

    @staticmethod
    def weights(batch: Batch, n: int) -> tuple[Rows, Rows]:
        """(what a row counts in a mean, the same times its importance weight), each [n]."""
        weight, _, _ = row_weights(batch, n)
        importance = get(batch, "weight")
        return weight, weight if importance is None else weight * importance.numpy().reshape(n)


class SoftCritic(Soft):
    """SAC's critic loss."""

    def __init__(self, agent: SAC, vectors: Vectors):
        super().__init__(agent)
        self.policy, self.target = SoftPolicy(agent.policy), Pairs(agent.target.module)
        self.critic = Pairs(agent.critic, vectors(agent.critic_optimizer))
        Inputs(agent.policy.normalizer, self.critic.encoder)  # is it plain?

    def __call__(self, batch: Batch, share: float) -> tuple[float, Metrics]:
        n, next, alpha = batch.numel(), batch["next"], self.temperature()
        observation, successor = (x["observation"].numpy().reshape(n, -1) for x in (batch, next))
        action, noise = column(batch, "action", n), batch["noise"].numpy().reshape(n, 2, -1)[:, 0]
        reward, terminated = (next[key].numpy().reshape(n) for key in ("reward", "terminated"))
        discount = get(next, "discount")
        discount = (
            np.full(n, self.agent.config.discount, np.float32) if discount is None else discount.numpy().reshape(n)
        )
        (weight, counted), sums, size = self.weights(batch, n), np.zeros(2), np.empty(n, np.float32)
        for a in range(0, n, CHUNK):
            b = min(n, a + CHUNK)
            x = self.seen(successor[a:b])
            there, log_prob = self.policy.sample(x, noise[a:b])
            value = self.target.forward(x, there).min(0) - alpha * log_prob
            q = self.critic.forward(self.seen(observation[a:b]), action[a:b])
            kernels.squared(
                q, value, reward[a:b], terminated[a:b], discount[a:b], weight[a:b], counted[a:b], share, size[a:b], sums
            )  # fmt: skip
            self.critic.add_gradient(q)
        told = {
            "q_mean": torch.tensor(sums[1], dtype=torch.float32),
            "priority": torch.from_numpy(size).view(batch.batch_size),
        }
        return float(sums[0]), told


class SoftActor(Soft):
    """SAC's actor loss, with that of the temperature."""

    def __init__(self, agent: SAC, vectors: Vectors):
        super().__init__(agent)
        vector = vectors(agent.optimizer)
        self.policy, self.critic = SoftPolicy(agent.policy, vector), Pairs(agent.critic)
        learned = self.log_temperature.requires_grad
        self.d_temperature = vector.like(self.log_temperature, vector.gradient) if learned else None

    def __call__(self, batch: Batch, share: float) -> tuple[float, Metrics]:
        n, alpha, sums = batch.numel(), self.temperature(), np.zeros(3)
        observation, noise = batch["observation"].numpy().reshape(n, -1), batch["noise"].numpy().reshape(n, 2, -1)[:, 1]
        weight, counted = self.weights(batch, n)
        for a in range(0, n, CHUNK):
            b = min(n, a + CHUNK)
            x = self.seen(observation[a:b])
            action, log_prob = self.policy.sample(x, noise[a:b])
            q = self.critic.forward(x, action)
            d_log_prob = np.float32(share) * alpha * counted[a:b]
            kernels.least(q, log_prob, alpha, weight[a:b], counted[a:b], share, sums)
            self.policy.add_gradient(self.critic.action_gradient(q), d_log_prob)
        loss, entropy, weighted = sums  # the last: of the entropy above its target, importance included
        above = weighted - self.agent.target_entropy * float(counted.sum())
        told = {"temperature": torch.tensor(float(alpha)), "entropy": torch.tensor(entropy, dtype=torch.float32)}
        if self.agent.config.learn_temperature:
            temperature_loss = float(alpha) * above
            told["temperature_loss"] = torch.tensor(temperature_loss, dtype=torch.float32)
            loss += temperature_loss
            if self.d_temperature is not None:
                self.d_temperature += share * temperature_loss
        return float(loss), told
