"""Soft actor-critic. Haarnoja et al. 2018b, https://arxiv.org/abs/1812.05905. Deviations: docs/algorithms/sac.md"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from whorl.agents.agent import Agent, Metrics, adam
from whorl.batch import get
from whorl.feeds import Feed, Replay
from whorl.functional.bellman import td_target, weighted_mean
from whorl.nets.ensemble import QEnsemble
from whorl.nets.heads import Temperature
from whorl.nets.target import Target
from whorl.options import Amount, Bounds, Count, Positive, Share
from whorl.policies.squashed import Squashed


@dataclass(frozen=True)
class SACConfig:
    """Defaults: Haarnoja et al. 2018b, table 1."""

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
    # of the policy, per action component, in units of half the action range [nats]
    target_entropy: float = -1.0
    # units of each hidden layer, actor and critics apart
    hidden: Annotated[tuple[int, ...], Count] = (256, 256)

    activation: Literal["tanh", "relu"] = "relu"
    # state-dependent exploration (Raffin et al. 2021) in place of a std that the net gives
    sde: bool = False
    # steps for which an exploration matrix is held; 0 = to the episode's end
    sde_every: Annotated[int, Amount] = 0
    # log std of the matrix at the start
    sde_log_std: float = -3.0

    feed: Feed = Replay()


class SAC(Agent):
    """Twin critics with an entropy bonus, a squashed Gaussian actor, a learned temperature; one update of each per batch."""

    Config = SACConfig
    policy: Squashed

    def __init__(self, policy: Squashed, critic: nn.Module, config: SACConfig = SACConfig()):
        super().__init__(policy, config)
        self.critic, self.target = critic, Target(critic)
        self.temperature = Temperature(config.temperature).requires_grad_(config.learn_temperature)
        self.target_entropy = config.target_entropy * policy.outputs
        self.policy.warming.fill_(config.feed.warmup > 0)
        learned = [p for part in (policy, self.temperature) for p in part.parameters() if p.requires_grad]
        self.optimizer = adam(learned, config.learning_rate, eps=1e-8)
        self.critic_optimizer = adam(critic.parameters(), config.critic_learning_rate, eps=1e-8)

    @classmethod
    def build(cls, observation_space, action_space, config: SACConfig) -> SAC:
        c = config
        policy = Squashed.build(
            observation_space, action_space, hidden=c.hidden, activation=c.activation,
            sde=c.sde, sde_every=c.sde_every, sde_log_std=c.sde_log_std
        )  # fmt: skip
        return cls(policy, QEnsemble(observation_space, action_space, 2, config.hidden, config.activation), config)

    def value(self, observation: Any) -> Tensor:
        """min Q(s, a) of the greedy action."""
        action = self.policy.act(observation, None, None, None)[0]["action"]
        return self.critic(observation, action).amin(0)

    def prepare(self, rollout: Any) -> Any:  # [T, N]
        rollout = super().prepare(rollout)
        self.policy.warming.copy_(self.env_steps < self.config.feed.warmup)
        return rollout

    def critic_loss(self, batch: Any) -> tuple[Tensor, Metrics]:  # [B]
        next, c = batch["next"], self.config
        with torch.no_grad():
            action, log_prob = self.policy.sample(next["observation"], batch["noise"][:, 0])
            next_value = self.target(next["observation"], action).amin(0) - self.temperature() * log_prob
            discount = get(batch, "next.discount", c.discount)
            target = td_target(next["reward"], next["terminated"], next_value, discount)
        q = self.critic(batch["observation"], batch["action"])  # [2, B]
        error = q - target
        loss = weighted_mean(0.5 * error.square().sum(0), get(batch, "weight"))  # eq. 5, of both
        return loss, {"q_mean": q.mean(), "priority": error.abs().amax(0)}

    def actor_loss(self, batch: Any) -> tuple[Tensor, Metrics]:  # [B]
        """Eq. 7 and 18: they share no parameter, so one optimizer minimises both."""
        weight = get(batch, "weight")
        action, log_prob = self.policy.sample(batch["observation"], batch["noise"][:, 1])
        q = self.critic(batch["observation"], action).min(0).values
        temperature = self.temperature()
        actor_loss = weighted_mean(temperature.detach() * log_prob - q, weight)
        entropy = -log_prob.detach()
        loss, metrics = actor_loss, {"temperature": temperature, "entropy": entropy.mean()}
        if self.config.learn_temperature:
            metrics["temperature_loss"] = temperature * weighted_mean(entropy - self.target_entropy, weight)
            loss = actor_loss + metrics["temperature_loss"]
        return loss, metrics

    def update(self, batch: Any) -> Metrics:
        batch["noise"] = self.noise((*batch.shape, 2, self.policy.outputs))  # of the next and of the new actions
        metrics = self.optimize(self.critic_loss, self.critic_optimizer, batch)
        metrics |= self.optimize(self.actor_loss, self.optimizer, batch)
        self.target.follow(self.critic, self.config.target_rate)
        self.updates += 1
        return metrics
