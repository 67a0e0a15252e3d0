"""Twin delayed DDPG. Fujimoto et al. 2018, https://arxiv.org/abs/1802.09477. Deviations: docs/algorithms/td3.md"""

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
from whorl.nets.target import Target
from whorl.options import Amount, Bounds, Count, Share
from whorl.policies.deterministic import Deterministic


@dataclass(frozen=True)
class TD3Config:
    """Defaults: the authors' code for v2 of the paper, https://github.com/sfujim/TD3."""

    # Adam's step size, of the actor
    learning_rate: Annotated[float, Amount] = 3e-4
    # Adam's step size, of both critics
    critic_learning_rate: Annotated[float, Amount] = 3e-4
    # gamma, per environment step
    discount: Annotated[float, Share] = 0.99
    # tau: share of the way that the targets go at each update of the actor
    target_rate: Annotated[float, Bounds(1e-9, 1)] = 0.005
    # updates of the critics for one of the actor and the targets
    policy_delay: Annotated[int, Count] = 2
    # std of the smoothing noise on the target's action, in units of half the action range
    target_noise: Annotated[float, Amount] = 0.2
    # the noise is cut at +- this, in the same units
    target_noise_clip: Annotated[float, Amount] = 0.5
    # of exploration
    noise: Literal["gaussian", "ou"] = "gaussian"
    # of exploration, in units of half the action range
    std: float = 0.1
    # units of each hidden layer, actor and critics apart
    hidden: Annotated[tuple[int, ...], Count] = (256, 256)

    activation: Literal["tanh", "relu"] = "relu"

    feed: Feed = Replay(warmup=25_000)


class TD3(Agent):
    """DDPG with the smaller of two critics, a smoothed target action, and an actor that moves less often."""

    Config = TD3Config
    policy: Deterministic

    def __init__(self, policy: Deterministic, critic: nn.Module, config: TD3Config = TD3Config()):
        super().__init__(policy, config)
        self.critic = critic
        self.target_policy, self.target = Target(policy), Target(critic)
        self.policy.warming.fill_(config.feed.warmup > 0)
        self.optimizer = adam(policy.parameters(), config.learning_rate, eps=1e-8)
        self.critic_optimizer = adam(critic.parameters(), config.critic_learning_rate, eps=1e-8)

    @classmethod
    def build(cls, observation_space, action_space, config: TD3Config) -> TD3:
        c = config
        policy = Deterministic.build(
            observation_space, action_space, hidden=c.hidden, activation=c.activation, noise=c.noise, std=c.std
        )  # fmt: skip
        return cls(policy, QEnsemble(observation_space, action_space, 2, config.hidden, config.activation), config)

    def value(self, observation: Any) -> Tensor:
        """min Q(s, pi(s))."""
        return self.critic(observation, self.policy(observation)).amin(0)

    def prepare(self, rollout: Any) -> Any:  # [T, N]
        rollout = super().prepare(rollout)
        self.policy.warming.copy_(self.env_steps < self.config.feed.warmup)
        return rollout

    def critic_loss(self, batch: Any) -> tuple[Tensor, Metrics]:  # [B]
        next, c = batch["next"], self.config
        with torch.no_grad():
            noise = (c.target_noise * batch["noise"]).clamp(-c.target_noise_clip, c.target_noise_clip)  # eq. 14
            actor = self.target_policy.module
            action = actor.scale(actor.unit(next["observation"]) + noise)
            next_value = self.target(next["observation"], action).amin(0)  # eq. 10
            discount = get(batch, "next.discount", c.discount)
            target = td_target(next["reward"], next["terminated"], next_value, discount)
        q = self.critic(batch["observation"], batch["action"])  # [2, B]
        error = q - target
        loss = weighted_mean(error.square().sum(0), get(batch, "weight"))
        return loss, {"q_mean": q.mean(), "priority": error.abs().amax(0)}

    def actor_loss(self, batch: Any) -> tuple[Tensor, Metrics]:  # [B]
        """- mean Q_1(s, pi(s))."""
        q = self.critic(batch["observation"], self.policy(batch["observation"]))[0]
        return -weighted_mean(q, get(batch, "weight")), {}

    def update(self, batch: Any) -> Metrics:
        batch["noise"] = self.noise((*batch.shape, self.policy.outputs))
        metrics = self.optimize(self.critic_loss, self.critic_optimizer, batch)
        self.updates += 1
        if self.updates % self.config.policy_delay == 0:
            self.report |= self.optimize(self.actor_loss, self.optimizer, batch)  # of the last one that there was
            self.target.follow(self.critic, self.config.target_rate)
            self.target_policy.follow(self.policy, self.config.target_rate)
        return metrics
