"""Proximal policy optimization. Schulman et al. 2017, https://arxiv.org/abs/1707.06347. Deviations: docs/algorithms/ppo.md"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from gymnasium import spaces
from torch import Tensor, nn

from whorl.agents.agent import Agent
from whorl.agents.estimators import Estimator
from whorl.agents.optimizers import adam, anneal
from whorl.agents.parts import critic_for, kept, looked, state_value, targets
from whorl.batch import Batch, Buffer, Metrics, Tree, get
from whorl.feeds import Rollouts
from whorl.functional import clipped_surrogate, clipped_value_loss, kl_k3, masked_mean, standardise, value_loss
from whorl.nets.encoder import EncoderFactory
from whorl.nets.normalizer import NoNormalizer, Normalizer
from whorl.nets.rnn import Choice
from whorl.options import Amount, AnnealSteps, Count, Live, Positive, Share
from whorl.policies.mixed import stochastic_for
from whorl.policies.stochastic import Stochastic


@dataclass(frozen=True)
class PPOConfig:
    """Defaults: Schulman et al. 2017, table 3, with the learning rate and sizes that Gymnasium users expect."""

    # Adam's step size
    learning_rate: Annotated[float, Amount] = 3e-4
    # environment steps over which the learning rate falls linearly to 0; 0 = constant
    anneal_steps: Annotated[int, AnnealSteps] = 0
    # gamma, per environment step
    discount: Annotated[float, Share] = 0.99
    # lambda of GAE, V-trace and the lambda-return
    trace_decay: Annotated[float, Share, Live] = 0.95
    # of advantages and returns: one of these, or a function of yours with the signature of `whorl.functional.gae`
    estimator: Estimator = "gae"
    # rewards of the n-step return
    n_step: Annotated[int, Count] = 5
    # epsilon, eq. 7
    clip_range: Annotated[float, Positive, Live] = 0.2
    # the same for the value function, in units of the (normalized) return; 0 = off
    value_clip_range: Annotated[float, Amount] = 0.0
    # c2, eq. 9
    entropy_weight: Annotated[float, Live] = 0.0
    # c1, eq. 9
    value_weight: Annotated[float, Amount, Live] = 0.5
    # global norm; 0 = off
    max_grad_norm: Annotated[float, Amount] = 0.5
    # stop using a rollout when a minibatch's approx_kl passes this [nats]; 0 = never
    kl_stop: Annotated[float, Amount] = 0.0
    # per minibatch, as in the authors' code
    normalize_advantage: bool = True
    # by running mean and std, inside the policy
    normalize_observation: bool = False
    # the critic predicts (return - mean) / std, running
    normalize_return: bool = False
    # units of each hidden layer
    hidden: Annotated[tuple[int, ...], Count] = (64, 64)

    activation: Literal["tanh", "relu"] = "tanh"
    # actor and critic on one network; None: with images and with a memory, else apart
    shared: bool | None = None
    # what they remember of an episode: nothing, or a recurrent cell's state, in sequences of `feed.sequence` rows
    memory: Choice = "none"
    # units of the cell
    memory_width: Annotated[int, Count] = 128
    # of a Gaussian: a parameter, or a function of the observation
    std: Literal["independent", "dependent"] = "independent"
    # tanh onto the bounds of a Box
    squash: bool = False

    feed: Rollouts = Rollouts(steps=128, epochs=4, minibatches=4)


class PPO(Agent[PPOConfig]):
    """Clipped surrogate on GAE advantages, several epochs of minibatches on each rollout."""

    Config = PPOConfig
    packed = "packed_policy:ppo"
    policy: Stochastic

    def __init__(self, policy: Stochastic, critic: nn.Module, config: PPOConfig = PPOConfig()):
        super().__init__(policy, config)
        self.critic = critic
        self.return_normalizer = Normalizer() if config.normalize_return else NoNormalizer()
        self.optimizer = adam(self.parameters(), config.learning_rate, max_grad_norm=config.max_grad_norm)

    @classmethod
    def build(
        cls, observation_space: spaces.Space, action_space: spaces.Space, config: PPOConfig, *, encoder: EncoderFactory | None = None
    ) -> PPO:  # fmt: skip
        c = config
        policy = stochastic_for(action_space).build(
            observation_space, action_space, hidden=c.hidden, activation=c.activation,
            normalize=c.normalize_observation, std=c.std, squash=c.squash, encoder=encoder, memory=c.memory, memory_width=c.memory_width,
        )  # fmt: skip
        return cls(policy, critic_for(policy, observation_space, c, encoder), c)

    def value(self, observation: Tree) -> Tensor:
        """V(observation), in the units of the normalized return."""
        return state_value(self, observation)

    def prepare(self, rollout: Batch) -> Batch:  # [T, N]
        rollout, c = super().prepare(rollout), self.config
        advantage, target, value = targets(self, rollout, c.discount, c.trace_decay, c.estimator, c.n_step)
        return kept(rollout, advantage=advantage, target=target, value=value)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:  # [B] or [L, B]
        c, mask = self.config, get(batch, "mask")
        distribution, value = looked(self, batch)
        log_prob = distribution.log_prob(batch["action"])
        advantage = standardise(batch["advantage"], mask) if c.normalize_advantage else batch["advantage"]
        policy_loss = -masked_mean(clipped_surrogate(log_prob, batch["log_prob"], advantage, c.clip_range), mask)

        target = self.return_normalizer(batch["return"])
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
        return bool(self.config.kl_stop) and bool(metrics["approx_kl"] > self.config.kl_stop)

    def learn(self, buffer: Buffer, count: int | None = None) -> Metrics:
        c = self.config
        self.report["learning_rate"] = anneal(self.optimizer, c.learning_rate, self.env_steps, c.anneal_steps)
        return super().learn(buffer, count)
