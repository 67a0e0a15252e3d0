"""One-step targets of Q-learning and the losses on their errors, per row."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from whorl.errors import BatchError
from whorl.functional.shapes import same_shape
from whorl.functional.statistics import masked_mean


def td_target(reward: Tensor, terminated: Tensor, next_value: Tensor, discount: float | Tensor) -> Tensor:
    """r + discount * (1 - terminated) * next_value, without a gradient: the right-hand side of Bellman's equation.

    A truncated row keeps its bootstrap: only `terminated` cuts it. Under n-step returns reward is the sum of n discounted rewards
    and discount is that of the whole stretch, per row. Where terminated, next_value may hold anything, NaN too.
    All [...] of one shape, discount a number or [...]; next_value may have leading axes of its own, such as [members, B].
    Raises BatchError for unequal shapes and for a terminated that is not bool. Watkins 1989.
    """
    leading = next_value.ndim - reward.ndim
    shape = next_value[(0,) * leading] if leading > 0 else next_value
    rows = {"discount": discount} if isinstance(discount, Tensor) else {}
    same_shape(reward=reward, terminated=terminated, next_value=shape, **rows)
    if terminated.dtype != torch.bool:
        raise BatchError(f"terminated has dtype {terminated.dtype}, expected torch.bool: convert it where it is made")
    return (reward + discount * next_value.masked_fill(terminated, 0.0)).detach()


def rescaled(value: Tensor, epsilon: float = 1e-3) -> Tensor:
    """h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x: returns of many sizes as numbers of few. Pohlen et al. 2018, proposition A.2."""
    return value.sign() * ((value.abs() + 1).sqrt() - 1) + epsilon * value


def unrescaled(value: Tensor, epsilon: float = 1e-3) -> Tensor:
    """The inverse of `rescaled`, of the same epsilon, which is above 0."""
    # Pohlen's (sqrt(1 + 4 eps (|x| + 1 + eps)) - 1) / (2 eps), without the difference of two numbers that are nearly equal
    size = value.abs() + 1 + epsilon
    root = 2 * size / (1 + (1 + 4 * epsilon * size).sqrt())
    return value.sign() * (root - 1) * (root + 1)


def huber(error: Tensor, threshold: float = 1.0) -> Tensor:
    """error^2 / 2 where |error| <= threshold, else threshold * (|error| - threshold / 2). Huber 1964."""
    return F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=threshold)


def weighted_mean(x: Tensor, weight: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
    """mean(weight * x) over the rows whose `mask` is True: weight holds the importance weights of prioritized replay.

    All rows count without a mask, and alike without weights. Divided by the number of rows, not by the sum of the weights, as in
    Schaul et al. 2016. All of one shape, BatchError if not: sum the members of an ensemble first.
    """
    if weight is not None:
        same_shape(x=x, weight=weight)
        x = x * weight
    return masked_mean(x, mask)
