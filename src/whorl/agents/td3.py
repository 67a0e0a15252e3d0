"""Twin delayed DDPG. Fujimoto et al. 2018, https://arxiv.org/abs/1802.09477. Deviations: docs/algorithms/td3.md"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from gymnasium import spaces
from torch import Tensor, nn

from whorl.agents.agent import Agent
from whorl.agents.optimizers import adam
from whorl.agents.parts import count_update, loss_of, mean_of, warm_up
from whorl.agents.recall import after, here, learned_rows, td_along
from whorl.batch import Batch, Metrics, Tree
from whorl.feeds import Feed, Replay
from whorl.nets.encoder import EncoderFactory
from whorl.nets.ensemble import QEnsemble
from whorl.nets.rnn import at_first
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
    # what actor and critics, each for themselves, remember of an episode: nothing, or a cell's state; needs `feed = Sequences(...)`
    memory: Literal["none", "gru", "lstm"] = "none"
    # units of the cell
    memory_width: Annotated[int, Count] = 128

    feed: Feed = Replay(warmup=25_000)


class TD3(Agent[TD3Config]):
    """DDPG with the smaller of two critics, a smoothed target action, and an actor that moves less often."""

    Config = TD3Config
    packed = "packed_deterministic:td3"
    policy: Deterministic

    def __init__(self, policy: Deterministic, critic: nn.Module, config: TD3Config = TD3Config()):
        super().__init__(policy, config)
        self.critic = critic
        self.target_policy, self.target = Target(policy, live=policy.normalizer), Target(critic)
        warm_up(self)
        self.optimizer = adam(policy.parameters(), config.learning_rate, eps=1e-8)
        self.critic_optimizer = adam(critic.parameters(), config.critic_learning_rate, eps=1e-8)

    @classmethod
    def build(
        cls, observation_space: spaces.Space, action_space: spaces.Space, config: TD3Config, *, encoder: EncoderFactory | None = None
    ) -> TD3:  # fmt: skip
        c = config
        policy = Deterministic.build(
            observation_space, action_space, hidden=c.hidden, activation=c.activation, noise=c.noise, std=c.std,
            normalize=c.feed.normalize_observation, encoder=encoder, memory=c.memory, memory_width=c.memory_width,
        )  # fmt: skip
        critic = QEnsemble(
            observation_space, action_space, 2, c.hidden, c.activation, encoder=encoder, memory=c.memory, memory_width=c.memory_width
        )  # fmt: skip
        return cls(policy, critic, c)

    def value(self, observation: Tree) -> Tensor:
        """min Q(s, pi(s)); with a memory, where an episode begins."""
        seen = at_first(self.critic, self.policy.normalizer(observation))
        return self.critic(seen, self.policy(observation)).amin(0)

    def prepare(self, rollout: Batch) -> Batch:  # [T, N]
        rollout = super().prepare(rollout)
        warm_up(self)
        return rollout

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:  # [B] or [T, B]
        c, rows = self.config, learned_rows(self, batch)
        with torch.no_grad():
            noise = (c.target_noise * rows["noise"]).clamp(-c.target_noise_clip, c.target_noise_clip)  # eq. 14
            actor = self.target_policy.module
            action = actor.scale(actor.decide(after(self, actor, batch)) + noise)
            next_value = self.target(after(self, self.target, batch, acts=False), action).amin(0)  # eq. 10
            target = td_along(self, rows, next_value, c.discount)
        q = self.critic(here(self, self.critic, batch, acts=False), rows["action"])  # [2, B]
        error = q - target
        loss = loss_of(error.square().sum(0), rows)
        return loss, {"q_mean": mean_of(q, rows), "priority": error.abs().amax(0)}

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:  # [B] or [T, B]
        """- mean Q_1(s, pi(s))."""
        action = self.policy.scale(self.policy.decide(here(self, self.policy, batch)))
        with torch.no_grad():
            seen = here(self, self.critic, batch, acts=False)
        return -loss_of(self.critic(seen, action)[0], learned_rows(self, batch)), {}

    def update(self, batch: Batch) -> Metrics:
        batch["noise"] = self.noise((*batch.shape, self.policy.outputs))
        metrics = self.optimize(self.critic_loss, self.critic_optimizer, batch)
        if count_update(self, self.config.policy_delay):
            metrics |= self.optimize(self.actor_loss, self.optimizer, batch)
            self.target.follow(self.critic, self.config.target_rate)
            self.target_policy.follow(self.policy, self.config.target_rate)
        return metrics
