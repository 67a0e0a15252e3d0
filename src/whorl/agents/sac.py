"""Soft actor-critic. Haarnoja et al. 2018b, https://arxiv.org/abs/1812.05905. Deviations: docs/algorithms/sac.md"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from gymnasium import spaces
from torch import Tensor, nn

from whorl.agents.agent import Agent
from whorl.agents.optimizers import adam
from whorl.agents.parts import count_update, learned, loss_of, mean_of, soft_actor_loss, warm_up
from whorl.agents.recall import after, here, learned_rows, td_along
from whorl.batch import Batch, Metrics, Tree
from whorl.feeds import Feed, Replay
from whorl.nets.encoder import EncoderFactory
from whorl.nets.ensemble import QEnsemble
from whorl.nets.heads import Temperature
from whorl.nets.rnn import at_first
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
    # what actor and critics, each for themselves, remember of an episode: nothing, or a cell's state; needs `feed = Sequences(...)`
    memory: Literal["none", "gru", "lstm"] = "none"
    # units of the cell
    memory_width: Annotated[int, Count] = 128
    # state-dependent exploration (Raffin et al. 2021) in place of a std that the net gives
    sde: bool = False
    # steps for which an exploration matrix is held; 0 = to the episode's end
    sde_every: Annotated[int, Amount] = 0
    # log std of the matrix at the start
    sde_log_std: float = -3.0

    feed: Feed = Replay()


class SAC(Agent[SACConfig]):
    """Twin critics with an entropy bonus, a squashed Gaussian actor, a learned temperature; one update of each per batch."""

    Config = SACConfig
    packed = "packed_soft:sac"
    policy: Squashed

    def __init__(self, policy: Squashed, critic: nn.Module, config: SACConfig = SACConfig()):
        super().__init__(policy, config)
        self.critic, self.target = critic, Target(critic)
        self.temperature = Temperature(config.temperature).requires_grad_(config.learn_temperature)
        self.target_entropy = config.target_entropy * policy.outputs
        warm_up(self)
        self.optimizer = adam(learned(policy, self.temperature), config.learning_rate, eps=1e-8)
        self.critic_optimizer = adam(critic.parameters(), config.critic_learning_rate, eps=1e-8)

    @classmethod
    def build(
        cls, observation_space: spaces.Space, action_space: spaces.Space, config: SACConfig, *, encoder: EncoderFactory | None = None
    ) -> SAC:  # fmt: skip
        c = config
        policy = Squashed.build(
            observation_space, action_space, hidden=c.hidden, activation=c.activation,
            normalize=c.feed.normalize_observation, sde=c.sde, sde_every=c.sde_every, sde_log_std=c.sde_log_std, encoder=encoder,
            memory=c.memory, memory_width=c.memory_width,
        )  # fmt: skip
        critic = QEnsemble(
            observation_space, action_space, 2, c.hidden, c.activation, encoder=encoder, memory=c.memory, memory_width=c.memory_width
        )  # fmt: skip
        return cls(policy, critic, c)

    def value(self, observation: Tree) -> Tensor:
        """min Q(s, a) of the greedy action; with a memory, where an episode begins."""
        seen = at_first(self.critic, self.policy.normalizer(observation))
        return self.critic(seen, self.policy(observation)).amin(0)

    def prepare(self, rollout: Batch) -> Batch:  # [T, N]
        rollout = super().prepare(rollout)
        warm_up(self)
        return rollout

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:  # [B] or [T, B]
        rows = learned_rows(self, batch)
        with torch.no_grad():
            action, log_prob = self.policy.draw(after(self, self.policy, batch), rows["noise"][..., 0, :])
            next_q = self.target(after(self, self.target, batch, acts=False), action)
            target = td_along(self, rows, next_q.amin(0) - self.temperature() * log_prob, self.config.discount)
        q = self.critic(here(self, self.critic, batch, acts=False), rows["action"])  # [2, B]
        error = q - target
        loss = loss_of(0.5 * error.square().sum(0), rows)  # eq. 5, of both
        return loss, {"q_mean": mean_of(q, rows), "priority": error.abs().amax(0)}

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:  # [B] or [T, B]
        """Eq. 7, and the temperature's, eq. 18."""
        rows, c = learned_rows(self, batch), self.config
        action, log_prob = self.policy.draw(here(self, self.policy, batch), rows["noise"][..., 1, :])
        with torch.no_grad():
            seen = here(self, self.critic, batch, acts=False)
        q = self.critic(seen, action).min(0).values
        return soft_actor_loss(log_prob, q, self.temperature(), self.target_entropy, rows, c.learn_temperature)

    def update(self, batch: Batch) -> Metrics:
        batch["noise"] = self.noise((*batch.shape, 2, self.policy.outputs))  # of the next and of the new actions
        metrics = self.optimize(self.critic_loss, self.critic_optimizer, batch)
        metrics |= self.optimize(self.actor_loss, self.optimizer, batch)
        self.target.follow(self.critic, self.config.target_rate)
        count_update(self)
        return metrics
