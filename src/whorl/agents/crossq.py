"""CrossQ. Bhatt et al. 2024, https://arxiv.org/abs/1902.05605. Deviations: docs/algorithms/crossq.md"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from gymnasium import spaces
from torch import Tensor

from whorl.agents.agent import Agent
from whorl.agents.optimizers import adam
from whorl.agents.parts import count_update, learned, loss_of, mean_of, soft_actor_loss, td, warm_up
from whorl.batch import Batch, Metrics, Tree
from whorl.feeds import Feed, Replay
from whorl.nets.batch_renorm import BatchRenormEncoder, BatchRenormQ, flat, follow
from whorl.nets.encoder import EncoderFactory
from whorl.nets.heads import Temperature
from whorl.nets.normalizer import observation_normalizer
from whorl.options import Amount, Bounds, Count, Positive, Share
from whorl.policies.squashed import Squashed


@dataclass(frozen=True)
class CrossQConfig:
    """Defaults: Bhatt et al. 2024, table 2, and the authors' code."""

    # Adam's step size, of actor and temperature
    learning_rate: Annotated[float, Amount] = 1e-3
    # Adam's step size, of both critics
    critic_learning_rate: Annotated[float, Amount] = 1e-3
    # Adam's momentum, of all
    beta1: Annotated[float, Bounds(0, 0.9999)] = 0.5
    # gamma, per environment step
    discount: Annotated[float, Share] = 0.99
    # updates of the critics for one of the actor
    policy_delay: Annotated[int, Count] = 3
    # alpha at the start
    temperature: Annotated[float, Positive] = 1.0
    # False: alpha stays what it is
    learn_temperature: bool = True
    # of the policy, per action component, in units of half the action range [nats]
    target_entropy: float = -1.0
    # share of the running batch statistics that an update keeps
    momentum: Annotated[float, Share] = 0.99
    # updates with plain batch normalization before renormalization sets in
    renorm_warmup: Annotated[int, Amount] = 100_000
    # units of each hidden layer of the actor
    hidden: Annotated[tuple[int, ...], Count] = (256, 256)
    # of each critic
    critic_hidden: Annotated[tuple[int, ...], Count] = (2048, 2048)

    activation: Literal["tanh", "relu"] = "relu"

    feed: Feed = Replay(warmup=5_000)


class CrossQ(Agent[CrossQConfig]):
    """SAC without target networks: batch-normalized critics see (s, a) and (s', a') in one batch."""

    Config = CrossQConfig
    policy: Squashed

    def __init__(self, policy: Squashed, critic: BatchRenormQ, config: CrossQConfig = CrossQConfig()):
        super().__init__(policy, config)
        self.critic = critic
        self.temperature = Temperature(config.temperature).requires_grad_(config.learn_temperature)
        self.target_entropy = config.target_entropy * policy.outputs
        warm_up(self)
        self.optimizer = adam(learned(policy, self.temperature), config.learning_rate, 1e-8, config.beta1)
        self.critic_optimizer = adam(critic.parameters(), config.critic_learning_rate, 1e-8, config.beta1)

    @classmethod
    def build(
        cls, observation_space: spaces.Space, action_space: spaces.Space, config: CrossQConfig, *, encoder: EncoderFactory | None = None
    ) -> CrossQ:  # fmt: skip
        c = config
        norm = (c.activation, c.momentum, c.renorm_warmup, encoder)
        model = BatchRenormEncoder(observation_space, c.hidden, *norm)
        normalizer = observation_normalizer(observation_space, c.feed.normalize_observation)
        policy = Squashed(model, action_space, normalizer)
        return cls(policy, BatchRenormQ(observation_space, action_space, 2, c.critic_hidden, *norm), c)

    def value(self, observation: Tree) -> Tensor:
        """min Q(s, a) of the greedy action."""
        return self.critic(self.policy.normalizer(observation), self.policy(observation)).amin(0)

    def prepare(self, rollout: Batch) -> Batch:  # [T, N]
        rollout = super().prepare(rollout)
        warm_up(self)
        return rollout

    def critic_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:  # [B]
        next, critic, normal = batch["next"], self.critic, self.policy.normalizer
        moments: list[Tensor] = []
        with torch.no_grad():
            action, log_prob = self.policy.sample(next["observation"], batch["noise"][:, 0])  # running statistics
            then = critic.inputs(normal(next["observation"]), action)
        now = critic.inputs(normal(batch["observation"]), batch["action"])
        q, next_q = critic.values(torch.cat([now, then]), moments).chunk(2, -1)  # [2, B] each, one batch: figure 1
        next_value = next_q.detach().amin(0) - self.temperature().detach() * log_prob
        error = q - td(batch, next_value, self.config.discount)
        loss = loss_of(error.square().sum(0), batch)
        return loss, {"q_mean": mean_of(q, batch), "moments": flat(moments), "priority": error.abs().amax(0)}

    def actor_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:  # [B]
        """SAC's, the policy in training and the critics as they act: by running statistics."""
        observation, learn = self.policy.normalizer(batch["observation"]), self.config.learn_temperature
        moments: list[Tensor] = []
        distribution = self.policy.distribution(self.policy.encoder(observation, moments))
        action, log_prob = distribution.sample_and_log_prob(batch["noise"][:, 1])
        log_prob = log_prob + self.policy.log_half
        q = self.critic(observation, action).amin(0)
        loss, metrics = soft_actor_loss(log_prob, q, self.temperature(), self.target_entropy, batch, learn)
        return loss, metrics | {"moments": flat(moments)}

    def update(self, batch: Batch) -> Metrics:
        """Sequences [T, B] are T * B rows: the statistics are those of all of them, whatever `mask` says."""
        shape, batch = batch.shape, batch.reshape(-1)
        batch["noise"] = self.noise((*batch.shape, 2, self.policy.outputs))  # of the next and of the new actions
        metrics = self.optimize(self.critic_loss, self.critic_optimizer, batch)
        follow(self.critic, metrics.pop("moments"))
        if self.updates % self.config.policy_delay == 0:
            metrics |= self.optimize(self.actor_loss, self.optimizer, batch)
            follow(self.policy.encoder, metrics.pop("moments"))
        count_update(self)
        return metrics | {"priority": metrics["priority"].view(shape)}
