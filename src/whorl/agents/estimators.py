"""What may stand in the place of GAE: how advantages and returns come from rewards and a critic's values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from whorl.errors import BatchError
from whorl.functional.advantages import vtrace
from whorl.functional.returns import lambda_return, n_step_return

# a function of the user's has the signature of `functional.gae`
Estimator = Literal["gae", "vtrace", "lambda", "n_step"] | Callable[..., Tensor]


@torch.no_grad()
def estimate(
    estimator: Estimator, reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, truncated: Tensor,
    discount: float | Tensor, trace_decay: float, n_step: int, log_ratio: Callable[[], Tensor],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(advantage, return), each [T, N] and detached, by any estimator but "gae"; log_ratio: of the policy as it is to the one that acted.

    "lambda", "n_step": the return, advantage = return - value. "vtrace": both. A function: the advantage, return = advantage + value.
    Raises BatchError for a function that does not give one advantage of the values' dtype for each row.
    """
    rows = next_value, terminated, truncated, discount
    if estimator == "vtrace":
        target, advantage = vtrace(log_ratio(), reward, value, *rows, trace_decay)
        return advantage, target
    if isinstance(estimator, str):
        target = (
            n_step_return(reward, *rows, n_step) if estimator == "n_step" else lambda_return(reward, *rows, trace_decay)
        )
        return target - value, target
    advantage = estimator(reward, value, *rows, trace_decay)
    if not isinstance(advantage, Tensor) or advantage.shape != value.shape or advantage.dtype != value.dtype:
        came = f"{advantage.dtype} {tuple(advantage.shape)}" if isinstance(advantage, Tensor) else repr(advantage)
        raise BatchError(
            f"the estimator {estimator} must give one advantage for each row, {value.dtype} {tuple(value.shape)}, got {came[:100]}"
        )
    return advantage, advantage + value
