"""Advantage actor-critic, synchronous, and with a `Shared` feed asynchronous: A3C. Mnih et al. 2016, https://arxiv.org/abs/1602.01783

Deviations: docs/algorithms/a2c.md, docs/algorithms/a3c.md
"""

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
from whorl.errors import Incompatible
from whorl.feeds import Rollouts
from whorl.functional import masked_mean, score_function, standardise, value_loss
from whorl.nets.encoder import EncoderFactory
from whorl.nets.normalizer import NoNormalizer, Normalizer
from whorl.nets.rnn import Choice
from whorl.options import Amount, AnnealSteps, Count, Live, Share
from whorl.policies.mixed import stochastic_for
from whorl.policies.stochastic import Stochastic


@dataclass(frozen=True)
class A2CConfig:
    """Defaults: Mnih et al. 2016, with Adam in place of the shared RMSprop."""

    # Adam's step size
    learning_rate: Annotated[float, Amount] = 7e-4
    # environment steps, of all workers together, over which the learning rate falls linearly to 0; 0 = constant
    anneal_steps: Annotated[int, AnnealSteps] = 0
    # gamma, per environment step
    discount: Annotated[float, Share] = 0.99
    # lambda of GAE, V-trace and the lambda-return; 1 = the n-step advantages of the paper
    trace_decay: Annotated[float, Share, Live] = 1.0
    # of advantages and returns: one of these, or a function of yours with the signature of `whorl.functional.gae`
    estimator: Estimator = "gae"
    # rewards of the n-step return
    n_step: Annotated[int, Count] = 5
    # beta of the paper
    entropy_weight: Annotated[float, Live] = 0.01
    # of the critic's loss beside the policy's
    value_weight: Annotated[float, Amount, Live] = 0.5
    # global norm; 0 = off
    max_grad_norm: Annotated[float, Amount] = 0.5
    # over each rollout
    normalize_advantage: bool = False
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

    feed: Rollouts = Rollouts(steps=8)


class A2C(Agent[A2CConfig]):
    """One gradient step on each short rollout: score function with bootstrapped advantages, critic by regression.

    Raises Incompatible for a feed of asynchronous workers that takes more than one step on a rollout.
    """

    Config = A2CConfig
    packed = "packed_policy:a2c"
    policy: Stochastic

    def __init__(self, policy: Stochastic, critic: nn.Module, config: A2CConfig = A2CConfig()):
        super().__init__(policy, config)
        if config.feed.own_envs and config.feed.epochs * config.feed.minibatches != 1:
            raise Incompatible(
                "A3C takes one gradient step on each rollout: feed.epochs and feed.minibatches must be 1, "
                f"got {config.feed.epochs} and {config.feed.minibatches}"
            )
        if config.feed.own_envs and config.memory != "none":
            raise Incompatible("A3C's workers learn from single rows, so memory = 'none' is all there is: use a2c")
        self.critic = critic
        self.return_normalizer = Normalizer() if config.normalize_return else NoNormalizer()
        self.optimizer = adam(self.parameters(), config.learning_rate, max_grad_norm=config.max_grad_norm)

    @classmethod
    def build(
        cls, observation_space: spaces.Space, action_space: spaces.Space, config: A2CConfig, *, encoder: EncoderFactory | None = None
    ) -> A2C:  # fmt: skip
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
        advantage, target, _ = targets(self, rollout, c.discount, c.trace_decay, c.estimator, c.n_step)
        if c.normalize_advantage:
            advantage = standardise(advantage, get(rollout, "mask"))
        return kept(rollout, advantage=advantage, target=target)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:  # [B] or [L, B]
        c, mask = self.config, get(batch, "mask")
        distribution, value = looked(self, batch)
        policy_loss = -masked_mean(score_function(distribution.log_prob(batch["action"]), batch["advantage"]), mask)
        error = value_loss(value, self.return_normalizer(batch["return"]))
        critic_loss = masked_mean(error, mask)
        entropy = masked_mean(distribution.entropy(), mask)
        loss = policy_loss + c.value_weight * critic_loss - c.entropy_weight * entropy
        return loss, {"policy_gradient_loss": policy_loss, "value_loss": critic_loss, "entropy_loss": -entropy}

    def learn(self, buffer: Buffer, count: int | None = None) -> Metrics:
        c = self.config
        self.report["learning_rate"] = anneal(self.optimizer, c.learning_rate, self.env_steps, c.anneal_steps)
        return super().learn(buffer, count)
