"""Masked means, moments, interquartile means: worked by hand, against numpy, and the coverage of an interval."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import seeds
from whorl.errors import BadInput
from whorl.functional import batch_moments, bootstrap_interval, explained_variance, iqm, masked_mean, merge_moments

NAN = torch.nan


def test_masked_mean():
    x = torch.tensor([[1.0, NAN], [3.0, 8.0]], requires_grad=True)
    mask = torch.tensor([[True, False], [True, True]])
    mean = masked_mean(x, mask)
    assert mean.item() == 4  # (1 + 3 + 8) / 3
    torch.testing.assert_close(torch.autograd.grad(mean, x)[0], mask / 3)
    assert masked_mean(torch.tensor([1.0, 2.0])).item() == 1.5
    assert masked_mean(x, torch.zeros_like(mask)).item() == 0


def test_explained_variance():
    target = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert explained_variance(target, target).item() == 1
    assert explained_variance(torch.full((4,), 7.0), target).item() == 0
    assert explained_variance(-target, target).item() == -3  # residual 2 x target: variance 4 times the target's
    # errors 1, -1, 0, 0 (prediction too small, too large): variance .5 of 1.25
    assert explained_variance(torch.tensor([0.0, 3.0, 3.0, 4.0]), target).item() == pytest.approx(1 - 0.5 / 1.25)
    assert explained_variance(target, torch.ones(4)).item() == 0
    mask = torch.tensor([True, True, False])
    target, prediction = torch.tensor([1.0, 2.0, NAN]), torch.tensor([1.0, 2.0, 5.0])
    assert explained_variance(prediction, target, mask).item() == 1
    assert explained_variance(prediction, target).isnan()


def test_batch_moments_by_hand():
    mean, var, count = batch_moments(torch.tensor([[1.0, 10.0], [3.0, 10.0]]))
    assert (mean.tolist(), var.tolist(), count.item()) == ([2, 10], [1, 0], 2)
    x = torch.tensor([[[1.0], [NAN]], [[3.0], [8.0]]])  # [T, N, 1]
    mean, var, count = batch_moments(x, ~x.isnan()[..., 0])
    assert (mean.tolist(), count.item()) == ([4], 3)
    assert var.item() == pytest.approx((9 + 1 + 16) / 3)


def test_moments_of_scalars_and_images():
    assert [x.item() for x in batch_moments(torch.tensor([1.0, 3.0]))] == [2, 1, 2]
    assert batch_moments(torch.zeros(5, 4, 4))[0].shape == (4, 4)


def test_moments_far_from_zero():
    mean, var, _ = batch_moments(1e4 + torch.tensor([-1.0, 1.0]))
    assert (mean.item(), var.item()) == (1e4, 1)


def test_a_mask_that_does_not_fit_is_refused():
    with pytest.raises(IndexError, match="shape of the mask"):
        batch_moments(torch.zeros(4, 2), torch.ones(3, dtype=torch.bool))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.integers(0, 2**32))
def test_merging_parts_is_the_moments_of_the_whole(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    parts = [100 + torch.randn(n, 3, dtype=torch.float64, generator=generator) for n in sizes]
    merged = batch_moments(parts[0])
    for part in parts[1:]:
        merged = merge_moments(*merged, *batch_moments(part))
    for ours, whole in zip(merged, batch_moments(torch.cat(parts)), strict=True):
        torch.testing.assert_close(ours, whole)


def test_an_empty_set_leaves_the_other_to_the_bit():
    nothing = torch.zeros(2), torch.ones(2), torch.zeros((), dtype=torch.float64)
    something = torch.tensor([0.1, 3e7]), torch.tensor([1e-12, 0.7]), torch.tensor(5.0, dtype=torch.float64)
    for merged in (merge_moments(*nothing, *something), merge_moments(*something, *nothing)):
        assert all(torch.equal(a, b) for a, b in zip(merged, something, strict=True))
    start = merge_moments(*nothing, *batch_moments(torch.zeros(0, 2)))
    assert (start[0].tolist(), start[1].tolist(), start[2].item()) == ([0, 0], [1, 1], 0)


def test_iqm():
    # 8 scores: 2 cut off at either end, (3 + 4 + 5 + 6) / 4
    assert iqm([1, 2, 3, 4, 5, 6, 70, 1000]) == 4.5
    # 5 scores: int(5 / 4) = 1 cut off at either end
    assert iqm([5, 1, 2, 3, 100]) == pytest.approx(10 / 3)
    assert iqm([[7.0]]) == 7
    assert iqm(torch.arange(12.0).reshape(3, 4)) == 5.5  # runs and tasks together


@pytest.mark.parametrize("scores", [[], [1.0, float("nan")]])
def test_statistics_of_nothing_are_refused(scores):
    for f in (iqm, bootstrap_interval):
        with pytest.raises(BadInput, match="at least one score and no NaN"):
            f(scores)


def test_bootstrap_interval_is_reproducible_and_ordered():
    scores = np.random.default_rng(seeds.seed(0)).normal(size=(10, 3))
    low, high = bootstrap_interval(scores)
    assert low < iqm(scores) < high
    assert bootstrap_interval(scores) == (low, high) != bootstrap_interval(scores, seed=1)
    narrow = bootstrap_interval(scores, level=0.5)
    assert low < narrow[0] < narrow[1] < high
    assert bootstrap_interval([2.0, 2.0, 2.0]) == (2, 2)


def test_resampling_is_stratified():
    """Tasks that differ by far more than their runs: only an interval that mixes tasks would be wide."""
    scores = np.array([[0.0, 100.0, 200.0]] * 5)
    assert bootstrap_interval(scores, np.mean) == (100, 100)
    low, high = bootstrap_interval(scores.ravel(), np.mean)
    assert high - low > 50


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Means of 20 normal numbers: a 90 % percentile interval covers 0 about 88 times in 100 (it is a little narrow)."""
    generator = np.random.default_rng(seeds.seed(0))
    hits = 0
    for _ in range(200):
        low, high = bootstrap_interval(generator.normal(size=20), np.mean, level=0.9, resamples=200)
        hits += low < 0 < high
    assert 160 <= hits <= 192  # 176 expected; the bounds are 3.5 standard deviations


def test_bad_intervals():
    with pytest.raises(BadInput, match=r"\[runs\] or \[runs, tasks\], got shape \[1, 1, 1\]"):
        bootstrap_interval([[[1.0]]])
    with pytest.raises(BadInput, match="between 0 and 1, got 95"):
        bootstrap_interval([1.0], level=95)
