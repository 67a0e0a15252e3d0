"""Quantile regression on many targets: sums over the sorted targets in place of all pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from whorl.functional.shapes import same_shape


def sorted_quantile_huber(quantiles: Tensor, target: Tensor, tau: Tensor, threshold: float = 1.0) -> Tensor:
    """`quantile_huber` for targets in ascending order: sum_i mean_j |tau_i - 1(u_ij < 0)| huber(u_ij) / threshold: [...].

    u_ij = target_j - quantiles_i. For one quantile the targets fall into four runs (u < -threshold, u < 0, u < threshold, above), on
    each of which the loss is a polynomial in u of degree 2 at most: its sum follows from the run's length, sum and sum of squares.
    (N + M) log M operations in place of N M. quantiles [..., N], target [..., M] (data: no gradient), tau [N] or [..., N].
    The sums are float64. Raises BatchError for unequal leading shapes.
    """
    same_shape(quantiles=quantiles[..., 0], target=target[..., 0])
    target = target.detach().double()
    centre = target.mean(-1, keepdim=True)  # only differences matter; near 0 squares lose no digits
    y, theta = (target - centre).contiguous(), quantiles.double() - centre
    edges = torch.stack([theta - threshold, theta, theta + threshold], -2).detach()  # [..., 3, N]
    ends = torch.searchsorted(y, edges.flatten(-2))  # how many targets lie below each edge
    sums = torch.nn.functional.pad(torch.stack([y, y.square()]).cumsum(-1), (1, 0))  # [2, ..., M + 1], 0 first
    first, second = sums.gather(-1, ends.expand(2, *ends.shape)).unflatten(-1, edges.shape[-2:]).unbind(0)
    count = ends.unflatten(-1, edges.shape[-2:]).to(y.dtype)
    a, b, c = (x.unbind(-2) for x in (count, first, second))
    total = sums[0, ..., -1:]
    middle = lambda i: 0.5 * (c[i + 1] - c[i] - 2 * theta * (b[i + 1] - b[i]) + theta.square() * (a[i + 1] - a[i]))  # noqa: E731
    far_below = a[0] * theta - b[0] - 0.5 * threshold * a[0]
    left = y.shape[-1] - a[2]
    far_above = total - b[2] - left * theta - 0.5 * threshold * left
    loss = (1 - tau) * (middle(0) / threshold + far_below) + tau * (middle(1) / threshold + far_above)
    return (loss.sum(-1) / y.shape[-1]).to(quantiles.dtype)
