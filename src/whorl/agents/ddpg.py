"""Deep deterministic policy gradient. Lillicrap et al. 2016, https://arxiv.org/abs/1509.02971. Deviations: docs/algorithms/ddpg.md"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from gymnasium import spaces
from torch import Tensor, nn

from whorl.agents.agent import Agent
from whorl.agents.optimizers import adam
from whorl.agents.parts import count_update, loss_of, mean_of, td, warm_up
from whorl.batch import Batch, Metrics, Tree
from whorl.feeds import Feed, Replay
from whorl.nets.encoder import EncoderFactory
from whorl.nets.ensemble import QEnsemble
from whorl.nets.target import Target
from whorl.options import Amount, Bounds, Count, Share
from whorl.policies.deterministic import Deterministic


@dataclass(frozen=True)
class DDPGConfig:
    """Defaults: Lillicrap et al. 2016, section 7."""

    # Adam's step size, of the actor
    learning_rate: Annotated[float, Amount] = 1e-4
    # Adam's step size, of the critic
    critic_learning_rate: Annotated[float, Amount] = 1e-3
    # gamma, per environment step
    discount: Annotated[float, Share] = 0.99
    # tau: share of the way that both targets go at each update
    target_rate: Annotated[float, Bounds(1e-9, 1)] = 0.001
    # of exploration
    noise: Literal["gaussian", "ou"] = "ou"
    # of exploration, in units of half the action range
    std: float = 0.2
    # units of each hidden layer, actor and critic apart
    hidden: Annotated[tuple[int, ...], Count] = (400, 300)

    activation: Literal["tanh", "relu"] = "relu"

    feed: Feed = Replay(batch_size=64)


class DDPG(Agent[DDPGConfig]):
    """Q-learning with a deterministic actor in place of the maximum; the actor climbs the critic. One update of each per batch."""

    Config = DDPGConfig
    packed = "packed_deterministic:ddpg"
    policy: Deterministic

    def __init__(self, policy: Deterministic, critic: nn.Module, config: DDPGConfig = DDPGConfig()):
        super().__init__(policy, config)
        self.critic = critic
        self.target_policy, self.target = Target(policy, live=policy.normalizer), Target(critic)
        warm_up(self)
        self.optimizer = adam(policy.parameters(), config.learning_rate, eps=1e-8)
        self.critic_optimizer = adam(critic.parameters(), config.critic_learning_rate, eps=1e-8)

    @classmethod
    def build(
        cls, observation_space: spaces.Space, action_space: spaces.Space, config: DDPGConfig, *, encoder: EncoderFactory | None = None
    ) -> DDPG:  # fmt: skip
        c = config
        policy = Deterministic.build(
            observation_space, action_space, hidden=c.hidden, activation=c.activation, noise=c.noise, std=c.std,
            normalize=c.feed.normalize_observation, encoder=encoder,
        )  # fmt: skip
        return cls(policy, QEnsemble(observation_space, action_space, 1, c.hidden, c.activation, encoder=encoder), c)

    def value(self, observation: Tree) -> Tensor:
        """Q(s, pi(s))."""
        return self.critic(self.policy.normalizer(observation), self.policy(observation))[0]

    def prepare(self, rollout: Batch) -> Batch:  # [T, N]
        rollout = super().prepare(rollout)
        warm_up(self)
        return rollout

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:  # [B] or [T, B]
        next, normal = batch["next"], self.policy.normalizer
        with torch.no_grad():
            next_value = self.target(normal(next["observation"]), self.target_policy(next["observation"]))[0]
            target = td(batch, next_value, self.config.discount)
        q = self.critic(normal(batch["observation"]), batch["action"])[0]  # [B]
        error = q - target
        return loss_of(error.square(), batch), {"q_mean": mean_of(q, batch), "priority": error.abs()}

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:  # [B] or [T, B]
        """- mean Q(s, pi(s)), whose gradient is eq. 6."""
        return -loss_of(self.value(batch["observation"]), batch), {}

    def update(self, batch: Batch) -> Metrics:
        metrics = self.optimize(self.critic_loss, self.critic_optimizer, batch)
        metrics |= self.optimize(self.actor_loss, self.optimizer, batch)
        self.target.follow(self.critic, self.config.target_rate)
        self.target_policy.follow(self.policy, self.config.target_rate)
        count_update(self)
        return metrics
