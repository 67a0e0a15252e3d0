"""Projection onto atoms and quantile regression: worked by hand, against slow loops, and what must be kept whatever comes."""

import pytest
import torch

from tests import seeds
from whorl.errors import BatchError
from whorl.functional.distributional import categorical_projection, midpoints, quantile_huber


def t(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def project(probabilities, reward, discount, terminated, support=(0.0, 1.0, 2.0, 3.0, 4.0)):
    result = categorical_projection(
        t(*support), t(*probabilities)[None], t(reward), discount, torch.tensor([terminated])
    )
    return result[0].tolist()


# atoms 0, 1, 2, 3, 4: probabilities, reward, discount, terminated, result
PROJECTIONS = [
    ((0, 0, 1, 0, 0), 0.25, 0.5, False, (0, 0.75, 0.25, 0, 0)),  # 2 -> 1.25
    (
        (0.1, 0.2, 0.3, 0.4, 0),
        1.0,
        1.0,
        False,
        (0, 0.1, 0.2, 0.3, 0.4),
    ),  # every atom lands on an atom: no mass may vanish
    ((0, 0, 0, 0.4, 0.6), 2.0, 1.0, False, (0, 0, 0, 0, 1)),  # 5 and 6 are clipped to 4
    ((0.3, 0.7, 0, 0, 0), -3.0, 1.0, False, (1, 0, 0, 0, 0)),  # -3 and -2 are clipped to 0
    ((0.2, 0.2, 0.2, 0.2, 0.2), 2.5, 0.9, True, (0, 0, 0.5, 0.5, 0)),  # an end: the reward alone
    ((0.2, 0.2, 0.2, 0.2, 0.2), 4.0, 0.9, True, (0, 0, 0, 0, 1)),  # on the last atom
    ((0.2, 0.2, 0.2, 0.2, 0.2), 0.0, 0.9, True, (1, 0, 0, 0, 0)),  # on the first
    ((0.5, 0, 0.5, 0, 0), 1.0, 0.25, False, (0, 0.75, 0.25, 0, 0)),  # 0 -> 1, 2 -> 1.5
]


@pytest.mark.parametrize(("probabilities", "reward", "discount", "terminated", "result"), PROJECTIONS)
def test_projection_by_hand(probabilities, reward, discount, terminated, result):
    assert project(probabilities, reward, discount, terminated) == pytest.approx(result, abs=1e-12)


def random_rows(n=500, atoms=51, low=-10.0, high=10.0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seeds.seed(0))
    support = torch.linspace(low, high, atoms, dtype=dtype)
    probabilities = torch.randn(n, atoms, dtype=dtype, generator=draw).mul(3).softmax(-1)
    reward = torch.randint(-12, 13, (n,), generator=draw).to(dtype) * 0.4  # the atoms' distance: many land exactly
    discount = torch.tensor([1.0, 0.99, 0.5, 0.0], dtype=dtype)[torch.randint(4, (n,), generator=draw)]
    return support, probabilities, reward, discount, torch.rand(n, generator=draw) < 0.3


def test_projection_equals_algorithm_1_of_the_paper():
    support, p, reward, discount, terminated = random_rows(60)
    result = categorical_projection(support, p, reward, discount, terminated)
    width = float(support[1] - support[0])
    for row in range(len(p)):
        expected = [0.0] * len(support)
        for z, mass in zip(support.tolist(), p[row].tolist(), strict=True):
            moved = float(reward[row]) + float(discount[row]) * (not terminated[row]) * z
            moved = min(max(moved, -10.0), 10.0)
            for i, atom in enumerate(support.tolist()):  # the paper's eq. 7: the triangle around each atom
                expected[i] += mass * min(max(1 - abs(moved - atom) / width, 0.0), 1.0)
        assert result[row].tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projection_keeps_mass_1_and_the_mean_where_nothing_is_clipped(dtype):
    support, p, reward, discount, terminated = random_rows(dtype=dtype)
    result = categorical_projection(support, p, reward, discount, terminated)
    assert (result >= 0).all()
    torch.testing.assert_close(result.sum(-1), torch.ones(len(p), dtype=dtype), atol=2e-6, rtol=0)
    inside = (reward.abs() + discount * ~terminated * 10.0) <= 10.0
    assert inside.sum() > 50
    mean = reward + discount * ~terminated * (p @ support)
    torch.testing.assert_close((result @ support)[inside], mean[inside], atol=2e-5, rtol=0)


def test_projection_refuses_what_it_would_have_to_broadcast():
    with pytest.raises(BatchError, match=r"probabilities has shape \[2\], but reward has shape \[2, 1\]"):
        categorical_projection(t(0, 1), torch.rand(2, 2), torch.zeros(2, 1), 0.9, torch.zeros(2, dtype=torch.bool))


def test_quantile_huber_by_hand():
    """theta = (0, 2), tau = (.25, .75), targets (1, 4), kappa 1.

    u_0 = 1, 4: huber .5, 3.5, both above: .25 (.5 + 3.5) / 2 = .5. u_1 = -1, 2: huber .5, 1.5: (.25 .5 + .75 1.5) / 2 = .625.
    """
    loss = quantile_huber(t(0, 2)[None], t(1, 4)[None], t(0.25, 0.75))
    assert loss.tolist() == pytest.approx([0.5 + 0.625], abs=1e-12)
    sharp = quantile_huber(
        t(0, 2)[None], t(1, 4)[None], t(0.25, 0.75), threshold=0
    )  # |u|: .25 (1 + 4) / 2, (.25 + 1.5) / 2
    assert sharp.tolist() == pytest.approx([0.625 + 0.875], abs=1e-12)
    wide = quantile_huber(t(0, 2)[None], t(1, 4)[None], t(0.25, 0.75), threshold=2)  # .5, 6 and .5, 2; over kappa
    assert wide.tolist() == pytest.approx([(0.25 * 6.5 / 2 + (0.25 * 0.5 + 0.75 * 2) / 2) / 2], abs=1e-12)


def test_quantile_huber_equals_the_double_loop_with_taus_of_each_row():
    draw = torch.Generator().manual_seed(seeds.seed(1))
    theta, target = torch.randn(7, 5, generator=draw).double(), 2 * torch.randn(7, 3, generator=draw).double()
    tau = torch.rand(7, 5, generator=draw).double()
    for b in range(7):
        expected = 0.0
        for i in range(5):
            for j in range(3):
                u = float(target[b, j] - theta[b, i])
                huber = 0.5 * u * u if abs(u) <= 1 else abs(u) - 0.5
                expected += abs(float(tau[b, i]) - (u < 0)) * huber / 3
        assert quantile_huber(theta, target, tau)[b].item() == pytest.approx(expected, abs=1e-12)


def test_the_sharp_loss_is_least_at_the_quantile_and_its_slope_is_the_share_below():
    target = t(*range(100))[None]
    for tau, best in ((0.1, 9.5), (0.5, 49.5), (0.9, 89.5)):
        theta = t(best)[None].requires_grad_()
        assert torch.autograd.grad(quantile_huber(theta, target, t(tau), 0).sum(), theta)[0].item() == pytest.approx(0)
        theta = t(20.5)[None].requires_grad_()  # 21 of 100 lie below
        slope = torch.autograd.grad(quantile_huber(theta, target, t(tau), 0).sum(), theta)[0].item()
        assert slope == pytest.approx(0.21 - tau)


def test_gradient_of_quantile_huber_by_finite_differences():
    draw = torch.Generator().manual_seed(seeds.seed(2))
    theta = torch.randn(3, 4, generator=draw).double().requires_grad_()
    target, tau = torch.randn(3, 6, generator=draw).double(), midpoints(4, theta)
    assert torch.autograd.gradcheck(lambda x: quantile_huber(x, target, tau), theta)


def test_midpoints():
    assert midpoints(4, t(0)).tolist() == [0.125, 0.375, 0.625, 0.875]
