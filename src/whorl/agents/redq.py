"""Randomized ensembled double Q-learning. Chen et al. 2021, https://arxiv.org/abs/2101.05982. Deviations: docs/algorithms/redq.md"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from gymnasium import spaces
from torch import Tensor

from whorl.agents.agent import Agent
from whorl.agents.optimizers import adam
from whorl.agents.parts import count_update, learned, loss_of, mean_of, soft_actor_loss, td, warm_up
from whorl.batch import Batch, Metrics, Tree
from whorl.errors import BadInput
from whorl.feeds import Feed, Replay
from whorl.nets.encoder import EncoderFactory
from whorl.nets.ensemble import QEnsemble
from whorl.nets.heads import Temperature
from whorl.nets.target import Target
from whorl.options import Amount, Bounds, Count, Positive, Share
from whorl.policies.squashed import Squashed


@dataclass(frozen=True)
class REDQConfig:
    """Defaults: Chen et al. 2021, appendix B."""

    # Adam's step size, of actor and temperature
    learning_rate: Annotated[float, Amount] = 3e-4
    # Adam's step size, of all critics
    critic_learning_rate: Annotated[float, Amount] = 3e-4
    # gamma, per environment step
    discount: Annotated[float, Share] = 0.99
    # share of the way that the target critics go at each update
    target_rate: Annotated[float, Bounds(1e-9, 1)] = 0.005
    # N
    critics: Annotated[int, Bounds(1, sizes="members")] = 10
    # M: how many target critics, drawn anew at each update, the target is the smallest of
    subset: Annotated[int, Count] = 2
    # updates of the critics for one of the actor
    policy_delay: Annotated[int, Count] = 20
    # alpha at the start
    temperature: Annotated[float, Positive] = 1.0
    # False: alpha stays what it is
    learn_temperature: bool = True
    # of the policy, per action component, in units of half the action range [nats]
    target_entropy: float = -1.0
    # units of each hidden layer, actor and critics apart
    hidden: Annotated[tuple[int, ...], Count] = (256, 256)

    activation: Literal["tanh", "relu"] = "relu"

    feed: Feed = Replay(replay_ratio=20.0, warmup=5_000)


class REDQ(Agent[REDQConfig]):
    """SAC with many critics and many updates: the target is the smallest of a random few, the actor climbs the mean of all."""

    Config = REDQConfig
    policy: Squashed

    def __init__(self, policy: Squashed, critic: QEnsemble, config: REDQConfig = REDQConfig()):
        super().__init__(policy, config)
        if not 1 <= config.subset <= critic.members:
            raise BadInput(f"subset must be from 1 to the {critic.members} critics, got {config.subset}")
        self.critic, self.target = critic, Target(critic)
        self.temperature = Temperature(config.temperature).requires_grad_(config.learn_temperature)
        self.target_entropy = config.target_entropy * policy.outputs
        warm_up(self)
        self.optimizer = adam(learned(policy, self.temperature), config.learning_rate, eps=1e-8)
        self.critic_optimizer = adam(critic.parameters(), config.critic_learning_rate, eps=1e-8)

    @classmethod
    def build(
        cls, observation_space: spaces.Space, action_space: spaces.Space, config: REDQConfig, *, encoder: EncoderFactory | None = None
    ) -> REDQ:  # fmt: skip
        c = config
        policy = Squashed.build(
            observation_space, action_space, hidden=c.hidden, activation=c.activation,
            normalize=c.feed.normalize_observation, encoder=encoder,
        )  # fmt: skip
        return cls(
            policy, QEnsemble(observation_space, action_space, c.critics, c.hidden, c.activation, encoder=encoder), c
        )

    def value(self, observation: Tree) -> Tensor:
        """Mean Q(s, a) of the greedy action."""
        return self.critic(self.policy.normalizer(observation), self.policy(observation)).mean(0)

    def prepare(self, rollout: Batch) -> Batch:  # [T, N]
        rollout = super().prepare(rollout)
        warm_up(self)
        return rollout

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:  # [B] or [T, B]
        next, normal = batch["next"], self.policy.normalizer
        with torch.no_grad():
            action, log_prob = self.policy.sample(next["observation"], batch["noise"][..., 0, :])
            subset = batch["subset"].flatten(0, -2)[0]  # [M], of all rows
            few = self.target.module.some(subset, normal(next["observation"]), action)  # [M, B]
            next_value = few.amin(0) - self.temperature() * log_prob
            target = td(batch, next_value, self.config.discount)  # eq. 1
        q = self.critic(normal(batch["observation"]), batch["action"])  # [N, B]
        error = q - target
        loss = loss_of(error.square().sum(0), batch)
        spread = mean_of(q.std(0, correction=0), batch)
        return loss, {"q_mean": mean_of(q, batch), "q_std": spread, "priority": error.abs().mean(0)}

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:  # [B] or [T, B]
        """Algorithm 1, line 12, and the temperature's."""
        observation, c = batch["observation"], self.config
        action, log_prob = self.policy.sample(observation, batch["noise"][..., 1, :])
        q = self.critic(self.policy.normalizer(observation), action).mean(0)
        return soft_actor_loss(log_prob, q, self.temperature(), self.target_entropy, batch, c.learn_temperature)

    def update(self, batch: Batch) -> Metrics:
        c, shape = self.config, (*batch.shape, 2, self.policy.outputs)  # of the next and of the new actions
        numbers = self.noise((self.critic.members + math.prod(shape),))
        order = numbers[: self.critic.members].argsort()  # of independent numbers: a random permutation
        batch["subset"] = order[: c.subset].expand(*batch.shape, c.subset)
        batch["noise"] = numbers[self.critic.members :].view(shape)
        metrics = self.optimize(self.critic_loss, self.critic_optimizer, batch)
        if self.updates % c.policy_delay == 0:
            metrics |= self.optimize(self.actor_loss, self.optimizer, batch)
        self.target.follow(self.critic, c.target_rate)
        count_update(self)
        return metrics
