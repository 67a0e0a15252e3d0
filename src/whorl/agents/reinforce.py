"""REINFORCE. Williams 1992, https://doi.org/10.1007/BF00992696. Deviations: docs/algorithms/reinforce.md"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from whorl.agents.agent import Agent, Metrics, adam
from whorl.batch import get, values
from whorl.errors import Incompatible
from whorl.feeds import Rollouts
from whorl.functional import discounted_return, masked_mean, reward_to_go, score_function, standardise, value_loss
from whorl.nets.heads import Critic
from whorl.policies.stochastic import Stochastic


@dataclass(frozen=True)
class REINFORCEConfig:
    learning_rate: float = 1e-3  # Adam's step size
    anneal_steps: int = 0  # environment steps over which the learning rate falls linearly to 0; 0 = constant
    discount: float = 0.99  # gamma, per environment step
    baseline: Literal["none", "mean", "value"] = "value"  # what is subtracted from the return-to-go
    value_weight: float = 0.5  # of the critic's loss (baseline "value")
    entropy_weight: float = 0.0  # positive raises the entropy
    max_grad_norm: float = 0.5  # global norm
    normalize_advantage: bool = True  # over each batch of episodes
    normalize_observation: bool = False  # by running mean and std, inside the policy
    hidden: tuple[int, ...] = (64, 64)  # units of each hidden layer
    activation: Literal["tanh", "relu"] = "tanh"
    std: Literal["independent", "dependent"] = (
        "independent"  # of a Gaussian: a parameter, or a function of the observation
    )
    squash: bool = False  # tanh onto the bounds of a Box
    feed: Rollouts = Rollouts(steps=256, unit="episode")


class REINFORCE(Agent):
    """Whole episodes, returns-to-go, a baseline, one gradient step.

    An episode cut by a time limit goes on in expectation: with baseline "value" its return is bootstrapped there, without a
    critic it can only be counted as it stands.
    """

    Config = REINFORCEConfig

    def __init__(self, policy: Stochastic, critic: nn.Module | None, config: REINFORCEConfig = REINFORCEConfig()):
        super().__init__(policy, config)
        self.critic = critic
        self.optimizer = adam(self.parameters(), config.learning_rate)

    @classmethod
    def build(cls, observation_space, action_space, config: REINFORCEConfig) -> REINFORCE:
        if config.feed.unit != "episode":
            raise Incompatible(f"REINFORCE needs whole episodes: feed.unit must be 'episode', got {config.feed.unit!r}")
        policy = Stochastic(
            observation_space,
            action_space,
            config.hidden,
            config.activation,
            config.std,
            config.squash,
            config.normalize_observation,
        )
        critic = Critic(observation_space, config.hidden, config.activation) if config.baseline == "value" else None
        return cls(policy, critic, config)

    def value(self, observation: Any) -> Tensor:
        assert self.critic is not None
        return self.critic(self.policy.normalizer(observation))

    def prepare(self, rollout: Any) -> Any:  # [T, N], whole episodes
        rollout = super().prepare(rollout)
        next, c, mask = rollout["next"], self.config, get(rollout, "mask")
        discount = get(rollout, "next.discount", c.discount)
        if c.baseline == "value":
            baseline, next_value = values(self.value, rollout)
            target = discounted_return(next["reward"], next_value, next["terminated"], next["truncated"], discount)
        else:
            target = reward_to_go(next["reward"], next["terminated"], next["truncated"], discount)
            baseline = masked_mean(target, mask) if c.baseline == "mean" else torch.zeros(())
        advantage = target - baseline
        if c.normalize_advantage:
            advantage = standardise(advantage, mask)
        kept = rollout.select("observation", "action", "action_mask", "mask", strict=False)
        return kept.update({"advantage": advantage, "return": target})

    def loss(self, batch: Any) -> tuple[Tensor, Metrics]:  # [B]
        c, mask = self.config, get(batch, "mask")
        distribution = self.policy.distribution(self.policy.encode(batch), get(batch, "action_mask"))
        policy_loss = -masked_mean(score_function(distribution.log_prob(batch["action"]), batch["advantage"]), mask)
        entropy = masked_mean(distribution.entropy(), mask)
        loss = policy_loss - c.entropy_weight * entropy
        metrics = {"policy_gradient_loss": policy_loss, "entropy_loss": -entropy}
        if self.critic is not None:
            metrics["value_loss"] = masked_mean(value_loss(self.value(batch["observation"]), batch["return"]), mask)
            loss = loss + c.value_weight * metrics["value_loss"]
        return loss, metrics

    def learn(self, buffer: Any) -> Metrics:
        self.anneal(self.optimizer)
        return super().learn(buffer)
