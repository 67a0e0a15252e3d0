"""Discrete soft actor-critic. Christodoulou 2019, https://arxiv.org/abs/1910.07207. Deviations: docs/algorithms/discrete_sac.md"""

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


class DiscreteSAC(Agent):
    """Twin critics with an entropy bonus and a categorical actor; expectations over actions are exact, nothing is sampled."""

    Config = DiscreteSACConfig
    policy: Stochastic

    def __init__(self, policy: Stochastic, critic: nn.Module, config: DiscreteSACConfig = DiscreteSACConfig()):
        super().__init__(policy, config)
        self.critic, self.target = critic, Target(critic)
        self.temperature = Temperature(config.temperature).requires_grad_(config.learn_temperature)
        learned = [p for part in (policy, self.temperature) for p in part.parameters() if p.requires_grad]
        self.optimizer = adam(learned, config.learning_rate, eps=1e-8)
        self.critic_optimizer = adam(critic.parameters(), config.critic_learning_rate, eps=1e-8)

    @classmethod
    def build(cls, observation_space, action_space, config: DiscreteSACConfig) -> DiscreteSAC:
        c, actions = config, discrete(action_space)
        policy = Stochastic.build(
            observation_space, action_space, hidden=c.hidden, activation=c.activation, initialization=c.initialization
        )  # fmt: skip
        return cls(policy, QEnsemble(observation_space, None, 2, c.hidden, c.activation, actions), c)

    def value(self, observation: Any) -> Tensor:
        """min Q(s, a) of the greedy action."""
        return taken(self.critic(observation).amin(0), self.policy.act(observation, None, None, None)[0]["action"])

    def prepare(self, rollout: Any) -> Any:  # [T, N]
        rollout = super().prepare(rollout)
        return rollout.select("observation", "is_first", "action", "action_mask", "mask", "next", strict=False)

    def log_policy(self, batch: Any) -> Tensor:
        """log pi(. | s) [B, A], very small where an action is masked."""
        distribution: Any = self.policy.distribution(self.policy.encode(batch), get(batch, "action_mask"))
        return distribution.logits.log_softmax(-1)

    def critic_loss(self, batch: Any) -> tuple[Tensor, Metrics]:  # [B]
        next, c = batch["next"], self.config
        with torch.no_grad():
            log_pi = self.log_policy(next)
            soft = self.target(next["observation"]).amin(0) - self.temperature() * log_pi  # [B, A]
            next_value = (log_pi.exp() * soft).sum(-1)  # eq. 10
            discount = get(batch, "next.discount", c.discount)
            target = td_target(next["reward"], next["terminated"], next_value, discount)
        q = taken(self.critic(batch["observation"]), batch["action"].expand(2, *batch["action"].shape))  # [2, B]
        error = q - target
        loss = weighted_mean(0.5 * error.square().sum(0), get(batch, "weight"))
        return loss, {"q_mean": q.mean(), "priority": error.abs().amax(0)}

    def actor_loss(self, batch: Any) -> tuple[Tensor, Metrics]:  # [B]
        """Eq. 11 and 12: they share no parameter, so one optimizer minimises both."""
        weight, log_pi = get(batch, "weight"), self.log_policy(batch)
        with torch.no_grad():
            q = self.critic(batch["observation"]).amin(0)
        pi, temperature = log_pi.exp(), self.temperature()
        actor_loss = weighted_mean((pi * (temperature.detach() * log_pi - q)).sum(-1), weight)
        entropy = -(pi * log_pi).detach().sum(-1)
        loss, metrics = actor_loss, {"temperature": temperature, "entropy": entropy.mean()}
        if self.config.learn_temperature:
            allowed = get(batch, "action_mask", torch.ones_like(q)).sum(-1)
            missing = self.config.target_entropy * allowed.log() - entropy
            metrics["temperature_loss"] = -temperature * weighted_mean(missing, weight)
            loss = actor_loss + metrics["temperature_loss"]
        return loss, metrics

    def update(self, batch: Any) -> Metrics:
        metrics = self.optimize(self.critic_loss, self.critic_optimizer, batch)
        metrics |= self.optimize(self.actor_loss, self.optimizer, batch)
        self.target.follow(self.critic, self.config.target_rate)
        self.updates += 1
        return metrics
