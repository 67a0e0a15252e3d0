"""What REINFORCE may subtract from the return-to-go G of a row. Shapes [T, ...]: time first, one column per environment.

A column holds episode after episode: one begins at the first row and after each row that is terminated or truncated, and the last
may be cut by the end of the rollout. Rows whose `mask` is False belong to no episode and take no time; they get 0, and what they
hold (NaN too) is never used. E is the number of episodes of all columns, k = 0, 1, ... the time within an episode, and G[e, k] the
return of episode e from its time k on. Sums run in float64, so that equal returns have a mean that is equal to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vmap

from whorl.functional.shapes import check_rows, same_shape


def episode_rows(terminated: Tensor, truncated: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, int]:
    """(episode, time, E): of each row the number of its episode, 0 ... E - 1, and its time k. Both int64 [T, ...].

    Episodes are numbered column by column. Masked rows hold 0 and 0.
    Raises BatchError for unequal shapes and flags that are not bool.
    """
    check_rows(terminated, truncated, 1.0, mask=torch.ones_like(terminated) if mask is None else mask)
    shape, rows = terminated.shape, len(terminated)
    ended = (terminated | truncated).reshape(rows, -1).T
    counts = torch.ones_like(ended) if mask is None else mask.reshape(rows, -1).T
    begins = torch.cat([torch.ones_like(ended[:, :1]), ended[:, :-1]], 1).reshape(-1)
    counts = counts.reshape(-1)
    piece = begins.cumsum(0) - 1  # episodes, and stretches of masked rows between and after them
    before = counts.cumsum(0) - counts.long()  # rows that count, so far
    time = before - before[begins][piece]
    holds = torch.zeros(int(begins.sum()), dtype=torch.bool, device=begins.device)
    holds[piece[counts]] = True
    number = (holds.cumsum(0) - 1)[piece]
    back = lambda x: x.masked_fill(~counts, 0).reshape(-1, rows).T.reshape(shape)  # noqa: E731
    return back(number), back(time), int(holds.sum())


def time_baseline(
    target: Tensor, terminated: Tensor, truncated: Tensor, mask: Tensor | None = None, padded: bool = True
) -> Tensor:
    """The mean return at the same time of an episode: b[k] = sum_e G[e, k] / E, with G[e, k] = 0 after the end of e.

    That is padTimeDepAvReturn of torch-twrl. padded=False divides by the number of episodes that have a time k instead of E.
    One episode (E = 1) is its own mean: G - b is 0 everywhere. Padded, b depends on the actions through G[e] itself, so that the
    gradient of G - b is (E - 1) / E of that with `leave_one_out_baseline`, which is unbiased.
    Raises BatchError for unequal shapes and flags that are not bool.
    """
    time, total, alive, episodes = _sums_by_time(target, terminated, truncated, mask)
    mean = total / (max(episodes, 1) if padded else alive.clamp(min=1))
    return _blank(mean[time], mask).to(target.dtype)


def leave_one_out_baseline(target: Tensor, terminated: Tensor, truncated: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean return of the OTHER episodes at the same time: b[e, k] = sum_{i != e} G[i, k] / (E - 1), G[i, k] = 0 after i's end.

    Kool et al. 2019, "Buy 4 REINFORCE samples, get a baseline for free!", for the return-to-go: where all the reward comes
    at the end of episodes of one length it is theirs. With one episode there is no other, and b = 0.
    Raises BatchError for unequal shapes and flags that are not bool.
    """
    time, total, _, episodes = _sums_by_time(target, terminated, truncated, mask)
    if episodes < 2:
        return torch.zeros_like(target)
    others = total[time] - target.double()
    return _blank(others / (episodes - 1), mask).to(target.dtype)


def optimal_baseline(target: Tensor, squared_score: Tensor, mask: Tensor | None = None) -> Tensor:
    """The constant with the least variance of the gradient: b = sum s G / sum s, s = |grad log pi(a|s)|^2. A scalar.

    Weaver and Tao 2001, https://arxiv.org/abs/1301.2315. 0 where every score is 0. target, squared_score and mask of one shape,
    BatchError if not.
    """
    same_shape(target=target, squared_score=squared_score, **({} if mask is None else {"mask": mask}))
    weight = _blank(squared_score.double(), mask)
    total = weight.sum()
    mean = (weight * _blank(target.double(), mask)).sum() / total
    return torch.where(total > 0, mean, 0.0).to(target.dtype)


def squared_scores(
    log_prob: Callable[[Mapping[str, Tensor], Any], Tensor],
    parameters: Mapping[str, Tensor],
    rows: Any,
    chunk: int = 512,
) -> Tensor:
    """|d log_prob(parameters, row) / d parameters|^2 of each row, [B]. rows: (nested dicts of) tensors [B, ...].

    `log_prob` gives the scalar of one row. `chunk` rows at a time need memory for chunk x all parameters.
    """

    def squared(row: Any) -> Tensor:
        gradients = grad(log_prob)(parameters, row)
        return torch.stack([g.square().sum() for g in gradients.values()]).sum()

    return vmap(squared, chunk_size=chunk)(rows)


def _sums_by_time(
    target: Tensor, terminated: Tensor, truncated: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, int]:
    """(time of each row, sum of the returns and number of episodes at each time, E)."""
    same_shape(target=target, terminated=terminated)
    _, time, episodes = episode_rows(terminated, truncated, mask)
    rows = torch.ones_like(target, dtype=torch.float64) if mask is None else mask.double()
    blank = torch.zeros(len(target), dtype=torch.float64, device=target.device)
    where = time.reshape(-1)
    total = blank.index_add(0, where, _blank(target.double(), mask).reshape(-1))
    return time, total, blank.index_add(0, where, rows.reshape(-1)), episodes


def _blank(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x.masked_fill(~mask, 0)
