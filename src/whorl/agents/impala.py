"""Importance-weighted actor-learner. Espeholt et al. 2018, https://arxiv.org/abs/1802.01561. Deviations: docs/algorithms/impala.md"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from gymnasium import spaces
from torch import Tensor, nn

from whorl.agents.agent import Agent
from whorl.agents.optimizers import anneal, optimizer
from whorl.agents.parts import critic_for, kept, looked, state_value, targets
from whorl.batch import Batch, Buffer, Metrics, Tree, get
from whorl.errors import Incompatible
from whorl.feeds import Rollouts
from whorl.functional import masked_mean, score_function, value_loss
from whorl.nets.encoder import EncoderFactory
from whorl.nets.normalizer import NoNormalizer, Normalizer
from whorl.nets.rnn import Choice
from whorl.options import Amount, AnnealSteps, Count, Live, Share
from whorl.policies.mixed import stochastic_for
from whorl.policies.stochastic import Stochastic


@dataclass(frozen=True)
class ImpalaConfig:
    """Defaults: Espeholt et al. 2018, table D.1, for 20 steps of 32 environments; its sums over them are means here."""

    # of the optimizer, at the start
    learning_rate: Annotated[float, Amount] = 6e-4
    # environment steps over which the learning rate falls linearly to 0; 0 = constant
    anneal_steps: Annotated[int, AnnealSteps] = 0
    # gamma, per environment step
    discount: Annotated[float, Share] = 0.99
    # lambda of V-trace, remark 2; 1 = the paper's experiments
    trace_decay: Annotated[float, Share, Live] = 1.0
    # of -H(pi)
    entropy_weight: Annotated[float, Live] = 0.01
    # of the critic's loss beside the policy's
    value_weight: Annotated[float, Amount, Live] = 0.5
    # global norm; 0 = off
    max_grad_norm: Annotated[float, Amount] = 40 / 640
    # any optimizer of torch, in lower case
    optimizer: str = "rmsprop"
    # RMSprop's alpha
    smoothing: Annotated[float, Share] = 0.99
    # of the optimizers that have it
    optimizer_eps: Annotated[float, Amount] = 0.1 / 640
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

    feed: Rollouts = Rollouts(steps=20)


class Impala(Agent[ImpalaConfig]):
    """V-trace targets for rollouts that an older policy may have taken, and one pass of gradient steps over each.

    Raises Incompatible for more than one epoch: the targets are those of the policy before the first step.
    """

    Config = ImpalaConfig
    packed = "packed_policy:a2c"  # the same loss
    policy: Stochastic

    def __init__(self, policy: Stochastic, critic: nn.Module, config: ImpalaConfig = ImpalaConfig()):
        super().__init__(policy, config)
        c = config
        if c.feed.epochs != 1:
            raise Incompatible(f"IMPALA learns once from each rollout: feed.epochs must be 1, got {c.feed.epochs}")
        self.critic = critic
        self.return_normalizer = Normalizer() if c.normalize_return else NoNormalizer()
        self.optimizer = optimizer(
            c.optimizer, self.parameters(), c.learning_rate, c.optimizer_eps, 0.0, c.smoothing, c.max_grad_norm
        )

    @classmethod
    def build(
        cls, observation_space: spaces.Space, action_space: spaces.Space, config: ImpalaConfig, *, encoder: EncoderFactory | None = None
    ) -> Impala:  # fmt: skip
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
        advantage, target, _ = targets(self, rollout, c.discount, c.trace_decay, "vtrace")
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
