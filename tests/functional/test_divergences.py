"""Entropies and divergences: against torch.distributions, numbers by hand, masks, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, Normal, kl_divergence

from tests import seeds
from whorl.functional import (
    categorical_entropy,
    categorical_kl,
    gaussian_entropy,
    gaussian_kl,
    kl_k1,
    kl_k2,
    kl_k3,
)


def sample(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seeds.seed(seed)), dtype=torch.float64)


def test_estimators_by_hand():
    log_ratio = torch.tensor([math.log(2.0), 0.0, -math.log(2.0)]).double()
    k = math.log(2)
    assert kl_k1(log_ratio).tolist() == pytest.approx([-k, 0, k])
    assert kl_k2(log_ratio).tolist() == pytest.approx([k * k / 2, 0, k * k / 2])
    assert kl_k3(log_ratio).tolist() == pytest.approx([1 - k, 0, k - 0.5])  # r - 1 - log r


def test_which_divergence_and_which_sign():
    """x ~ q and log_ratio = log p - log q: the means of k1 and k3 are KL(q || p), exactly, not KL(p || q)."""
    log_q, log_p = torch.tensor([0.5, 0.25, 0.25]).double().log(), torch.tensor([0.05, 0.05, 0.9]).double().log()
    exact = (log_q.exp() * (log_q - log_p)).sum()
    other = (log_p.exp() * (log_p - log_q)).sum()
    assert exact > other + 0.2
    for estimator in (kl_k1, kl_k3):
        torch.testing.assert_close((log_q.exp() * estimator(log_p - log_q)).sum(), exact)
    near = (log_q + 0.01 * torch.tensor([1.0, -1.0, 0.0]).double()).log_softmax(0)
    exact = (log_q.exp() * (log_q - near)).sum()
    assert (log_q.exp() * kl_k2(near - log_q)).sum().item() == pytest.approx(exact.item(), rel=0.02)


def test_k3_keeps_its_digits_for_small_steps():
    # In float32, exp(1e-4) - 1 - 1e-4 would be rounding noise of 1e-7; the true value is 5e-9.
    assert kl_k3(torch.tensor(1e-4)).item() == pytest.approx(5e-9, rel=0.1)


def test_categorical():
    p, q = sample(5, 4), sample(5, 4, seed=1)
    torch.testing.assert_close(categorical_entropy(p), Categorical(logits=p).entropy())
    torch.testing.assert_close(categorical_kl(p, q), kl_divergence(Categorical(logits=p), Categorical(logits=q)))
    assert categorical_entropy(torch.zeros(8)).item() == pytest.approx(math.log(8))
    # p = (1/2, 1/2), q = (1/4, 3/4): .5 log 2 + .5 log (2/3)
    q = torch.tensor([1.0, 3.0]).log()
    assert categorical_kl(torch.zeros(2), q).item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))


@pytest.mark.parametrize("masked", [-torch.inf, -1e8, torch.finfo(torch.float32).min])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masked_choices_add_nothing(masked, dtype):
    free_p, free_q = sample(3, 2).to(dtype), sample(3, 2, seed=1).to(dtype)
    p, q = (torch.cat([x, torch.full((3, 2), masked, dtype=dtype)], -1).requires_grad_() for x in (free_p, free_q))
    torch.testing.assert_close(categorical_entropy(p), categorical_entropy(free_p))
    torch.testing.assert_close(categorical_kl(p, q), categorical_kl(free_p, free_q))
    for result in (categorical_entropy(p), categorical_kl(p, q)):
        for gradient in torch.autograd.grad(result.sum(), (p, q), allow_unused=True):
            if gradient is not None:
                assert gradient.isfinite().all() and (gradient[:, 2:] == 0).all()
                assert (gradient[:, :2] != 0).all()


def test_one_choice_left():
    logits = torch.tensor([2.0, -torch.inf], requires_grad=True)
    entropy = categorical_entropy(logits)
    assert entropy.item() == 0
    assert torch.autograd.grad(entropy, logits)[0].tolist() == [0, 0]


def test_impossible_where_it_was_possible_is_infinite():
    assert categorical_kl(torch.zeros(2), torch.tensor([0.0, -torch.inf])).item() == torch.inf
    assert categorical_kl(torch.tensor([0.0, -torch.inf]), torch.zeros(2)).item() == pytest.approx(math.log(2))


def test_gaussian():
    mean_p, log_std_p, mean_q, log_std_q = (sample(5, 3, seed=i) for i in range(4))
    p, q = (Independent(Normal(m, s.exp()), 1) for m, s in ((mean_p, log_std_p), (mean_q, log_std_q)))
    torch.testing.assert_close(gaussian_entropy(log_std_p), p.entropy())
    torch.testing.assert_close(gaussian_kl(mean_p, log_std_p, mean_q, log_std_q), kl_divergence(p, q))
    # N(0, 1) against N(1, 2): log 2 + (1 + 1) / 8 - 1/2
    by_hand = gaussian_kl(*(torch.tensor([x]) for x in (0.0, 0.0, 1.0, math.log(2))))
    assert by_hand.item() == pytest.approx(math.log(2) + 0.25 - 0.5)
    assert gaussian_kl(mean_p, log_std_p, mean_p, log_std_p).abs().max() == 0


def test_gradients():
    x = [sample(2, 3, seed=i).requires_grad_() for i in range(4)]
    for f in (kl_k1, kl_k2, kl_k3, categorical_entropy, gaussian_entropy):
        assert torch.autograd.gradcheck(f, x[:1])
    assert torch.autograd.gradcheck(categorical_kl, x[:2])
    assert torch.autograd.gradcheck(gaussian_kl, x)


def test_inside_transforms_and_graphs():
    p, q = sample(5, 4), sample(5, 4, seed=1)
    assert torch.equal(torch.compile(categorical_kl, fullgraph=True, backend="aot_eager")(p, q), categorical_kl(p, q))
    torch.testing.assert_close(torch.func.vmap(categorical_kl)(p, q), categorical_kl(p, q))
