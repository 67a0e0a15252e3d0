"""Proximal policy optimization. Schulman et al. 2017, https://arxiv.org/abs/1707.06347. Deviations: docs/algorithms/ppo.md"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from whorl.agents.agent import Agent
from whorl.agents.optimizers import adam, anneal
from whorl.batch import Metrics, get, values
from whorl.feeds import Rollouts
from whorl.functional import (
    clipped_surrogate,
    clipped_value_loss,
    explained_variance,
    gae,
    kl_k3,
    masked_mean,
    standardise,
    value_loss,
)
from whorl.nets.heads import Critic
from whorl.nets.normalizer import NoNormalizer, Normalizer
from whorl.policies.stochastic import Stochastic


@dataclass(frozen=True)
class PPOConfig:
    """Defaults: Schulman et al. 2017, table 3, with the learning rate and sizes that Gymnasium users expect."""

    learning_rate: float = 3e-4  # Adam's step size
    anneal_steps: int = 0  # environment steps over which the learning rate falls linearly to 0; 0 = constant
    discount: float = 0.99  # gamma, per environment step
    trace_decay: float = 0.95  # lambda of GAE
    clip_range: float = 0.2  # epsilon, eq. 7
    value_clip_range: float = 0.0  # the same for the value function, in units of the (normalized) return; 0 = off
    entropy_weight: float = 0.0  # c2, eq. 9
    value_weight: float = 0.5  # c1, eq. 9
    max_grad_norm: float = 0.5  # global norm
    kl_limit: float = 0.0  # stop using a rollout when a minibatch's approx_kl passes this [nats]; 0 = never
    normalize_advantage: bool = True  # per minibatch, as in the authors' code
    normalize_observation: bool = False  # by running mean and std, inside the policy
    normalize_return: bool = False  # the critic predicts (return - mean) / std, running
    hidden: tuple[int, ...] = (64, 64)  # units of each hidden layer, actor and critic apart
    activation: Literal["tanh", "relu"] = "tanh"
    std: Literal["independent", "dependent"] = (
        "independent"  # of a Gaussian: a parameter, or a function of the observation
    )
    squash: bool = False  # tanh onto the bounds of a Box
    feed: Rollouts = Rollouts(steps=128, epochs=4, minibatches=4)


class PPO(Agent):
    """Clipped surrogate on GAE advantages, several epochs of minibatches on each rollout."""

    Config = PPOConfig

    def __init__(self, policy: Stochastic, critic: nn.Module, config: PPOConfig = PPOConfig()):
        super().__init__(policy, config)
        self.critic = critic
        self.return_normalizer = Normalizer() if config.normalize_return else NoNormalizer()
        self._return_moments: list = []
        self.optimizer = adam(self.parameters(), config.learning_rate, max_grad_norm=config.max_grad_norm)

    @classmethod
    def build(cls, observation_space, action_space, config: PPOConfig) -> PPO:
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
        next, c = rollout["next"], self.config
        value, next_value = values(self.value, rollout)
        value, next_value = self.return_normalizer.inverse(value), self.return_normalizer.inverse(next_value)
        discount = get(rollout, "next.discount", c.discount)
        advantage = gae(
            next["reward"], value, next_value, next["terminated"], next["truncated"], discount, c.trace_decay
        )
        target = advantage + value
        self._return_moments = self.return_normalizer.moments(target, get(rollout, "mask"))
        self.report["explained_variance"] = explained_variance(value, target, get(rollout, "mask"))
        kept = rollout.select("observation", "action", "log_prob", "action_mask", "mask", strict=False)
        return kept.update({"advantage": advantage, "return": target, "value": value})

    def loss(self, batch: Any) -> tuple[Tensor, Metrics]:  # [B]
        c, mask = self.config, get(batch, "mask")
        distribution = self.policy.distribution(self.policy.encode(batch), get(batch, "action_mask"))
        log_prob = distribution.log_prob(batch["action"])
        advantage = standardise(batch["advantage"], mask) if c.normalize_advantage else batch["advantage"]
        policy_loss = -masked_mean(clipped_surrogate(log_prob, batch["log_prob"], advantage, c.clip_range), mask)

        value, target = self.value(batch["observation"]), self.return_normalizer(batch["return"])
        if c.value_clip_range:
            error = clipped_value_loss(value, self.return_normalizer(batch["value"]), target, c.value_clip_range)
        else:
            error = value_loss(value, target)
        critic_loss = masked_mean(error, mask)
        entropy = masked_mean(distribution.entropy(), mask)
        loss = policy_loss + c.value_weight * critic_loss - c.entropy_weight * entropy

        log_ratio = (log_prob - batch["log_prob"]).detach()
        clipped = ((log_ratio.exp() - 1).abs() > c.clip_range).float()
        return loss, {
            "policy_gradient_loss": policy_loss,
            "value_loss": critic_loss,
            "entropy_loss": -entropy,
            "approx_kl": masked_mean(kl_k3(log_ratio), mask),
            "clip_fraction": masked_mean(clipped, mask),
        }

    def enough(self, metrics: Metrics) -> bool:
        return bool(self.config.kl_limit) and bool(metrics["approx_kl"] > self.config.kl_limit)

    def learn(self, buffer: Any, count: int | None = None) -> Metrics:
        c = self.config
        self.report["learning_rate"] = anneal(self.optimizer, c.learning_rate, self.env_steps, c.anneal_steps)
        metrics = super().learn(buffer, count)
        if self._return_moments:
            self.return_normalizer.merge(self._return_moments)
        return metrics
