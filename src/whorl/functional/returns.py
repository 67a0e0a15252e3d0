"""Returns over a time-ordered rollout: what a row's value should be.

Everywhere: reward, next_value, terminated, truncated are [T, ...], T >= 1, and so is what comes back. next_value[t] is
the value of the TRUE successor of row t, also where an episode ended; on terminated rows it may hold anything.
`discount` is a number or one per row [T, ...] (`next.discount`). `terminated` cuts the bootstrap, `truncated` and the
last row only cut the trace. Differentiable in reward, next_value and a discount tensor.
Raises BatchError for unequal shapes and flags that are not bool.
"""

from __future__ import annotations

import torch
from torch import Tensor

from whorl.errors import BadInput
from whorl.functional.kernels import recurrence
from whorl.functional.shapes import check_rows


def discounted_return(
    reward: Tensor, next_value: Tensor, terminated: Tensor, truncated: Tensor, discount: float | Tensor
) -> Tensor:
    """G[t] = reward[t] + discount[t] * (0 if terminated, next_value[t] if truncated or last, else G[t + 1]).

    Sutton and Barto 2018, eq. 3.9; the bootstrap at a time limit: Pardo et al. 2018, https://arxiv.org/abs/1712.00378.
    """
    return lambda_return(reward, next_value, terminated, truncated, discount, 1.0)


def lambda_return(
    reward: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    discount: float | Tensor,
    trace_decay: float,
) -> Tensor:
    """G[t] = reward[t] + discount[t] * (0 if terminated, next_value[t] if truncated or last,
    else (1 - trace_decay) * next_value[t] + trace_decay * G[t + 1]).

    trace_decay (lambda) 0 is the one-step target, 1 is `discounted_return`. Sutton and Barto 2018, eq. 12.18.
    """
    check_rows(terminated, truncated, discount, reward=reward, next_value=next_value)
    ended = terminated | truncated
    bootstrap = next_value.masked_fill(terminated, 0)
    through = (trace_decay * torch.ones_like(reward)).masked_fill(ended, 0)  # the share of G[t + 1]
    return recurrence(discount * through, reward + discount * (1 - through) * bootstrap, bootstrap[-1])


def reward_to_go(reward: Tensor, terminated: Tensor, truncated: Tensor, discount: float | Tensor) -> Tensor:
    """G[t] = reward[t] + (0 if terminated, truncated or last, else discount[t] * G[t + 1]): no bootstrap at all."""
    check_rows(terminated, truncated, discount, reward=reward)
    ended = terminated | truncated
    return recurrence((discount * torch.ones_like(reward)).masked_fill(ended, 0), reward)


def n_step_return(
    reward: Tensor, next_value: Tensor, terminated: Tensor, truncated: Tensor, discount: float | Tensor, n: int
) -> Tensor:
    """The sum of up to n discounted rewards from t on, plus the discounted next_value where that sum stops.

    G_1[t] = reward[t] + discount[t] * next_value[t] (0 if terminated), and
    G_n[t] = reward[t] + discount[t] * G_{n-1}[t + 1], or G_1[t] if the episode or the rollout ends at t.
    Sutton and Barto 2018, eq. 7.1. n >= T is `discounted_return`. Raises BadInput for n < 1.
    """
    if n < 1:
        raise BadInput(f"n_step_return needs n >= 1, got n = {n}")
    check_rows(terminated, truncated, discount, reward=reward, next_value=next_value)
    ended = terminated | truncated
    bootstrap = next_value.masked_fill(terminated, 0)
    target = reward + discount * bootstrap
    for _ in range(min(n, len(reward)) - 1):
        later = torch.cat([target[1:], bootstrap[-1:]])
        target = reward + discount * torch.where(ended, bootstrap, later)
    return target
