"""DQN with quantile regression. Dabney et al. 2018, https://arxiv.org/abs/1710.10044. Deviations: docs/algorithms/qr_dqn.md"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from gymnasium import spaces
from torch import Tensor

from whorl.agents.agent import Agent
from whorl.agents.optimizers import adam
from whorl.agents.parts import count_update, loss_of, mean_of, td_atoms
from whorl.batch import Batch, Metrics, Tree, get
from whorl.feeds import Feed, Replay
from whorl.functional.distributional import midpoints, quantile_huber
from whorl.nets.encoder import EncoderFactory
from whorl.nets.normalizer import observation_normalizer
from whorl.nets.q import QNetwork, QuantileQ
from whorl.nets.target import Target
from whorl.options import Amount, Bounds, Count, Share
from whorl.policies.greedy import Greedy, best, discrete, taken


@dataclass(frozen=True)
class QRDQNConfig:
    # Adam's step size
    learning_rate: Annotated[float, Amount] = 1e-3
    # gamma, per environment step
    discount: Annotated[float, Share] = 0.99
    # N; 200 in the paper
    quantiles: Annotated[int, Bounds(2, sizes="outputs")] = 50
    # kappa: TD error from which the loss is linear; 0 = the sharp quantile loss
    huber: Annotated[float, Amount] = 1.0
    # the online network chooses a', the target network gives its quantiles
    double: bool = False
    # one pair of streams for each quantile (Wang et al. 2016)
    dueling: bool = False
    # gradient updates between two steps of the target network
    target_every: Annotated[int, Count] = 1
    # how far it goes towards the online network; 1 = all the way, a copy
    target_rate: Annotated[float, Bounds(1e-9, 1)] = 0.02
    # share of uniform actions at the start
    epsilon: Annotated[float, Share] = 1.0
    # at the end
    epsilon_min: Annotated[float, Share] = 0.05
    # environment steps between the two, on a straight line
    epsilon_steps: Annotated[int, Amount] = 10_000
    # environment i of N: epsilon ** (1 + spread i / (N - 1)); 7 in Horgan et al. 2018
    epsilon_spread: Annotated[float, Amount] = 0.0
    # global norm
    max_grad_norm: Annotated[float, Amount] = 10.0
    # units of each hidden layer; the last one twice when dueling
    hidden: Annotated[tuple[int, ...], Count] = (120, 84)

    activation: Literal["tanh", "relu"] = "relu"

    feed: Feed = Replay(batch_size=128, capacity=100_000, replay_ratio=0.125, warmup=1_000)


class QRDQN(Agent[QRDQNConfig]):
    """Quantile Huber loss between the quantiles of r + gamma Z(s', a*) and those of Z(s, a)."""

    Config = QRDQNConfig
    packed = "packed_values:qr_dqn"
    policy: Greedy

    def __init__(self, policy: Greedy, config: QRDQNConfig = QRDQNConfig()):
        """policy: its `q` is a QuantileQ."""
        super().__init__(policy, config)
        self.target = Target(policy.q)
        self.optimizer = adam(policy.q.parameters(), config.learning_rate, eps=1e-8, max_grad_norm=config.max_grad_norm)

    @classmethod
    def build(
        cls, observation_space: spaces.Space, action_space: spaces.Space, config: QRDQNConfig, *, encoder: EncoderFactory | None = None
    ) -> QRDQN:  # fmt: skip
        c, actions = config, discrete(action_space)
        net = QNetwork(observation_space, actions, c.hidden, c.activation, c.quantiles, c.dueling, encoder=encoder)
        q = QuantileQ(net)
        normalizer = observation_normalizer(observation_space, c.feed.normalize_observation)
        return cls(
            Greedy(q, action_space, epsilon=c.epsilon, epsilon_spread=c.epsilon_spread, normalizer=normalizer), c
        )

    def value(self, observation: Tree) -> Tensor:
        """max_a Q(observation, a)."""
        return self.policy.q(self.policy.normalizer(observation)).amax(-1)

    def prepare(self, rollout: Batch) -> Batch:  # [T, N]
        rollout, c = super().prepare(rollout), self.config
        self.report["epsilon"] = self.policy.anneal(int(self.env_steps), c.epsilon_steps, c.epsilon, c.epsilon_min)
        return rollout

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:  # [B] or [T, B]
        c, normal, next = self.config, self.policy.normalizer, batch["next"]
        z: Any = self.policy.q
        successor = normal(next["observation"])
        quantiles = taken(z.quantiles(normal(batch["observation"])), batch["action"])  # [B, N]
        with torch.no_grad():
            next_quantiles = self.target.module.quantiles(successor)  # [B, A, N]
            chooser = z(successor) if c.double else next_quantiles.mean(-1)
            next_value = taken(next_quantiles, best(chooser, get(batch, "next.action_mask")))
            target = td_atoms(batch, next_value, c.discount)
        tau = midpoints(c.quantiles, quantiles)
        loss = loss_of(quantile_huber(quantiles, target, tau, c.huber), batch)
        value = quantiles.mean(-1)
        size = (target.mean(-1) - value).abs()
        return loss, {"q_mean": mean_of(value, batch), "td_error": mean_of(size, batch), "priority": size}

    def update(self, batch: Batch) -> Metrics:
        metrics = super().update(batch)
        if count_update(self, self.config.target_every):
            self.target.follow(self.policy.q, self.config.target_rate)
        return metrics
