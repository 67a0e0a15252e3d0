"""Asynchronous advantage actor-critic. Mnih et al. 2016, https://arxiv.org/abs/1602.01783. Deviations: docs/algorithms/a3c.md

The agent is that of one worker, and runs through the ordinary loop as well. `training/loops/hogwild.py` runs many on shared weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from whorl.agents.agent import Agent
from whorl.agents.optimizers import adam, anneal
from whorl.batch import Metrics, get, values
from whorl.errors import BadInput, Incompatible
from whorl.feeds import Rollouts
from whorl.functional import discounted_return, explained_variance, masked_mean, score_function, value_loss
from whorl.nets.heads import Critic
from whorl.policies.stochastic import Stochastic


@dataclass(frozen=True)
class A3CConfig:
    """Defaults: Mnih et al. 2016, with shared Adam in place of shared RMSprop."""

    workers: int = 2  # processes that act and learn; `num_envs` is of each of them
    learning_rate: float = 7e-4  # Adam's step size
    anneal_steps: int = (
        0  # steps of all workers together over which the learning rate falls linearly to 0; 0 = constant
    )
    discount: float = 0.99  # gamma, per environment step
    entropy_weight: float = 0.01  # beta of the paper
    value_weight: float = 0.5  # of the critic's loss beside the policy's
    max_grad_norm: float = 0.5  # global norm
    hidden: tuple[int, ...] = (64, 64)  # units of each hidden layer, actor and critic apart
    activation: Literal["tanh", "relu"] = "tanh"
    std: Literal["independent", "dependent"] = (
        "independent"  # of a Gaussian: a parameter, or a function of the observation
    )
    squash: bool = False  # tanh onto the bounds of a Box
    feed: Rollouts = Rollouts(steps=20)  # t_max of the paper


class A3C(Agent):
    """One gradient step on each short rollout: score function with n-step advantages, critic by regression.

    Raises BadInput for less than one worker, Incompatible for a feed that takes more than one step on a rollout.
    """

    Config = A3CConfig

    def __init__(self, policy: Stochastic, critic: nn.Module, config: A3CConfig = A3CConfig()):
        super().__init__(policy, config)
        if config.workers < 1:
            raise BadInput(f"workers must be at least 1, got {config.workers}")
        if config.feed.epochs * config.feed.minibatches != 1:
            raise Incompatible(
                "A3C takes one gradient step on each rollout: feed.epochs and feed.minibatches must be 1, "
                f"got {config.feed.epochs} and {config.feed.minibatches}"
            )
        self.critic = critic
        self.optimizer = shared_adam(self.parameters(), config.learning_rate)

    @classmethod
    def build(cls, observation_space, action_space, config: A3CConfig) -> A3C:
        c = config
        policy = Stochastic.build(
            observation_space, action_space, hidden=c.hidden, activation=c.activation,
            std=c.std, squash=c.squash,
        )  # fmt: skip
        return cls(policy, Critic(observation_space, config.hidden, config.activation), config)

    def value(self, observation: Any) -> Tensor:
        return self.critic(self.policy.normalizer(observation))

    def prepare(self, rollout: Any) -> Any:  # [T, N]
        rollout = super().prepare(rollout)
        next, mask = rollout["next"], get(rollout, "mask")
        value, next_value = values(self.value, rollout)
        discount = get(rollout, "next.discount", self.config.discount)
        target = discounted_return(next["reward"], next_value, next["terminated"], next["truncated"], discount)
        self.report["explained_variance"] = explained_variance(value, target, mask)
        kept = rollout.select("observation", "action", "action_mask", "mask", strict=False)
        return kept.update({"advantage": target - value, "return": target})

    def loss(self, batch: Any) -> tuple[Tensor, Metrics]:  # [B]
        c, mask = self.config, get(batch, "mask")
        distribution = self.policy.distribution(self.policy.encode(batch), get(batch, "action_mask"))
        policy_loss = -masked_mean(score_function(distribution.log_prob(batch["action"]), batch["advantage"]), mask)
        critic_loss = masked_mean(value_loss(self.value(batch["observation"]), batch["return"]), mask)
        entropy = masked_mean(distribution.entropy(), mask)
        loss = policy_loss + c.value_weight * critic_loss - c.entropy_weight * entropy
        return loss, {"policy_gradient_loss": policy_loss, "value_loss": critic_loss, "entropy_loss": -entropy}

    def learn(self, buffer: Any, count: int | None = None) -> Metrics:
        c = self.config
        self.report["learning_rate"] = anneal(self.optimizer, c.learning_rate, self.env_steps, c.anneal_steps)
        return super().learn(buffer, count)


def shared_adam(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Adam:
    """Adam whose moments are there before its first step, so that processes can share them."""
    optimizer = adam(parameters, learning_rate)
    for p in optimizer.param_groups[0]["params"]:
        moments = {name: torch.zeros_like(p, memory_format=torch.preserve_format) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[p] = {"step": torch.zeros((), device=p.device), **moments}
    return optimizer
