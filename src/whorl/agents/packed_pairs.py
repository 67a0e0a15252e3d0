"""Critics of (observation, action) by rows: their values, and the squared loss that SAC, TD3 and DDPG have in common.

Raises Incompatible, with the reason, for parts that are not plain.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from whorl.agents.packed_parts import Inputs, Vectors, column, constant, row_weights
from whorl.batch import Batch, Metrics, get
from whorl.errors import Incompatible
from whorl.functional.kernels import soft_losses as kernels
from whorl.nets.ensemble import EnsembleLinear, QEnsemble
from whorl.nets.mlp import alternate
from whorl.nets.packed import CHUNK, Rows, Tower, Vector, member_layers

if TYPE_CHECKING:
    from whorl.agents.ddpg import DDPG
    from whorl.agents.sac import SAC
    from whorl.agents.td3 import TD3


class Pairs:
    """A `QEnsemble` of values of (observation, action), member by member: all of them, or the first `members`."""

    def __init__(self, net: nn.Module, vector: Vector | None = None, members: int | None = None):
        if type(net) is not QEnsemble or not net.scalar:
            raise Incompatible(f"its critic is a {type(net).__name__}")
        layers = list(net.layers)
        activation = "tanh" if any(isinstance(layer, nn.Tanh) for layer in layers) else "relu"
        if not alternate(layers, activation, EnsembleLinear):
            raise Incompatible(f"its critic is more than linear layers and {activation} between them")
        self.encoder, inputs = net.inputs.encoder, net.inputs
        self.towers = [Tower(member_layers(layers, e, vector), activation) for e in range(members or net.members)]
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


class PairLoss(ABC):
    """factor / 2 * sum_e (q_e - target)^2 of critics q_e, target = r + discount * (1 - terminated) * V of what comes next.

    members: only the first so many critics learn and are asked.
    """

    def __init__(self, agent: SAC | TD3 | DDPG, vectors: Vectors, factor: float, members: int | None = None):
        self.agent, self.factor = agent, factor
        self.critic = Pairs(agent.critic, vectors(agent.critic_optimizer), members)
        self.target = Pairs(agent.target.module, members=members)
        self.seen = Inputs(agent.policy.normalizer, agent.policy.encoder, self.critic.encoder)

    @abstractmethod
    def next_value(self, x: Rows, batch: Batch, rows: slice) -> Rows:
        """V [n] of the batch's next observations in these rows, x [n, inputs]."""

    def __call__(self, batch: Batch, share: float) -> tuple[float, Metrics]:
        n, next = batch.numel(), batch["next"]
        observation, successor = (x["observation"].numpy().reshape(n, -1) for x in (batch, next))
        action, (weight, counted) = column(batch, "action", n), weights(batch, n)
        reward, terminated = (next[key].numpy().reshape(n) for key in ("reward", "terminated"))
        own = get(next, "discount")
        discount = constant(self.agent.config.discount, n) if own is None else own.numpy().reshape(n)
        sums, size = np.zeros(2), np.empty(n, np.float32)
        for a in range(0, n, CHUNK):
            b = min(n, a + CHUNK)
            value = self.next_value(self.seen(successor[a:b]), batch, slice(a, b))
            q = self.critic.forward(self.seen(observation[a:b]), action[a:b])
            kernels.squared(
                q, value, reward[a:b], terminated[a:b], discount[a:b], weight[a:b], counted[a:b], self.factor * share, size[a:b], sums
            )  # fmt: skip
            self.critic.add_gradient(q)
        told = {
            "q_mean": torch.tensor(sums[1], dtype=torch.float32),
            "priority": torch.from_numpy(size).view(batch.batch_size),
        }
        return self.factor * float(sums[0]), told


def weights(batch: Batch, n: int) -> tuple[Rows, Rows]:
    """(what a row counts in a mean, the same times its importance weight), each [n]."""
    weight, _, _ = row_weights(batch, n)
    importance = get(batch, "weight")
    return weight, weight if importance is None else weight * importance.numpy().reshape(n)
