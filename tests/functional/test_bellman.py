"""Targets and losses of Q-learning: numbers by hand, what cuts the bootstrap, refusals."""

import math

import pytest
import torch

from whorl.errors import BatchError
from whorl.functional import huber, td_target, weighted_mean

F64 = {"dtype": torch.float64}


def test_target_by_hand():
    reward = torch.tensor([1.0, 1.0, -2.0], **F64)
    terminated = torch.tensor([False, True, False])
    next_value = torch.tensor([10.0, 10.0, 0.5], **F64)
    target = td_target(reward, terminated, next_value, 0.9)
    torch.testing.assert_close(target, torch.tensor([10.0, 1.0, -1.55], **F64), rtol=0, atol=1e-12)


def test_target_with_a_discount_per_row():
    """n-step rows: 1 + 0.9 + 0.81 over three steps, bootstrapped with 0.9^3."""
    reward, discount = torch.tensor([2.71, 1.0], **F64), torch.tensor([0.729, 0.9], **F64)
    target = td_target(reward, torch.tensor([False, False]), torch.tensor([10.0, 10.0], **F64), discount)
    torch.testing.assert_close(target, torch.tensor([10.0, 10.0], **F64), rtol=0, atol=1e-12)


def test_target_of_many_members():
    next_value = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    target = td_target(torch.zeros(2), torch.tensor([False, True]), next_value, 0.5)
    assert target.tolist() == [[0.5, 0.0], [1.5, 0.0]]


def test_target_has_no_gradient_and_ignores_nan_after_the_end():
    next_value = torch.tensor([math.nan, 1.0], requires_grad=True)
    target = td_target(torch.ones(2), torch.tensor([True, False]), next_value, 0.9)
    assert not target.requires_grad
    torch.testing.assert_close(target, torch.tensor([1.0, 1.9]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": torch.zeros(2, 1)}, r"reward has shape \[2, 1\]"),
        ({"terminated": torch.zeros(2)}, "terminated has dtype torch.float32, expected torch.bool"),
        ({"next_value": torch.zeros(2, 1)}, r"next_value has shape \[1\]"),
        ({"discount": torch.zeros(2, 1)}, r"discount has shape \[2, 1\]"),
    ],
)
def test_target_refuses(change, message):
    right = {"reward": torch.zeros(2), "terminated": torch.zeros(2, dtype=torch.bool), "next_value": torch.zeros(2)}
    with pytest.raises(BatchError, match=message):
        td_target(**({**right, "discount": 0.9} | change))


def test_huber_by_hand():
    error = torch.tensor([0.0, 0.5, -1.0, 3.0, -3.0], **F64)
    torch.testing.assert_close(huber(error), torch.tensor([0.0, 0.125, 0.5, 2.5, 2.5], **F64), rtol=0, atol=1e-12)
    # threshold 2: 2^2 / 2 = 2 at the joint, 2 * (3 - 1) = 4 beyond it
    wide = huber(torch.tensor([2.0, 3.0], **F64), 2.0)
    torch.testing.assert_close(wide, torch.tensor([2.0, 4.0], **F64), rtol=0, atol=1e-12)


def test_huber_has_a_slope_of_at_most_the_threshold():
    error = torch.linspace(-4, 4, 33, **F64, requires_grad=True)
    huber(error, 1.5).sum().backward()
    torch.testing.assert_close(error.grad, error.detach().clamp(-1.5, 1.5), rtol=0, atol=1e-12)


def test_weighted_mean_divides_by_the_rows():
    x, weight = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 0.5, 0.0])
    torch.testing.assert_close(weighted_mean(x, weight), torch.tensor(2 / 3))
    torch.testing.assert_close(weighted_mean(x), torch.tensor(2.0))
    with pytest.raises(BatchError, match=r"x has shape \[3\], but weight has shape \[3, 1\]"):
        weighted_mean(x, weight.unsqueeze(-1))


def test_weighted_mean_over_the_rows_of_a_mask():
    """Divided by the rows that count; the others may hold anything."""
    x, weight = torch.tensor([1.0, 2.0, torch.nan]), torch.tensor([1.0, 0.5, 0.25])
    mask = torch.tensor([True, True, False])
    torch.testing.assert_close(weighted_mean(x, weight, mask), torch.tensor(1.0))
    torch.testing.assert_close(weighted_mean(x, None, mask), torch.tensor(1.5))
    assert weighted_mean(x, weight, torch.zeros(3, dtype=torch.bool)) == 0
