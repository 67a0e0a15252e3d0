"""Truncated quantile critics. Kuznetsov et al. 2020, https://arxiv.org/abs/2005.04269. Deviations: docs/algorithms/tqc.md"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from gymnasium import spaces
from torch import Tensor

from whorl.agents.agent import Agent
from whorl.agents.optimizers import adam
from whorl.agents.parts import count_update, learned, loss_of, mean_of, soft_actor_loss, td_atoms, warm_up
from whorl.batch import Batch, Metrics, Tree
from whorl.errors import BadInput
from whorl.feeds import Feed, Replay
from whorl.functional.distributional import midpoints
from whorl.functional.quantiles import sorted_quantile_huber
from whorl.nets.encoder import EncoderFactory
from whorl.nets.ensemble import QEnsemble
from whorl.nets.heads import Temperature
from whorl.nets.target import Target
from whorl.options import Amount, Bounds, Count, Positive, Share
from whorl.policies.squashed import Squashed


@dataclass(frozen=True)
class TQCConfig:
    """Defaults: Kuznetsov et al. 2020, table 3."""

    # Adam's step size, of actor and temperature
    learning_rate: Annotated[float, Amount] = 3e-4
    # Adam's step size, of all critics
    critic_learning_rate: Annotated[float, Amount] = 3e-4
    # gamma, per environment step
    discount: Annotated[float, Share] = 0.99
    # beta: share of the way that the target critics go at each update
    target_rate: Annotated[float, Bounds(1e-9, 1)] = 0.005
    # N
    critics: Annotated[int, Bounds(1, sizes="members")] = 5
    # M: atoms of each critic
    quantiles: Annotated[int, Bounds(2, sizes="outputs")] = 25
    # d: atoms dropped for each critic, the largest of all pooled ones
    dropped: Annotated[int, Amount] = 2
    # alpha at the start
    temperature: Annotated[float, Positive] = 1.0
    # False: alpha stays what it is
    learn_temperature: bool = True
    # of the policy, per action component, in units of half the action range [nats]
    target_entropy: float = -1.0
    # units of each hidden layer of the actor
    hidden: Annotated[tuple[int, ...], Count] = (256, 256)
    # of each critic
    critic_hidden: Annotated[tuple[int, ...], Count] = (512, 512, 512)

    activation: Literal["tanh", "relu"] = "relu"

    feed: Feed = Replay()


class TQC(Agent[TQCConfig]):
    """SAC with critics of the return's distribution, whose pooled targets lose their highest atoms."""

    Config = TQCConfig
    policy: Squashed

    def __init__(self, policy: Squashed, critic: QEnsemble, config: TQCConfig = TQCConfig()):
        super().__init__(policy, config)
        if not 0 <= config.dropped < critic.outputs:
            raise BadInput(f"dropped must be from 0 to less than the {critic.outputs} quantiles, got {config.dropped}")
        self.critic, self.target = critic, Target(critic)
        self.temperature = Temperature(config.temperature).requires_grad_(config.learn_temperature)
        self.target_entropy = config.target_entropy * policy.outputs
        warm_up(self)
        self.optimizer = adam(learned(policy, self.temperature), config.learning_rate, eps=1e-8)
        self.critic_optimizer = adam(critic.parameters(), config.critic_learning_rate, eps=1e-8)

    @classmethod
    def build(
        cls, observation_space: spaces.Space, action_space: spaces.Space, config: TQCConfig, *, encoder: EncoderFactory | None = None
    ) -> TQC:  # fmt: skip
        c = config
        policy = Squashed.build(
            observation_space, action_space, hidden=c.hidden, activation=c.activation,
            normalize=c.feed.normalize_observation, encoder=encoder,
        )  # fmt: skip
        sizes = c.critics, c.critic_hidden, c.activation, c.quantiles
        return cls(policy, QEnsemble(observation_space, action_space, *sizes, encoder=encoder), c)

    def value(self, observation: Tree) -> Tensor:
        """Mean of all critics' atoms at the greedy action."""
        return self.critic(self.policy.normalizer(observation), self.policy(observation)).mean((0, -1))

    def prepare(self, rollout: Batch) -> Batch:  # [T, N]
        rollout = super().prepare(rollout)
        warm_up(self)
        return rollout

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:  # [B] or [T, B]
        next, c, normal = batch["next"], self.config, self.policy.normalizer
        with torch.no_grad():
            action, log_prob = self.policy.sample(next["observation"], batch["noise"][..., 0, :])
            pooled = pool(self.target(normal(next["observation"]), action)).sort(-1).values  # [B, N * M]
            kept = pooled[..., : pooled.shape[-1] - c.dropped * c.critics]
            soft = kept - (self.temperature() * log_prob).unsqueeze(-1)
            target = td_atoms(batch, soft, c.discount)  # eq. 12, ascending still
        z = pool(self.critic(normal(batch["observation"]), batch["action"]))  # [B, N * M]
        tau = midpoints(c.quantiles, z).repeat(c.critics)
        loss = loss_of(sorted_quantile_huber(z, target, tau) / c.quantiles, batch)  # eq. 13
        return loss, {"q_mean": mean_of(z.movedim(-1, 0), batch), "priority": (z.mean(-1) - target.mean(-1)).abs()}

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:  # [B] or [T, B]
        """Eq. 14, the mean of all atoms, none dropped; and the temperature's."""
        observation, c = batch["observation"], self.config
        action, log_prob = self.policy.sample(observation, batch["noise"][..., 1, :])
        q = self.critic(self.policy.normalizer(observation), action).mean((0, -1))
        return soft_actor_loss(log_prob, q, self.temperature(), self.target_entropy, batch, c.learn_temperature)

    def update(self, batch: Batch) -> Metrics:
        batch["noise"] = self.noise((*batch.shape, 2, self.policy.outputs))  # of the next and of the new actions
        metrics = self.optimize(self.critic_loss, self.critic_optimizer, batch)
        metrics |= self.optimize(self.actor_loss, self.optimizer, batch)
        self.target.follow(self.critic, self.config.target_rate)
        count_update(self)
        return metrics


def pool(atoms: Tensor) -> Tensor:
    """[N, *rows, M] -> [*rows, N * M]: the atoms of all critics, critic after critic."""
    return atoms.movedim(0, -2).flatten(-2)
