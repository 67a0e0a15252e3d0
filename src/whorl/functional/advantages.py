"""How much better an action was than expected. Inputs as in `returns`: [T, ...], time first.

Advantages are data for a loss: no gradient flows through this file, except through `standardise` and `leave_one_out`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from whorl.functional import kernels
from whorl.functional.shapes import check_rows, same_shape


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    discount: float | Tensor,
    trace_decay: float,
) -> Tensor:
    """Generalized advantage estimation, [T, ...]. Schulman et al. 2016, eq. 16.

    delta[t] = reward[t] + discount[t] * next_value[t] (0 if terminated) - value[t]
    A[t] = delta[t] + discount[t] * trace_decay * A[t + 1] (0 if terminated, truncated or last)
    A + value is the lambda-return. The result is detached.
    Raises BatchError for unequal shapes and flags that are not bool.
    """
    check_rows(terminated, truncated, discount, reward=reward, value=value, next_value=next_value)
    return kernels.gae(reward, value, next_value, terminated, truncated, discount, trace_decay)


@torch.no_grad()
def vtrace(
    log_ratio: Tensor,
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    discount: float | Tensor,
    trace_decay: float = 1.0,
    rho_clip: float = 1.0,
    c_clip: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """V-trace (target, advantage), each [T, ...] and detached. Espeholt et al. 2018, eq. 1 and section 4.2.

    log_ratio = log pi(a|s) - log mu(a|s), pi the learner, mu what acted.
    rho = min(rho_clip, exp(log_ratio)), c = trace_decay * min(c_clip, exp(log_ratio)); rho_clip >= c_clip as a rule.
    delta[t] = rho[t] * (reward[t] + discount[t] * next_value[t] (0 if terminated) - value[t])
    y[t] = delta[t] + discount[t] * c[t] * y[t + 1] (0 if terminated, truncated or last)
    target = value + y
    advantage[t] = rho[t] * (reward[t] + discount[t] * v[t] - value[t]), where v[t] is 0 if terminated, next_value[t] if
    truncated or last, else target[t + 1].
    Raises BatchError for unequal shapes and flags that are not bool.
    """
    check_rows(terminated, truncated, discount, log_ratio=log_ratio, reward=reward, value=value, next_value=next_value)
    ended = terminated | truncated
    ratio = log_ratio.exp()
    rho, c = ratio.clamp(max=rho_clip), trace_decay * ratio.clamp(max=c_clip)
    bootstrap = next_value.masked_fill(terminated, 0)
    delta = rho * (reward + discount * bootstrap - value)
    target = value + kernels.recurrence((discount * c).masked_fill(ended, 0), delta)
    later = torch.where(ended, bootstrap, torch.cat([target[1:], bootstrap[-1:]]))
    return target, rho * (reward + discount * later - value)


def standardise(x: Tensor, mask: Tensor | None = None, eps: float = 1e-8) -> Tensor:
    """(x - mean) / (std + eps), mean and population std over the rows whose `mask` is True; the other rows become 0.

    x and mask of one shape, BatchError if not. Without a mask all rows count.
    """
    if mask is None:
        return (x - x.mean()) / (x.std(correction=0) + eps)
    same_shape(x=x, mask=mask)
    count = mask.sum().clamp(min=1)
    centred = (x - x.masked_fill(~mask, 0).sum() / count).masked_fill(~mask, 0)
    return centred / ((centred.square().sum() / count).sqrt() + eps)


def leave_one_out(reward: Tensor) -> Tensor:
    """reward - mean of the OTHER rewards of its group. [..., K], K >= 2: a group is a last axis. Kool et al. 2019."""
    others = reward.shape[-1] - 1
    return (reward - reward.mean(-1, keepdim=True)) * ((others + 1) / others)
