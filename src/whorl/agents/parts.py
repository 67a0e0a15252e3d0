"""Pieces that several agents are made of. What an algorithm is about stands in its own file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from whorl.agents.agent import Agent
from whorl.batch import Batch, Metrics, Tree, get, values
from whorl.errors import BatchError
from whorl.functional.advantages import gae, vtrace
from whorl.functional.bellman import td_target, weighted_mean
from whorl.functional.returns import lambda_return, n_step_return
from whorl.functional.statistics import explained_variance, masked_mean
from whorl.nets.normalizer import NoNormalizer, Normalizer
from whorl.policies.distributions import Distribution
from whorl.policies.stochastic import Stochastic

# how advantages and returns come from rewards and values; a function has the signature of `functional.gae`
Estimator = Literal["gae", "vtrace", "lambda", "n_step"] | Callable[..., Tensor]


class ActorCritic(Protocol):
    """An agent with a critic whose returns may be normalized."""

    policy: Stochastic
    return_normalizer: Normalizer | NoNormalizer
    gathered: list
    report: Metrics

    def value(self, observation: Tree) -> Tensor:
        """V(observation), in the units of the normalized return."""


def mean_of(x: Tensor, batch: Batch) -> Tensor:
    """The mean of x [*rows], or [members, *rows], over the batch's rows that count (`mask`)."""
    mask = get(batch, "mask")
    return x.mean() if mask is None else masked_mean(x, mask.expand(x.shape))


def loss_of(x: Tensor, batch: Batch) -> Tensor:
    """The mean of x [*rows] over the batch's rows that count (`mask`), each times its importance weight (`weight`)."""
    return weighted_mean(x, get(batch, "weight"), get(batch, "mask"))


def distribution_of(policy: Stochastic, batch: Batch) -> Distribution:
    """What the policy does in the batch's states, among the allowed actions."""
    return policy.distribution(policy.encode(batch), get(batch, "action_mask"))


def targets(
    agent: ActorCritic, rollout: Batch, discount: float, trace_decay: float, estimator: Estimator = "gae", n_step: int = 1
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """(advantage, return, value), each [T, N], in the units of the rewards, from the critic's values.

    "gae", or a function of the user's: the advantage; the return is advantage + value. "lambda", "n_step": the return; the advantage is
    return - value. "vtrace": both, with the ratio of the policy as it is to the one that acted.
    The rollout's own `next.discount` goes before `discount`. The statistics of the returns are gathered, and how much of them the
    critic explains is reported. Raises BatchError for a function that does not give float [T, N].
    """
    next, mask, normalizer = rollout["next"], get(rollout, "mask"), agent.return_normalizer
    value, next_value = (normalizer.inverse(x) for x in values(agent.value, rollout))
    reward, gamma = next["reward"], get(rollout, "next.discount", discount)
    ends = next["terminated"], next["truncated"]
    match estimator:
        case "vtrace":
            with torch.no_grad():
                log_ratio = distribution_of(agent.policy, rollout).log_prob(rollout["action"]) - rollout["log_prob"]
            target, advantage = vtrace(log_ratio, reward, value, next_value, *ends, gamma, trace_decay)
        case "lambda" | "n_step":
            if estimator == "lambda":
                target = lambda_return(reward, next_value, *ends, gamma, trace_decay)
            else:
                target = n_step_return(reward, next_value, *ends, gamma, n_step)
            advantage = target - value
        case _:
            estimate = gae if estimator == "gae" else estimator
            advantage = estimate(reward, value, next_value, *ends, gamma, trace_decay)
            if not isinstance(advantage, Tensor) or advantage.shape != value.shape or advantage.dtype != value.dtype:
                came = (
                    f"{advantage.dtype} {tuple(advantage.shape)}" if isinstance(advantage, Tensor) else repr(advantage)
                )
                raise BatchError(
                    f"the estimator {estimate} must give one advantage for each row, {value.dtype} {tuple(value.shape)}, got {came[:100]}"
                )
            target = advantage + value
    agent.gathered.append((normalizer, normalizer.moments(target, mask)))
    agent.report["explained_variance"] = explained_variance(value, target, mask)
    return advantage, target, value


def kept(rollout: Batch, **entries: Tensor) -> Batch:
    """What an on-policy loss reads of a rollout, and `entries` beside it; `target` is the batch's `return`."""
    rows = rollout.select("observation", "action", "log_prob", "action_mask", "mask", strict=False)
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
