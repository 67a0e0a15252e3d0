"""Quantile Huber sums over sorted targets = the sum over all pairs, values and gradients; refusals."""

import pytest
import torch

from tests import seeds
from whorl.errors import BatchError
from whorl.functional.quantiles import sorted_quantile_huber


def over_all_pairs(quantiles, target, tau, threshold):
    """Dabney et al. 2018a, eq. 9 and 10, as written."""
    total = 0.0
    for i, theta in enumerate(quantiles):
        for y in target:
            u = y - theta
            size = 0.5 * u * u if abs(u) <= threshold else threshold * (abs(u) - 0.5 * threshold)
            total = total + abs(tau[i] - float(u < 0)) * size / threshold / len(target)
    return total


def test_by_hand():
    # quantile 0, tau 0.25; u = -3, -0.5, 0.5, 2: huber 2.5, 0.125, 0.125, 1.5 times 0.75, 0.75, 0.25, 0.25
    loss = sorted_quantile_huber(
        torch.tensor([0.0]), torch.tensor([-3.0, -0.5, 0.5, 2.0]), torch.tensor([0.25]), threshold=1.0
    )
    assert float(loss) == pytest.approx((0.75 * 2.625 + 0.25 * 1.625) / 4, abs=1e-6)


@pytest.mark.parametrize("threshold", [1.0, 0.3, 10.0])
@pytest.mark.parametrize("offset", [0.0, -1000.0])
def test_equals_all_pairs(threshold, offset):
    torch.manual_seed(seeds.seed(0))
    quantiles = (offset + 3 * torch.randn(4, 7, dtype=torch.float64)).requires_grad_()
    target = (offset + 3 * torch.randn(4, 11, dtype=torch.float64)).sort(-1).values
    target[:, 4:6] = target[:, 4:5]  # ties
    with torch.no_grad():
        quantiles[0, 0] = target[0, 3]  # u = 0, and far outside on both sides
        quantiles[1, 0], quantiles[1, 1] = offset - 50, offset + 50
    tau = torch.rand(7, dtype=torch.float64)
    came = sorted_quantile_huber(quantiles, target, tau, threshold)
    expected = torch.stack([over_all_pairs(q, y, tau, threshold) for q, y in zip(quantiles, target, strict=True)])
    torch.testing.assert_close(came, expected, rtol=0, atol=1e-9)
    gradients = [torch.autograd.grad(loss.sum(), quantiles)[0] for loss in (came, expected)]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-9)


def test_float32_of_large_returns_loses_nothing():
    torch.manual_seed(seeds.seed(1))
    quantiles, target = 1e4 + torch.randn(2, 5), (1e4 + torch.randn(2, 9)).sort(-1).values
    tau = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    expected = [
        over_all_pairs(q, y, tau.double(), 1.0) for q, y in zip(quantiles.double(), target.double(), strict=True)
    ]
    came = sorted_quantile_huber(quantiles, target, tau)
    assert came.dtype == torch.float32
    torch.testing.assert_close(came, torch.stack(expected).float(), rtol=1e-6, atol=0)


def test_refuses_other_rows():
    with pytest.raises(BatchError, match=r"quantiles has shape \[3\], but target has shape \[2\]"):
        sorted_quantile_huber(torch.zeros(3, 5), torch.zeros(2, 5), torch.zeros(5))
