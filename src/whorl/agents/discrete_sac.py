"""Discrete soft actor-critic. Christodoulou 2019, https://arxiv.org/abs/1910.07207. Deviations: docs/algorithms/discrete_sac.md"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from gymnasium import spaces
from torch import Tensor, nn

from whorl.agents.agent import Agent
from whorl.agents.optimizers import adam
from whorl.agents.parts import count_update, learned, loss_of, mean_of, td, with_temperature
from whorl.batch import Batch, Metrics, Tree, get
from whorl.feeds import Feed, Replay
from whorl.nets.encoder import EncoderFactory
from whorl.nets.ensemble import QEnsemble
from whorl.nets.heads import Temperature
from whorl.nets.target import Target
from whorl.options import Amount, Bounds, Count, Positive, Share
from whorl.policies.greedy import discrete, taken
from whorl.policies.stochastic import Stochastic


@dataclass(frozen=True)
class DiscreteSACConfig:
    """Defaults: Christodoulou 2019, table 1, but for sizes and rates of the feed and of the target."""

    # Adam's step size, of actor and temperature
    learning_rate: Annotated[float, Amount] = 3e-4
    # Adam's step size, of both critics
    critic_learning_rate: Annotated[float, Amount] = 3e-4
    # gamma, per environment step
    discount: Annotated[float, Share] = 0.99
    # tau: share of the way that the target critics go at each update
    target_rate: Annotated[float, Bounds(1e-9, 1)] = 0.005
    # alpha at the start
    temperature: Annotated[float, Positive] = 1.0
    # False: alpha stays what it is
    learn_temperature: bool = True
    # of the policy, as a share of that of uniform actions
    target_entropy: float = 0.98
    # units of each hidden layer, actor and critics apart
    hidden: Annotated[tuple[int, ...], Count] = (256, 256)

    activation: Literal["tanh", "relu"] = "relu"
    # of the actor, whose first actions are near uniform
    initialization: Literal["orthogonal", "uniform"] = "orthogonal"

    feed: Feed = Replay()


class DiscreteSAC(Agent[DiscreteSACConfig]):
    """Twin critics with an entropy bonus and a categorical actor; expectations over actions are exact, nothing is sampled."""

    Config = DiscreteSACConfig
    policy: Stochastic

    def __init__(self, policy: Stochastic, critic: nn.Module, config: DiscreteSACConfig = DiscreteSACConfig()):
        super().__init__(policy, config)
        self.critic, self.target = critic, Target(critic)
        self.temperature = Temperature(config.temperature).requires_grad_(config.learn_temperature)
        self.optimizer = adam(learned(policy, self.temperature), config.learning_rate, eps=1e-8)
        self.critic_optimizer = adam(critic.parameters(), config.critic_learning_rate, eps=1e-8)

    @classmethod
    def build(
        cls, observation_space: spaces.Space, action_space: spaces.Space, config: DiscreteSACConfig, *,
        encoder: EncoderFactory | None = None,
    ) -> DiscreteSAC:  # fmt: skip
        c, actions = config, discrete(action_space)
        policy = Stochastic.build(
            observation_space, action_space, hidden=c.hidden, activation=c.activation, initialization=c.initialization,
            normalize=c.feed.normalize_observation, encoder=encoder,
        )  # fmt: skip
        return cls(policy, QEnsemble(observation_space, None, 2, c.hidden, c.activation, actions, encoder=encoder), c)

    def value(self, observation: Tree) -> Tensor:
        """min Q(s, a) of the greedy action."""
        seen = self.policy.normalizer(observation)
        return taken(self.critic(seen).amin(0), self.policy.distribution(self.policy.encoder(seen)).mode)

    def prepare(self, rollout: Batch) -> Batch:  # [T, N]
        rollout = super().prepare(rollout)
        return rollout.select("observation", "is_first", "action", "action_mask", "mask", "next", strict=False)

    def log_policy(self, batch: Batch) -> Tensor:
        """log pi(. | s) [*rows, A], very small where an action is masked."""
        distribution: Any = self.policy.distribution(self.policy.encode(batch), get(batch, "action_mask"))
        return distribution.logits.log_softmax(-1)

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:  # [B] or [T, B]
        next, normal = batch["next"], self.policy.normalizer
        with torch.no_grad():
            log_pi = self.log_policy(next)
            soft = self.target(normal(next["observation"])).amin(0) - self.temperature() * log_pi  # [B, A]
            next_value = (log_pi.exp() * soft).sum(-1)  # eq. 10
            target = td(batch, next_value, self.config.discount)
        both = batch["action"].expand(2, *batch["action"].shape)
        q = taken(self.critic(normal(batch["observation"])), both)  # [2, B]
        error = q - target
        loss = loss_of(0.5 * error.square().sum(0), batch)
        return loss, {"q_mean": mean_of(q, batch), "priority": error.abs().amax(0)}

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:  # [B] or [T, B]
        """Eq. 11, and the temperature's, eq. 12, whose target is a share of the largest entropy that the mask allows."""
        c, log_pi, alpha = self.config, self.log_policy(batch), self.temperature()
        with torch.no_grad():
            q = self.critic(self.policy.normalizer(batch["observation"])).amin(0)
        pi = log_pi.exp()
        actor_loss = loss_of((pi * (alpha.detach() * log_pi - q)).sum(-1), batch)
        entropy = -(pi * log_pi).detach().sum(-1)
        target = c.target_entropy * get(batch, "action_mask", torch.ones_like(q)).sum(-1).log()
        return with_temperature(actor_loss, alpha, entropy, target, batch, c.learn_temperature)

    def update(self, batch: Batch) -> Metrics:
        metrics = self.optimize(self.critic_loss, self.critic_optimizer, batch)
        metrics |= self.optimize(self.actor_loss, self.optimizer, batch)
        self.target.follow(self.critic, self.config.target_rate)
        count_update(self)
        return metrics
