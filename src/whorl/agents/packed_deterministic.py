"""The losses of TD3 and DDPG by rows: what they say in torch, value, metrics and gradient, without autograd.

Raises Incompatible, with the reason, for parts that are not plain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from whorl.agents.packed_pairs import PairLoss, Pairs, weights
from whorl.agents.packed_parts import Inputs, Part, Vectors, column, constant, tower
from whorl.batch import Batch, Metrics
from whorl.errors import Incompatible
from whorl.functional.kernels import soft_losses as kernels
from whorl.nets.packed import CHUNK, Rows, Vector
from whorl.policies.deterministic import Deterministic

if TYPE_CHECKING:
    from whorl.agents.ddpg import DDPG
    from whorl.agents.td3 import TD3

Noise = Callable[[Batch, slice], Rows | float]  # what is added to the target's actions in some rows of a batch


def td3(agent: TD3) -> list[Part]:
    """TD3's two."""

    def smoothing(batch: Batch, rows: slice) -> Rows:  # eq. 14
        std, most = agent.config.target_noise, agent.config.target_noise_clip
        return np.clip(std * column(batch, "noise", batch.numel())[rows], -most, most)

    return _two(agent, smoothing)


def ddpg(agent: DDPG) -> list[Part]:
    """DDPG's two, of a single critic."""
    return _two(agent, lambda batch, rows: 0.0, members=1)


def _two(agent: DDPG | TD3, noise: Noise, members: int | None = None) -> list[Part]:
    return [
        Part(agent.critic_loss, agent.critic_optimizer, lambda v: DeterministicCritic(agent, v, noise, members)),
        Part(agent.actor_loss, agent.optimizer, lambda v: DeterministicActor(agent, v)),
    ]


class DeterministicPolicy:
    """A `Deterministic` policy: greedy actions, and the gradient of the weights by them."""

    def __init__(self, policy: Deterministic, vector: Vector | None = None):
        if type(policy) is not Deterministic:
            raise Incompatible(f"its policy is a {type(policy).__name__}")
        self.tower = tower(policy.encoder, policy.head, vector)
        self.low, self.half = policy.low.numpy(), ((policy.high - policy.low) / 2).numpy()

    def act(self, x: Rows, added: Rows | float = 0.0) -> Rows:
        """x [n, inputs] -> actions [n, D]; added: noise in units of half the range, before these are cut at the bounds."""
        # torch's tanh: of an actor that is saturated, rounding is all that 1 - tanh^2 is
        self._unit = torch.from_numpy(self.tower.forward(x)).tanh().numpy()
        return self.low + self.half * (np.clip(self._unit + added, -1, 1) + 1)

    def add_gradient(self, d_action: Rows) -> None:
        """Add that of the weights, from that of the actions [n, D] that nothing was added to."""
        self.tower.add_gradient(d_action * self.half * (1 - self._unit**2))


class DeterministicCritic(PairLoss):
    """The critic loss of both."""

    def __init__(self, agent: DDPG | TD3, vectors: Vectors, noise: Noise, members: int | None):
        super().__init__(agent, vectors, factor=2.0, members=members)
        self.policy, self.noise = DeterministicPolicy(agent.target_policy.module), noise

    def next_value(self, x: Rows, batch: Batch, rows: slice) -> Rows:
        return self.target.forward(x, self.policy.act(x, self.noise(batch, rows))).min(0)


class DeterministicActor:
    """The actor loss of both, - mean Q_1(s, pi(s))."""

    def __init__(self, agent: DDPG | TD3, vectors: Vectors):
        self.seen = Inputs(agent.policy.normalizer, agent.policy.encoder)
        self.policy = DeterministicPolicy(agent.policy, vectors(agent.optimizer))
        self.critic = Pairs(agent.critic, members=1)

    def __call__(self, batch: Batch, share: float) -> tuple[float, Metrics]:
        n, sums = batch.numel(), np.zeros(3)
        observation, (weight, counted) = batch["observation"].numpy().reshape(n, -1), weights(batch, n)
        for a in range(0, n, CHUNK):
            b = min(n, a + CHUNK)
            x = self.seen(observation[a:b])
            q = self.critic.forward(x, self.policy.act(x))
            # SAC's without the entropy
            kernels.least(q, constant(0.0, b - a), np.float32(0), weight[a:b], counted[a:b], share, sums)
            self.policy.add_gradient(self.critic.action_gradient(q))
        return float(sums[0]), {}
