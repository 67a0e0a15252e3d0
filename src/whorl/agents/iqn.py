"""Implicit quantile networks. Dabney et al. 2018, https://arxiv.org/abs/1806.06923. Deviations: docs/algorithms/iqn.md"""

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
from whorl.functional.distributional import quantile_huber
from whorl.nets.encoder import EncoderFactory
from whorl.nets.normalizer import observation_normalizer
from whorl.nets.q import ImplicitQuantileQ, QNetwork
from whorl.nets.target import Target
from whorl.options import Amount, Bounds, Count, Share
from whorl.policies.greedy import Greedy, best, discrete, taken


@dataclass(frozen=True)
class IQNConfig:
    # Adam's step size
    learning_rate: Annotated[float, Amount] = 1e-3
    # gamma, per environment step
    discount: Annotated[float, Share] = 0.99
    # N: taus of Z(s, a) in the loss; 64 in the paper
    samples: Annotated[int, Bounds(1, sizes="losses")] = 8
    # N': taus of Z(s', a*); 64 in the paper
    target_samples: Annotated[int, Bounds(1, sizes="losses")] = 8
    # K: taus whose mean is q
    acting_samples: Annotated[int, Bounds(1, sizes="actions")] = 32
    # n: terms of the embedding of tau
    cosines: Annotated[int, Bounds(1, sizes="outputs")] = 64
    # kappa: TD error from which the loss is linear; 0 = the sharp quantile loss
    huber: Annotated[float, Amount] = 1.0
    # the online network chooses a', the target network gives its quantiles
    double: bool = False
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
    # units of each hidden layer
    hidden: Annotated[tuple[int, ...], Count] = (120, 84)

    activation: Literal["tanh", "relu"] = "relu"

    feed: Feed = Replay(batch_size=128, capacity=100_000, replay_ratio=0.125, warmup=1_000)


class IQN(Agent[IQNConfig]):
    """Quantile Huber loss between quantiles of r + gamma Z(s', a*) and of Z(s, a), each at taus drawn anew."""

    Config = IQNConfig
    policy: Greedy

    def __init__(self, policy: Greedy, config: IQNConfig = IQNConfig()):
        """policy: its `q` is an ImplicitQuantileQ."""
        super().__init__(policy, config)
        self.target = Target(policy.q)
        self.optimizer = adam(policy.q.parameters(), config.learning_rate, eps=1e-8, max_grad_norm=config.max_grad_norm)

    @classmethod
    def build(
        cls, observation_space: spaces.Space, action_space: spaces.Space, config: IQNConfig, *, encoder: EncoderFactory | None = None
    ) -> IQN:  # fmt: skip
        c = config
        net = QNetwork(observation_space, discrete(action_space), c.hidden, c.activation, encoder=encoder)
        q = ImplicitQuantileQ(net, c.cosines, c.acting_samples)
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
        tau, next_tau = batch["noise"].split([c.samples, c.target_samples], -1)  # [B, N], [B, N']
        quantiles = taken(z.quantiles(normal(batch["observation"]), tau), batch["action"])  # [B, N]
        with torch.no_grad():
            chooser = (z if c.double else self.target)(successor)  # [B, A]
            next_quantiles = self.target.module.quantiles(successor, next_tau)  # [B, A, N']
            next_value = taken(next_quantiles, best(chooser, get(batch, "next.action_mask")))
            target = td_atoms(batch, next_value, c.discount)
        loss = loss_of(quantile_huber(quantiles, target, tau, c.huber), batch)
        value = quantiles.mean(-1)
        size = (target.mean(-1) - value).abs()
        return loss, {"q_mean": mean_of(value, batch), "td_error": mean_of(size, batch), "priority": size}

    def update(self, batch: Batch) -> Metrics:
        batch["noise"] = self.noise((*batch.shape, self.config.samples + self.config.target_samples), "uniform")
        metrics = super().update(batch)
        if count_update(self, self.config.target_every):
            self.target.follow(self.policy.q, self.config.target_rate)
        return metrics
