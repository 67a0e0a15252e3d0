"""Pieces that several agents are made of. What an algorithm is about stands in its own file."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch
from gymnasium import spaces
from torch import Tensor, nn

from whorl.agents.agent import Agent
from whorl.agents.estimators import Estimator, estimate
from whorl.agents.step import OptimizerStep
from whorl.batch import Batch, Metrics, Tree, discounts, get, values
from whorl.errors import BadInput
from whorl.functional.advantages import gae
from whorl.functional.bellman import td_target, weighted_mean
from whorl.functional.statistics import explained_variance, masked_mean
from whorl.nets.encoder import EncoderFactory
from whorl.nets.heads import Critic, ValueHead
from whorl.nets.normalizer import NoNormalizer, Normalizer
from whorl.nets.rnn import STATE, Choice, at_first
from whorl.policies.distributions import Distribution
from whorl.policies.stochastic import Stochastic
from whorl.spaces import is_image


class Looks(Protocol):
    """How an actor and its critic look at observations."""

    @property
    def hidden(self) -> tuple[int, ...]: ...
    @property
    def activation(self) -> Literal["tanh", "relu"]: ...
    @property
    def shared(self) -> bool | None: ...
    @property
    def memory(self) -> Choice: ...


class ActorCritic(Protocol):
    """An agent with a critic whose returns may be normalized."""

    policy: Stochastic
    critic: nn.Module
    return_normalizer: Normalizer | NoNormalizer
    gathered: list
    report: Metrics
    step: OptimizerStep

    def value(self, observation: Tree) -> Tensor:
        """V(observation), in the units of the normalized return."""


def mean_of(x: Tensor, batch: Batch) -> Tensor:
    """The mean of x [*rows], or [members, *rows], over the batch's rows that count (`mask`)."""
    mask = get(batch, "mask")
    return x.mean() if mask is None else masked_mean(x, mask.expand(x.shape))


def loss_of(x: Tensor, batch: Batch) -> Tensor:
    """The mean of x [*rows] over the batch's rows that count (`mask`), each times its importance weight (`weight`)."""
    return weighted_mean(x, get(batch, "weight"), get(batch, "mask"))


def critic_for(policy: Stochastic, space: spaces.Space, looks: Looks, encoder: EncoderFactory | None) -> nn.Module:
    """The critic of an actor: a head on its features where they share a torso, which is so with images unless `shared` says something
    else, and always with a memory; or a network of its own. Raises BadInput for a memory that is not to be shared."""
    if looks.memory != "none" and looks.shared is False:
        raise BadInput(
            "shared = False, and actor and critic share their memory: leave shared out, or use memory = 'none'"
        )
    if not (looks.memory != "none" or (is_image(space) if looks.shared is None else looks.shared)):
        return Critic(space, looks.hidden, looks.activation, encoder=encoder)
    policy.critic = ValueHead(policy.head.in_features)
    return policy.critic


def state_value(agent: ActorCritic, observation: Tree) -> Tensor:
    """The critic's value of observations, in the units of the normalized return; with a memory, where an episode begins."""
    policy, seen = agent.policy, agent.policy.normalizer(observation)
    return agent.critic(seen if policy.critic is None else policy.encoder(at_first(policy.encoder, seen)))


def looked(agent: ActorCritic, batch: Batch) -> tuple[Distribution, Tensor]:
    """(what the policy does in the batch's rows, what the critic takes them to be worth): features that both share are computed once."""
    policy = agent.policy
    features = policy.encode(batch)
    value = agent.critic(features) if policy.critic is not None else agent.value(batch["observation"])
    return policy.distribution(features, get(batch, "action_mask")), value


def distribution_of(policy: Stochastic, batch: Batch) -> Distribution:
    """What the policy does in the batch's states, among the allowed actions."""
    return policy.distribution(policy.encode(batch), get(batch, "action_mask"))


def log_ratio(policy: Stochastic, batch: Batch) -> Tensor:
    """log pi(a|s) - log mu(a|s): pi is the policy as it is, mu what acted."""
    return distribution_of(policy, batch).log_prob(batch["action"]) - batch["log_prob"]


def targets(
    agent: ActorCritic, rollout: Batch, discount: float, trace_decay: float, estimator: Estimator = "gae", n_step: int = 1
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(advantage, return, value), each [T, N], in the units of the rewards, from the critic's values.

    By GAE, with return = advantage + value, or by another estimator. The rollout's own `next.discount` goes before `discount`. The
    statistics of the returns are gathered, and how much of them the critic explains is reported.
    """
    next, mask, normalizer = rollout["next"], get(rollout, "mask"), agent.return_normalizer
    policy, critic = agent.policy, agent.critic
    later = None if policy.critic is None else lambda rows: critic(policy.later(rows))
    if policy.critic is not None and estimator == "vtrace":  # which an older policy's values would mislead
        with torch.no_grad():
            rollout["value"] = critic(policy.encode(rollout))
    value, next_value = (normalizer.inverse(x) for x in values(agent.step.value or agent.value, rollout, later))
    rows = (
        next["reward"],
        value,
        next_value,
        next["terminated"],
        next["truncated"],
        discounts(rollout, discount),
    )
    if estimator == "gae":
        advantage = gae(*rows, trace_decay)
        target = advantage + value
    else:
        advantage, target = estimate(estimator, *rows, trace_decay, n_step, lambda: log_ratio(agent.policy, rollout))
    agent.gathered.append((normalizer, normalizer.moments(target, mask)))
    agent.report["explained_variance"] = explained_variance(value, target, mask)
    return advantage, target, value


def kept(rollout: Batch, **entries: Tensor) -> Batch:
    """What an on-policy loss reads of a rollout, and `entries` beside it; `target` is the batch's `return`."""
    rows = rollout.select("observation", "action", "log_prob", "action_mask", "mask", "is_first", STATE, strict=False)
    return rows.update({"return" if key == "target" else key: value for key, value in entries.items()})


def td(batch: Batch, next_value: Tensor, discount: float) -> Tensor:
    """r + discount * (1 - terminated) * next_value, with the batch's own `next.discount` where it has one: see `td_target`."""
    next = batch["next"]
    return td_target(next["reward"], next["terminated"], next_value, get(batch, "next.discount", discount))


def td_atoms(batch: Batch, next_atoms: Tensor, discount: float) -> Tensor:
    """`td` of every atom of a distribution: next_atoms [*rows, K] -> [*rows, K]."""
    return td(batch, next_atoms.movedim(-1, 0), discount).movedim(0, -1)


def with_temperature(
    actor_loss: Tensor, alpha: Tensor, entropy: Tensor, target: float | Tensor, batch: Batch, learn: bool
) -> tuple[Tensor, Metrics]:
    """The loss of an actor and of its temperature alpha: alpha * mean(entropy - target), Haarnoja et al. 2018b, eq. 18.

    They share no parameter (entropy [*rows] is data), so one optimizer minimises both. learn False: alpha stays what it is.
    """
    metrics = {"temperature": alpha, "entropy": mean_of(entropy, batch)}
    if not learn:
        return actor_loss, metrics
    temperature_loss = alpha * loss_of(entropy - target, batch)
    return actor_loss + temperature_loss, metrics | {"temperature_loss": temperature_loss}


def soft_actor_loss(
    log_prob: Tensor, q: Tensor, alpha: Tensor, target_entropy: float, batch: Batch, learn: bool
) -> tuple[Tensor, Metrics]:
    """alpha log pi(a|s) - Q(s, a) of actions drawn anew, whose log_prob and q are [*rows], Haarnoja et al. 2018b, eq. 7, and the loss of
    the temperature: see `with_temperature`."""
    actor_loss = loss_of(alpha.detach() * log_prob - q, batch)
    return with_temperature(actor_loss, alpha, -log_prob.detach(), target_entropy, batch, learn)


def learned(*parts: nn.Module) -> list[nn.Parameter]:
    """Their parameters, but those that stay what they are."""
    return [p for part in parts for p in part.parameters() if p.requires_grad]


def warm_up(agent: Agent) -> None:
    """The policy acts uniformly (`warming`) for its feed's `warmup` environment steps: to be called at the start and in `prepare`."""
    policy: Any = agent.policy
    policy.warming.copy_(agent.env_steps < agent.config.feed.warmup)


def count_update(agent: Agent, every: int = 1) -> bool:
    """Count an update; whether it is the last of `every` so many."""
    agent.updates += 1
    return agent.updates % every == 0
