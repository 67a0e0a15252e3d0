"""Distributions of the return: projection onto fixed atoms, and quantile regression."""

from __future__ import annotations

import torch
from torch import Tensor

from whorl.functional.bellman import huber
from whorl.functional.shapes import same_shape


@torch.no_grad()
def categorical_projection(
    support: Tensor, probabilities: Tensor, reward: Tensor, discount: float | Tensor, terminated: Tensor
) -> Tensor:
    """The distribution of r + discount * (1 - terminated) * Z, put back onto the atoms of Z: [..., K].

    Each moved atom, clipped to the support, gives its mass to the two atoms around it in proportion to nearness; one that
    lands on an atom gives it all of its mass, so the result sums to 1 whatever comes. Bellemare et al. 2017, eq. 7, algorithm 1.
    support [K] spaced evenly, probabilities [..., K]; reward, terminated [...]; discount a number or [...].
    Raises BatchError for unequal shapes.
    """
    rows = {"discount": discount} if isinstance(discount, Tensor) else {}
    same_shape(probabilities=probabilities[..., 0], reward=reward, terminated=terminated, **rows)
    kept = discount * (~terminated).to(support.dtype)
    moved = reward.unsqueeze(-1) + kept.unsqueeze(-1) * support
    last = len(support) - 1
    place = ((moved - support[0]) * (last / (support[-1] - support[0]))).clamp(0, last)  # [..., K] in units of atoms
    floor = place.floor()
    share = place - floor  # of the atom above; 0 on an atom, so `above` may stop at the last one
    below = floor.nan_to_num(0).long()  # a NaN goes on in `share`
    above = (below + 1).clamp(max=last)
    result = torch.zeros_like(probabilities).scatter_add_(-1, below, probabilities * (1 - share))
    return result.scatter_add_(-1, above, probabilities * share)


def quantile_huber(quantiles: Tensor, target: Tensor, tau: Tensor, threshold: float = 1.0) -> Tensor:
    """sum_i mean_j |tau_i - 1(u_ij < 0)| huber(u_ij) / threshold with u_ij = target_j - quantiles_i: [...].

    quantiles [..., N], target [..., M], tau [..., N] or [N]. Its minimum over quantiles is the tau-quantile of the targets, but for
    the smooth part within `threshold`; threshold 0: the sharp loss |tau - 1(u < 0)| |u|.
    Dabney et al. 2018a (QR-DQN), eq. 10; 2018b (IQN), eq. 3.
    """
    error = target.unsqueeze(-2) - quantiles.unsqueeze(-1)  # [..., N, M]
    size = huber(error, threshold) / threshold if threshold else error.abs()
    tilt = (tau.unsqueeze(-1) - (error.detach() < 0).to(size.dtype)).abs()
    return (tilt * size).mean(-1).sum(-1)


def midpoints(count: int, like: Tensor) -> Tensor:
    """(i + 1/2) / count, i = 0 .. count - 1: where quantiles of equal weight stand. Dabney et al. 2018a, lemma 2."""
    return (torch.arange(count, dtype=like.dtype, device=like.device) + 0.5) / count
