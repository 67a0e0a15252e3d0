"""The losses of DQN, C51 and QR-DQN by rows: what they say in torch, value, metrics and gradient, without autograd.

Each raises Incompatible, with the reason, for parts that are not plain.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from whorl.agents.packed_parts import NOTHING, Inputs, Part, Vectors, constant, layers, row_weights, tower_of
from whorl.batch import Batch, Metrics, get
from whorl.errors import Incompatible
from whorl.functional.kernels import value_losses as kernels
from whorl.nets.encoder import Encoder
from whorl.nets.packed import CHUNK, Rows, Vector
from whorl.nets.q import CategoricalQ, QNetwork, QuantileQ

if TYPE_CHECKING:
    from whorl.agents.c51 import C51
    from whorl.agents.dqn import DQN
    from whorl.agents.qr_dqn import QRDQN


def dqn(agent: DQN) -> list[Part]:
    """DQN's."""
    if agent.config.rescale:
        raise Incompatible("its values are rescaled")
    return _one(
        agent,
        agent.policy.q,
        agent.target.module,
        lambda *rows: kernels.td(*rows, agent.config.huber or inf),
        "td_error",
    )


def c51(agent: C51) -> list[Part]:
    """C51's."""
    z, target = _net(agent.policy.q, CategoricalQ), agent.target.module
    return _one(agent, z.net, target.net, lambda *rows: kernels.categorical_td(*rows, z.support.numpy()), "kl")


def qr_dqn(agent: QRDQN) -> list[Part]:
    """QR-DQN's."""

    def rows(*rows: Any) -> None:
        kernels.quantile_td(*rows, agent.config.quantiles, agent.config.huber)

    return _one(agent, _net(agent.policy.q, QuantileQ).net, agent.target.module.net, rows, "td_error")


def _net(q: nn.Module, kind: type) -> Any:
    if type(q) is not kind:
        raise Incompatible(f"its values are a {type(q).__name__}'s")
    return q


def _one(
    agent: DQN | C51 | QRDQN, net: nn.Module, target: nn.Module, rows: Callable[..., None], error: str
) -> list[Part]:
    def made(vectors: Vectors) -> QLearning:
        return QLearning(agent, QTower(net, vectors(agent.optimizer)), QTower(target), rows, error)

    return [Part(agent.loss, agent.optimizer, made)]


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
            self.advantage = tower_of([*shared, *layers(net.advantage)], net.activation, vector)
            return
        self.advantage, self.value = (
            tower_of(layers(part), net.activation, vector) for part in (net.advantage, net.value)
        )
        if shared:
            self.trunk = tower_of(shared, net.activation, vector, open=True)

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
        discount = constant(c.discount, n) if discount is None else discount.numpy().reshape(n)
        importance = constant(1.0, n) if importance is None else importance.numpy().reshape(n)
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
