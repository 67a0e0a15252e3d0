"""Conjugate gradient, Fisher-vector products, step size and line search: against dense linear algebra and numbers by hand."""

from __future__ import annotations

import pytest
import torch

from tests import seeds
from whorl.functional import categorical_kl, gaussian_kl
from whorl.functional.trust_region import (
    conjugate_gradient,
    fisher_vector_product,
    flat,
    line_search,
    trust_region_step,
)

EXACT = {"atol": 1e-9, "rtol": 1e-7}


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seeds.seed(seed)), dtype=torch.float64)


def dense(product, size: int) -> torch.Tensor:
    """The matrix of a product, column by column."""
    return torch.stack([product(e) for e in torch.eye(size, dtype=torch.float64)], 1)


# -- conjugate gradient ----------------------------------------------------------------------------------------------


def test_conjugate_gradient_by_hand():
    """A = ((4, 1), (1, 3)), b = (1, 2), from 0: alpha = 5/20; x = (.25, .5); r = (-.5, .25); beta = .0625; then (1/11, 7/11)."""
    a, b = torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=torch.float64), torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert conjugate_gradient(lambda v: a @ v, b, iterations=1).tolist() == pytest.approx([0.25, 0.5])
    assert conjugate_gradient(lambda v: a @ v, b, iterations=2).tolist() == pytest.approx([1 / 11, 7 / 11])


@pytest.mark.parametrize("size", [1, 5, 20])
def test_conjugate_gradient_solves(size):
    root = draw(size, size, seed=size)
    a, b = root @ root.T + 0.1 * torch.eye(size, dtype=torch.float64), draw(size)
    x = conjugate_gradient(lambda v: a @ v, b, iterations=3 * size, tolerance=1e-12)
    torch.testing.assert_close(x, torch.linalg.solve(a, b), atol=1e-7, rtol=1e-7)


def test_conjugate_gradient_stops_when_it_is_there():
    calls = 0

    def product(v):
        nonlocal calls
        calls += 1
        return 2 * v

    torch.testing.assert_close(conjugate_gradient(product, draw(6), iterations=50), draw(6) / 2)
    assert calls == 1
    assert conjugate_gradient(product, torch.zeros(3)).tolist() == [0, 0, 0]
    assert calls == 1  # nothing to solve
    scale = torch.linspace(1, 2, 6, dtype=torch.float64)
    loose = conjugate_gradient(lambda v: scale * v, draw(6), iterations=50, tolerance=0.2)
    assert 1e-6 < (scale * loose - draw(6)).norm() / draw(6).norm() <= 0.2


# -- Fisher-vector products ------------------------------------------------------------------------------------------


def test_fisher_of_a_softmax_by_hand():
    """F = diag(p) - p p' in the logits."""
    logits = torch.tensor([1.0, 3.0, 4.0], dtype=torch.float64).log().requires_grad_()
    product = fisher_vector_product(categorical_kl(logits.detach(), logits), [logits])
    p = torch.tensor([1.0, 3.0, 4.0], dtype=torch.float64) / 8
    torch.testing.assert_close(dense(product, 3), torch.diag(p) - torch.outer(p, p), **EXACT)
    # v = (1, 0, 0): p1 - p1 p1, -p1 p2, -p1 p3 = (7, -3, -4) / 64
    assert product(torch.tensor([1.0, 0, 0], dtype=torch.float64)).tolist() == pytest.approx([7 / 64, -3 / 64, -4 / 64])


def test_fisher_of_a_normal_by_hand():
    """1 / std^2 for a mean, 2 for a log std, nothing between them."""
    mean, log_std = draw(2).requires_grad_(), torch.tensor([0.5, -1.0], dtype=torch.float64).requires_grad_()
    kl = gaussian_kl(mean.detach(), log_std.detach(), mean, log_std)
    expected = torch.diag(torch.cat([(-2 * log_std.detach()).exp(), torch.tensor([2.0, 2.0], dtype=torch.float64)]))
    torch.testing.assert_close(dense(fisher_vector_product(kl, [mean, log_std]), 4), expected, **EXACT)


def network(outputs: int) -> torch.nn.Module:
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, outputs)).double()
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            p.copy_(0.5 * draw(*p.shape, seed=i))
    return net


def outer_products(score, count: int) -> torch.Tensor:
    """sum_a weight_a grad log pi(a) grad log pi(a)': the definition of the Fisher matrix. score(a) -> (weight, flat gradient)."""
    return sum(weight * torch.outer(g, g) for weight, g in map(score, range(count)))  # type: ignore[return-value]


def test_fisher_of_a_network_is_the_mean_outer_product_of_scores():
    """Categorical: E over states and over all actions, by its definition."""
    net, states = network(3), draw(7, 3, seed=9)
    weights = list(net.parameters())
    logits = net(states)
    product = fisher_vector_product(categorical_kl(logits.detach(), logits).mean(), weights)
    log_p = net(states).log_softmax(-1)

    def score(k):
        row = log_p[k // 3, k % 3]
        return row.exp().detach() / 7, flat(torch.autograd.grad(row, weights, retain_graph=True))

    size = sum(w.numel() for w in weights)
    torch.testing.assert_close(dense(product, size), outer_products(score, 21), **EXACT)


def test_fisher_of_a_normal_network_in_closed_form():
    """F = mean_s J_s' diag(1 / std^2) J_s for the mean's weights, 2 on the diagonal for a log std of its own."""
    net, states = network(2), draw(6, 3, seed=9)
    log_std = torch.tensor([0.3, -0.7], dtype=torch.float64).requires_grad_()
    weights = list(net.parameters())
    mean = net(states)
    kl = gaussian_kl(mean.detach(), log_std.detach().expand(6, 2), mean, log_std.expand(6, 2)).mean()
    size = sum(w.numel() for w in weights)

    def score(k):
        row = mean[k // 2, k % 2]
        return (-2 * log_std[k % 2]).exp().detach() / 6, flat(torch.autograd.grad(row, weights, retain_graph=True))

    came = dense(fisher_vector_product(kl, [*weights, log_std]), size + 2)
    torch.testing.assert_close(came[:size, :size], outer_products(score, 12), **EXACT)
    torch.testing.assert_close(came[size:, size:], 2 * torch.eye(2, dtype=torch.float64), **EXACT)
    assert (came[:size, size:] == 0).all()


def test_parameters_that_the_kl_does_not_know_get_zeros():
    logits, other = draw(3).requires_grad_(), draw(2, seed=1).requires_grad_()
    product = fisher_vector_product(categorical_kl(logits.detach(), logits), [other, logits])
    assert product(torch.ones(5, dtype=torch.float64))[:2].tolist() == [0, 0]
    one_choice = draw(4, 1).requires_grad_()  # its KL is 0 wherever it stands
    product = fisher_vector_product(categorical_kl(one_choice.detach(), one_choice).mean(), [one_choice])
    assert product(draw(4)).abs().max() == 0


# -- step size -------------------------------------------------------------------------------------------------------


def test_step_size_by_hand():
    """F = diag(1, 4), x = (2, 1): x'Fx = 8; 2 * .01 / 8 = .0025, root .05: the step is (.1, .05), and .5 step'F step = .01."""
    f = torch.diag(torch.tensor([1.0, 4.0]))
    step = trust_region_step(lambda v: f @ v, torch.tensor([2.0, 1.0]), 0.01)
    assert step.tolist() == pytest.approx([0.1, 0.05])
    assert (0.5 * step @ f @ step).item() == pytest.approx(0.01)
    for length in (1e-3, 1e3):  # how long the direction is does not matter
        assert trust_region_step(lambda v: f @ v, length * torch.tensor([2.0, 1.0]), 0.01).tolist() == pytest.approx(
            [0.1, 0.05]
        )


def test_a_flat_direction_gives_no_step_and_nan_is_not_hidden():
    assert trust_region_step(lambda v: 0 * v, torch.ones(2), 0.01).tolist() == [0, 0]
    assert trust_region_step(lambda v: torch.nan * v, torch.ones(2), 0.01).isnan().all()


def test_the_kl_of_a_small_step_is_the_limit():
    """The whole of it: gradient, conjugate gradient, step size. KL = kl_limit to third order."""
    net, states = network(3), draw(50, 3, seed=9)
    weights = list(net.parameters())
    old = net(states).detach()
    gradient = flat(torch.autograd.grad(net(states).softmax(-1)[:, 0].mean(), weights))
    product = fisher_vector_product(categorical_kl(old, net(states)).mean(), weights)
    direction = conjugate_gradient(lambda v: product(v) + 1e-6 * v, gradient, iterations=50)
    for limit in (1e-4, 1e-6):
        step = trust_region_step(product, direction, limit)
        moved, k = {}, 0
        for name, w in net.named_parameters():
            moved[name] = w + step[k : k + w.numel()].view_as(w)
            k += w.numel()
        kl = categorical_kl(old, torch.func.functional_call(net, moved, states)).mean()
        assert kl.item() == pytest.approx(limit, rel=30 * limit**0.5)


# -- line search -----------------------------------------------------------------------------------------------------


def test_line_search_by_hand():
    """Improvement s - s^2, KL s^2 at step s. From 2, halving: 2 and 1 do not improve, .5 has KL .25, .25 has .0625 <= .1."""
    seen = []

    def evaluate(step):
        seen.append(step.item())
        return (step - step.square())[0], step.square()[0]

    step, shrinks = line_search(evaluate, torch.tensor([2.0]), kl_limit=0.1, shrink=0.5)
    assert (step.item(), shrinks) == (0.25, 3) and seen == [2.0, 1.0, 0.5, 0.25]
    assert line_search(evaluate, torch.tensor([2.0]), 10.0, 0.5)[1] == 2  # the KL alone held it back
    assert line_search(evaluate, torch.tensor([0.3]), 0.1) == (torch.tensor([0.3]), 0)


@pytest.mark.parametrize("bad", [(-1.0, 0.0), (0.0, 0.0), (1.0, 0.2), (torch.nan, 0.0), (1.0, torch.nan)])
def test_line_search_gives_up_with_no_step(bad):
    improvement, kl = map(torch.tensor, bad)
    step, shrinks = line_search(lambda step: (improvement, kl), torch.ones(3), kl_limit=0.1, tries=4)
    assert step.tolist() == [0, 0, 0] and shrinks == 4
