"""The losses of SAC by rows: what they say in torch, value, metrics and gradient, without autograd.

Raises Incompatible, with the reason, for parts that are not plain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from whorl.agents.packed_pairs import PairLoss, Pairs, weights
from whorl.agents.packed_parts import Inputs, Part, Vectors, tower
from whorl.batch import Batch, Metrics
from whorl.errors import Incompatible
from whorl.functional.kernels import soft_losses as kernels
from whorl.nets.heads import Temperature
from whorl.nets.packed import CHUNK, Rows, Vector
from whorl.policies.distributions import LOG_STD_RANGE
from whorl.policies.squashed import Squashed

if TYPE_CHECKING:
    from whorl.agents.sac import SAC


def sac(agent: SAC) -> list[Part]:
    """SAC's two."""
    return [
        Part(agent.critic_loss, agent.critic_optimizer, lambda vectors: SoftCritic(agent, vectors)),
        Part(agent.actor_loss, agent.optimizer, lambda vectors: SoftActor(agent, vectors)),
    ]


class SoftPolicy:
    """A `Squashed` policy: actions, their log-densities, and the gradient of both."""

    def __init__(self, policy: Squashed, vector: Vector | None = None):
        if type(policy) is not Squashed or policy.sde:
            raise Incompatible(
                "it explores by its state (sde)" if policy.sde else f"its policy is a {type(policy).__name__}"
            )
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


def alpha(temperature: Temperature) -> np.float32:
    """The temperature as it is."""
    return np.exp(temperature.log_temperature.detach().numpy())[()]


class SoftCritic(PairLoss):
    """SAC's critic loss."""

    def __init__(self, agent: SAC, vectors: Vectors):
        super().__init__(agent, vectors, factor=1.0)
        self.policy, self.temperature = SoftPolicy(agent.policy), agent.temperature

    def next_value(self, x: Rows, batch: Batch, rows: slice) -> Rows:
        action, log_prob = self.policy.sample(x, batch["noise"].numpy().reshape(batch.numel(), 2, -1)[rows, 0])
        return self.target.forward(x, action).min(0) - alpha(self.temperature) * log_prob


class SoftActor:
    """SAC's actor loss, with that of the temperature."""

    def __init__(self, agent: SAC, vectors: Vectors):
        vector = vectors(agent.optimizer)
        self.agent, self.seen = agent, Inputs(agent.policy.normalizer, agent.policy.encoder)
        self.policy, self.critic = SoftPolicy(agent.policy, vector), Pairs(agent.critic)
        learned = agent.temperature.log_temperature
        self.d_temperature = vector.like(learned, vector.gradient) if learned.requires_grad else None

    def __call__(self, batch: Batch, share: float) -> tuple[float, Metrics]:
        n, by, sums = batch.numel(), alpha(self.agent.temperature), np.zeros(3)
        observation, noise = batch["observation"].numpy().reshape(n, -1), batch["noise"].numpy().reshape(n, 2, -1)[:, 1]
        weight, counted = weights(batch, n)
        for a in range(0, n, CHUNK):
            b = min(n, a + CHUNK)
            x = self.seen(observation[a:b])
            action, log_prob = self.policy.sample(x, noise[a:b])
            q = self.critic.forward(x, action)
            d_log_prob = np.float32(share) * by * counted[a:b]
            kernels.least(q, log_prob, by, weight[a:b], counted[a:b], share, sums)
            self.policy.add_gradient(self.critic.action_gradient(q), d_log_prob)
        loss, entropy, weighted = sums  # the last: of the entropy above its target, importance included
        above = weighted - self.agent.target_entropy * float(counted.sum())
        told = {"temperature": torch.tensor(float(by)), "entropy": torch.tensor(entropy, dtype=torch.float32)}
        if self.agent.config.learn_temperature:
            temperature_loss = float(by) * above
            told["temperature_loss"] = torch.tensor(temperature_loss, dtype=torch.float32)
            loss += temperature_loss
            if self.d_temperature is not None:
                self.d_temperature += share * temperature_loss
        return float(loss), told
