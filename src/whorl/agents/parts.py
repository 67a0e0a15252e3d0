"""Pieces that several agents are made of. What an algorithm is about stands in its own file."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from whorl.agents.agent import Agent
from whorl.batch import Batch, Metrics, get
from whorl.functional.bellman import td_target, weighted_mean
from whorl.functional.statistics import masked_mean


def mean_of(x: Tensor, batch: Batch) -> Tensor:
    """The mean of x [*rows], or [members, *rows], over the batch's rows that count (`mask`)."""
    mask = get(batch, "mask")
    return x.mean() if mask is None else masked_mean(x, mask.expand(x.shape))


def loss_of(x: Tensor, batch: Batch) -> Tensor:
    """The mean of x [*rows] over the batch's rows that count (`mask`), each times its importance weight (`weight`)."""
    return weighted_mean(x, get(batch, "weight"), get(batch, "mask"))


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


def counted(agent: Agent, every: int = 1) -> bool:
    """Count an update; whether it is the last of `every` so many."""
    agent.updates += 1
    return agent.updates % every == 0
