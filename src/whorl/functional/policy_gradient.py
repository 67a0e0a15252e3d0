"""Objectives and losses per row. Only the first argument carries a gradient: everything else is data, and is detached.

The objectives are to be made large, the losses small. Averaging is the caller's (`masked_mean`).
All tensors have one shape; BatchError if not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from whorl.functional.shapes import same_shape


def score_function(log_prob: Tensor, advantage: Tensor) -> Tensor:
    """log pi(a|s) * A: its gradient is that of the expected return. Williams 1992."""
    same_shape(log_prob=log_prob, advantage=advantage)
    return log_prob * advantage.detach()


def clipped_surrogate(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip_range: float) -> Tensor:
    """min(r A, clip(r, 1 - e, 1 + e) A), r = exp(log_prob - old_log_prob), e = clip_range.

    Schulman et al. 2017, eq. 7, where r is the ratio of new to old probability.
    """
    same_shape(log_prob=log_prob, old_log_prob=old_log_prob, advantage=advantage)
    advantage = advantage.detach()
    ratio = (log_prob - old_log_prob.detach()).exp()
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip_range, 1 + clip_range) * advantage)


def value_loss(value: Tensor, target: Tensor) -> Tensor:
    """(value - target)^2 / 2."""
    same_shape(value=value, target=target)
    return 0.5 * (value - target.detach()).square()


def clipped_value_loss(value: Tensor, old_value: Tensor, target: Tensor, clip_range: float) -> Tensor:
    """max((value - target)^2, (old_value + clip(value - old_value, -clip_range, clip_range) - target)^2) / 2.

    As in the code of Schulman et al. 2017 (OpenAI Baselines, ppo2); clip_range is in units of the value.
    """
    same_shape(value=value, old_value=old_value, target=target)
    old_value = old_value.detach()
    near = old_value + (value - old_value).clamp(-clip_range, clip_range)
    return torch.maximum(value_loss(value, target), value_loss(near, target))
