"""The reference: one row at a time in torch operations, on any device, differentiable by autograd itself."""

from __future__ import annotations

import torch
from torch import Tensor


def recurrence(coefficient: Tensor, increment: Tensor, final: Tensor) -> Tensor:
    y, rows = final, []
    for t in reversed(range(len(increment))):
        y = increment[t] + coefficient[t] * y
        rows.append(y)
    return torch.stack(rows[::-1])


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    discount: float | Tensor,
    trace_decay: float,
) -> Tensor:
    delta = reward + discount * next_value.masked_fill(terminated, 0) - value
    decay = torch.ones_like(reward) * discount * trace_decay
    return recurrence(decay.masked_fill(terminated | truncated, 0), delta, reward.new_zeros(reward.shape[1:]))
