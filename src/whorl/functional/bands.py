"""The interquartile mean over runs at many places at once, such as those of a learning curve."""

from __future__ import annotations

from functools import cache

import numpy as np

from whorl.functional.statistics import iqm


def iqm_band(values: np.ndarray) -> np.ndarray:
    """[runs, P] -> [3, P]: at each place the IQM over runs, and the ends of its 95% bootstrap interval.

    The numbers are those of `iqm` and `bootstrap_interval`, which take one place at a time.
    """
    if len(values) == 1:
        return np.repeat(values, 3, 0).astype(float)
    cut, resamples, found = len(values) // 4, _resamples(len(values)), []
    for scores in values.T:
        kept = np.sort(scores[resamples], 1)[:, cut : len(scores) - cut]
        found.append([iqm(scores), *np.quantile(kept.mean(1), [0.025, 0.975])])
    return np.array(found).T


@cache
def _resamples(runs: int, resamples: int = 2000, seed: int = 0) -> np.ndarray:
    """[resamples, runs]: which runs are in each of the samples that `bootstrap_interval` draws."""
    generator = np.random.default_rng(seed)
    return np.stack([generator.integers(runs, size=runs) for _ in range(resamples)])
