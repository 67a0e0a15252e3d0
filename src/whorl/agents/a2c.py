"""Advantage actor-critic, synchronous. Mnih et al. 2016, https://arxiv.org/abs/1602.01783. Deviations: docs/algorithms/a2c.md"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from whorl.agents.agent import Agent
from whorl.agents.optimizers import adam, anneal
from whorl.batch import Metrics, get, values
from whorl.feeds import Rollouts
from whorl.functional import explained_variance, gae, masked_mean, score_function, standardise, value_loss
from whorl.nets.heads import Critic
from whorl.nets.normalizer import NoNormalizer, Normalizer
from whorl.policies.stochastic import Stochastic


@dataclass(frozen=True)
class A2CConfig:
    """Defaults: Mnih et al. 2016, with Adam in place of the shared RMSprop."""

    learning_rate: float = 7e-4  # Adam's step size
    anneal_steps: int = 0  # environment steps over which the learning rate falls linearly to 0; 0 = constant
    discount: float = 0.99  # gamma, per environment step
    trace_decay: float = 1.0  # lambda of GAE; 1 = the n-step advantages of the paper
    entropy_weight: float = 0.01  # beta of the paper
    value_weight: float = 0.5  # of the critic's loss beside the policy's
    max_grad_norm: float = 0.5  # global norm
    normalize_advantage: bool = False  # over each rollout
    normalize_observation: bool = False  # by running mean and std, inside the policy
    normalize_return: bool = False  # the critic predicts (return - mean) / std, running
    hidden: tuple[int, ...] = (64, 64)  # units of each hidden layer, actor and critic apart
    activation: Literal["tanh", "relu"] = "tanh"
    std: Literal["independent", "dependent"] = (
        "independent"  # of a Gaussian: a parameter, or a function of the observation
    )
    squash: bool = False  # tanh onto the bounds of a Box
    feed: Rollouts = Rollouts(steps=8)


class A2C(Agent):
    """One gradient step on each short rollout: score function with bootstrapped advantages, critic by regression."""

    Config = A2CConfig

    def __init__(self, policy: Stochastic, critic: nn.Module, config: A2CConfig = A2CConfig()):
        super().__init__(policy, config)
        self.critic = critic
        self.return_normalizer = Normalizer() if config.normalize_return else NoNormalizer()
        self._return_moments: list = []
        self.optimizer = adam(self.parameters(), config.learning_rate, max_grad_norm=config.max_grad_norm)

    @classmethod
    def build(cls, observation_space, action_space, config: A2CConfig) -> A2C:
        c = config
        policy = Stochastic.build(
            observation_space, action_space, hidden=c.hidden, activation=c.activation,
            normalize=c.normalize_observation, std=c.std, squash=c.squash,
        )  # fmt: skip
        return cls(policy, Critic(observation_space, config.hidden, config.activation), config)

    def value(self, observation: Any) -> Tensor:
        """V(observation), in the units of the normalized return."""
        return self.critic(self.policy.normalizer(observation))

    def prepare(self, rollout: Any) -> Any:  # [T, N]
        rollout = super().prepare(rollout)
        next, c, mask = rollout["next"], self.config, get(rollout, "mask")
        value, next_value = values(self.value, rollout)
        value, next_value = self.return_normalizer.inverse(value), self.return_normalizer.inverse(next_value)
        discount = get(rollout, "next.discount", c.discount)
        advantage = gae(
            next["reward"], value, next_value, next["terminated"], next["truncated"], discount, c.trace_decay
        )
        target = advantage + value
        self._return_moments = self.return_normalizer.moments(target, mask)
        self.report["explained_variance"] = explained_variance(value, target, mask)
        kept = rollout.select("observation", "action", "action_mask", "mask", strict=False)
        return kept.update(
            {"advantage": standardise(advantage, mask) if c.normalize_advantage else advantage, "return": target}
        )

    def loss(self, batch: Any) -> tuple[Tensor, Metrics]:  # [B]
        c, mask = self.config, get(batch, "mask")
        distribution = self.policy.distribution(self.policy.encode(batch), get(batch, "action_mask"))
        policy_loss = -masked_mean(score_function(distribution.log_prob(batch["action"]), batch["advantage"]), mask)
        error = value_loss(self.value(batch["observation"]), self.return_normalizer(batch["return"]))
        critic_loss = masked_mean(error, mask)
        entropy = masked_mean(distribution.entropy(), mask)
        loss = policy_loss + c.value_weight * critic_loss - c.entropy_weight * entropy
        return loss, {"policy_gradient_loss": policy_loss, "value_loss": critic_loss, "entropy_loss": -entropy}

    def learn(self, buffer: Any, count: int | None = None) -> Metrics:
        c = self.config
        self.report["learning_rate"] = anneal(self.optimizer, c.learning_rate, self.env_steps, c.anneal_steps)
        metrics = super().learn(buffer, count)
        if self._return_moments:
            self.return_normalizer.merge(self._return_moments)
        return metrics
