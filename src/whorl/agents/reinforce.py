"""REINFORCE. Williams 1992, https://doi.org/10.1007/BF00992696. Deviations: docs/algorithms/reinforce.md"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.func import functional_call

from whorl import options
from whorl.agents.agent import Agent
from whorl.agents.optimizers import anneal, optimizer
from whorl.agents.parts import distribution_of, kept
from whorl.batch import Batch, Buffer, Metrics, Tree, discounts, ended, get, values
from whorl.errors import BadInput, Incompatible
from whorl.feeds import Rollouts
from whorl.functional import (
    discounted_return,
    leave_one_out_baseline,
    masked_mean,
    optimal_baseline,
    reward_to_go,
    score_function,
    squared_scores,
    standardise,
    time_baseline,
    value_loss,
)
from whorl.nets.encoder import EncoderFactory
from whorl.nets.heads import Critic
from whorl.options import Amount, AnnealEpisodes, AnnealSteps, Count, Live, Share
from whorl.policies.mixed import stochastic_for
from whorl.policies.stochastic import Stochastic
from whorl.spaces import tree_map


@dataclass(frozen=True)
class REINFORCEConfig:
    # of the optimizer, at the start
    learning_rate: Annotated[float, Amount] = 1e-3
    # environment steps over which the learning rate falls linearly to 0; 0 = constant
    anneal_steps: Annotated[int, AnnealSteps] = 0
    # the same counted in finished episodes, those of the batch included; 0 = constant
    anneal_episodes: Annotated[int, AnnealEpisodes] = 0
    # gamma, per environment step
    discount: Annotated[float, Share] = 0.99
    # what is subtracted from the return-to-go; "padded_time" is torch-twrl's padTimeDepAvReturn
    baseline: Literal["none", "mean", "time", "padded_time", "optimal", "leave_one_out", "value"] = "value"
    # of the critic's loss (baseline "value")
    value_weight: Annotated[float, Amount, Live] = 0.5
    # positive raises the entropy
    entropy_weight: Annotated[float, Live] = 0.0
    # global norm; 0 = off
    max_grad_norm: Annotated[float, Amount] = 0.5
    # bound of each element of the gradient, after the norm's; 0 = off
    clip_value: Annotated[float, Amount] = 0.0
    # of the loss over the rows of a batch
    reduction: Literal["mean", "sum"] = "mean"
    # over each batch of episodes
    normalize_advantage: bool = True
    # by running mean and std, inside the policy
    normalize_observation: bool = False
    # units of each hidden layer
    hidden: Annotated[tuple[int, ...], Count] = (64, 64)

    activation: Literal["tanh", "relu"] = "tanh"
    # "uniform": torch's, +-1/sqrt(inputs)
    initialization: Literal["orthogonal", "uniform"] = "orthogonal"
    # of a Gaussian: a parameter, a function of the observation, or `fixed_std`
    std: Literal["independent", "dependent", "fixed"] = "independent"
    # std "fixed": of the Gaussian, in units of half the action range where `scale` is on
    fixed_std: float = 1.0
    # of a Gaussian: the net's output, or its tanh
    mean: Literal["linear", "tanh"] = "linear"
    # the Gaussian in units of half the action range around its centre
    scale: bool = False
    # tanh onto the bounds of a Box
    squash: bool = False
    # any optimizer of torch, in lower case
    optimizer: str = "adam"
    # RMSprop's alpha
    smoothing: Annotated[float, Share] = 0.99
    # of the optimizers that have it
    optimizer_eps: Annotated[float, Amount] = 1e-5
    # the optimizer's
    weight_decay: Annotated[float, Amount] = 0.0

    feed: Rollouts = Rollouts(steps=256, unit="episode")


class REINFORCE(Agent[REINFORCEConfig]):
    """Whole episodes, returns-to-go, a baseline, one gradient step.

    An episode cut by a time limit goes on in expectation: with baseline "value" its return is bootstrapped there, without a
    critic it can only be counted as it stands.
    Raises BadInput for an unknown baseline, reduction or optimizer, for a critic without baseline "value" or the other way round and
    for two ways of annealing; Incompatible for a feed that cuts episodes.
    """

    Config = REINFORCEConfig
    packed = "packed_policy:reinforce"
    policy: Stochastic
    episodes: Tensor

    def __init__(
        self, policy: Stochastic, critic: nn.Module | None = None, config: REINFORCEConfig = REINFORCEConfig()
    ):
        super().__init__(policy, config)
        c = config
        options.check(c)  # a name that nothing reads would be no baseline at all
        if c.feed.unit != "episode":
            raise Incompatible(f"REINFORCE needs whole episodes: feed.unit must be 'episode', got {c.feed.unit!r}")
        if (critic is None) == (c.baseline == "value"):
            raise BadInput(
                f"baseline {c.baseline!r} with {'a' if critic else 'no'} critic: baseline 'value' is the critic's"
            )
        if c.anneal_steps and c.anneal_episodes:
            raise BadInput(
                "anneal_steps and anneal_episodes are two clocks for one learning rate: set one of them to 0"
            )
        self.critic = critic
        self.register_buffer("episodes", torch.zeros((), dtype=torch.int64))  # finished so far
        self.optimizer = optimizer(
            c.optimizer,
            self.parameters(),
            c.learning_rate,
            c.optimizer_eps,
            c.weight_decay,
            c.smoothing,
            c.max_grad_norm,
            c.clip_value,
        )

    @classmethod
    def build(
        cls, observation_space: spaces.Space, action_space: spaces.Space, config: REINFORCEConfig, *, encoder: EncoderFactory | None = None
    ) -> REINFORCE:  # fmt: skip
        c = config
        policy = stochastic_for(action_space).build(
            observation_space, action_space, hidden=c.hidden, activation=c.activation, initialization=c.initialization,
            normalize=c.normalize_observation, std=c.std, fixed_std=c.fixed_std, mean=c.mean, scale=c.scale,
            squash=c.squash, encoder=encoder,
        )  # fmt: skip
        own = c.baseline == "value"
        return cls(
            policy, Critic(observation_space, c.hidden, c.activation, c.initialization, encoder) if own else None, c
        )

    def value(self, observation: Tree) -> Tensor | None:
        """V(observation) of the baseline "value"; None of any other."""
        return None if self.critic is None else self.values(observation)

    def values(self, observation: Tree) -> Tensor:
        assert self.critic is not None
        return self.critic(self.policy.normalizer(observation))

    def prepare(self, rollout: Batch) -> Batch:  # [T, N], whole episodes
        rollout = super().prepare(rollout)
        next, c, mask = rollout["next"], self.config, get(rollout, "mask")
        discount = discounts(rollout, c.discount)
        if c.baseline == "value":
            baseline, next_value = values(self.step.value or self.values, rollout)
            target = discounted_return(next["reward"], next_value, next["terminated"], next["truncated"], discount)
        else:
            target = reward_to_go(next["reward"], next["terminated"], next["truncated"], discount)
            baseline = self.baseline(rollout, target)
        advantage = target - baseline
        if c.normalize_advantage:
            advantage = standardise(advantage, mask)
        finished = (ended(rollout) if mask is None else ended(rollout) & mask).sum()
        self.episodes += finished
        self.report["episodes"] = finished
        return kept(rollout, advantage=advantage, target=target)

    def baseline(self, rollout: Batch, target: Tensor) -> Tensor:
        """What `config.baseline` subtracts from the returns-to-go `target`, [T, N] or a scalar; "value" is not among them."""
        terminated, truncated, mask = rollout["next"]["terminated"], rollout["next"]["truncated"], get(rollout, "mask")
        match self.config.baseline:
            case "none":
                return torch.zeros_like(target)
            case "mean":
                return masked_mean(target, mask)
            case "time" | "padded_time" as kind:
                return time_baseline(target, terminated, truncated, mask, padded=kind == "padded_time")
            case "leave_one_out":
                return leave_one_out_baseline(target, terminated, truncated, mask)
            case "optimal":
                return optimal_baseline(target, self.squared_scores(rollout), mask)
            case other:
                raise BadInput(f"baseline {other!r} is not computed from returns: it is the critic's")

    def squared_scores(self, rollout: Batch) -> Tensor:
        """|grad log pi(a|s)|^2 of each row [T, N], over all parameters of the policy."""

        def log_prob(row: Batch) -> Tensor:
            row = tree_map(lambda x: x.unsqueeze(0), row)
            return distribution_of(self.policy, row).log_prob(row["action"]).squeeze(0)

        def with_weights(weights: Mapping[str, Tensor], row: Batch) -> Tensor:
            return functional_call(self, dict(weights), (log_prob, row))

        weights = {f"policy.{name}": p.detach() for name, p in self.policy.named_parameters()}
        rows = rollout.select("observation", "action", "action_mask", strict=False).reshape(-1).to_dict()
        return squared_scores(with_weights, weights, rows).reshape(rollout.batch_size)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:  # [B]
        c, mask = self.config, get(batch, "mask")
        distribution = distribution_of(self.policy, batch)
        policy_loss = -masked_mean(score_function(distribution.log_prob(batch["action"]), batch["advantage"]), mask)
        entropy = masked_mean(distribution.entropy(), mask)
        loss = policy_loss - c.entropy_weight * entropy
        metrics = {"policy_gradient_loss": policy_loss, "entropy_loss": -entropy}
        if self.critic is not None:
            metrics["value_loss"] = masked_mean(value_loss(self.values(batch["observation"]), batch["return"]), mask)
            loss = loss + c.value_weight * metrics["value_loss"]
        if c.reduction == "sum":
            loss = loss * (batch["advantage"].numel() if mask is None else mask.sum())
        return loss, metrics

    def learn(self, buffer: Buffer, count: int | None = None) -> Metrics:
        c = self.config
        done = self.episodes if c.anneal_episodes else self.env_steps
        over = c.anneal_episodes or c.anneal_steps
        self.report["learning_rate"] = anneal(self.optimizer, c.learning_rate, done, over)
        return super().learn(buffer, count)
