"""Means that skip masked rows (which may hold anything, NaN too), running moments, and statistics of scores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from whorl.errors import BadInput
from whorl.functional.shapes import same_shape


def masked_mean(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean of x over the rows whose `mask` is True; of all rows without a mask, 0 if the mask has no True.

    x and mask of one shape, BatchError if not.
    """
    if mask is None:
        return x.mean()
    same_shape(x=x, mask=mask)
    return x.masked_fill(~mask, 0).sum() / mask.sum().clamp(min=1)


def explained_variance(prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """1 - Var(target - prediction) / Var(target): 1 is perfect, 0 no better than a constant; 0 for a constant target.

    All of one shape, BatchError if not.
    """
    same_shape(prediction=prediction, target=target)
    total = _variance(target, mask)
    explained = 1 - _variance(target - prediction, mask) / total
    return torch.where(total == 0, 0.0, explained)


def _variance(x: Tensor, mask: Tensor | None) -> Tensor:
    return masked_mean((x - masked_mean(x, mask)).square(), mask)


def batch_moments(x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """(mean [...], population variance [...], count) of the rows of x [rows, ...]; `mask` [rows] says which count.

    A mask of more axes, such as [T, N], makes rows of all of them. No row at all: zeros. The count is float64.
    """
    x = x if mask is None else x[mask]
    count = torch.tensor(len(x), dtype=torch.float64, device=x.device)
    if not len(x):
        return x.new_zeros(x.shape[1:]), x.new_zeros(x.shape[1:]), count
    var, mean = torch.var_mean(x, 0, correction=0)
    return mean, var, count


def merge_moments(
    mean_a: Tensor, var_a: Tensor, count_a: Tensor, mean_b: Tensor, var_b: Tensor, count_b: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(mean, population variance, count) of the union of two sets from theirs. Chan, Golub and LeVeque 1979.

    A set with count 0 leaves the other as it is, to the bit.
    """
    same_shape(mean_a=mean_a, var_a=var_a, mean_b=mean_b, var_b=var_b)
    count = count_a + count_b
    share = count_b / count.clamp(min=1)
    mean = torch.lerp(mean_a, mean_b, share.to(mean_a.dtype))
    var = torch.lerp(var_a, var_b, share.to(var_a.dtype)) + (mean_b - mean_a).square() * share * (1 - share)
    return mean, var, count


def iqm(scores: ArrayLike) -> float:
    """Interquartile mean: the mean of all scores but a quarter of them (rounded down) at either end.

    Agarwal et al. 2021, https://arxiv.org/abs/2108.13264. Raises BadInput for no scores and for NaN.
    """
    flat = np.sort(_scores(scores), axis=None)
    cut = flat.size // 4
    return float(flat[cut : flat.size - cut].mean())


def bootstrap_interval(
    scores: ArrayLike,
    statistic: Callable[[np.ndarray], float] = iqm,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """(low, high): percentile bootstrap interval of `statistic`, resampling runs with replacement.

    scores [runs], or [runs, tasks]: then each task's runs are drawn apart (stratified; Agarwal et al. 2021, section 4).
    The same seed gives the same interval. Raises BadInput for no scores, NaN, another shape or a level outside (0, 1).
    """
    table = _scores(scores)
    if table.ndim not in (1, 2):
        raise BadInput(f"bootstrap_interval takes scores [runs] or [runs, tasks], got shape {list(table.shape)}")
    if not 0 < level < 1:
        raise BadInput(f"the level of an interval lies between 0 and 1, got {level}")
    generator = np.random.default_rng(seed)
    drawn = (np.take_along_axis(table, generator.integers(len(table), size=table.shape), 0) for _ in range(resamples))
    low, high = np.quantile([statistic(sample) for sample in drawn], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _scores(scores: ArrayLike) -> np.ndarray:
    table = np.asarray(scores, dtype=np.float64)
    if not table.size or np.isnan(table).any():
        raise BadInput(
            f"a statistic needs at least one score and no NaN, got {table.size} with {np.isnan(table).sum()} NaN"
        )
    return table
