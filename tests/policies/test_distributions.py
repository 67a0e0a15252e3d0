"""Closed forms, Monte Carlo and finite differences for every action distribution."""

import math

import pytest
import torch

from whorl.batch import get, make
from whorl.policies.distributions import MASKED, Categorical, Gaussian, ScaledGaussian, SquashedGaussian
from whorl.policies.mixed import Parts

g = lambda seed=0: torch.Generator().manual_seed(seed)  # noqa: E731


def test_categorical_by_hand():
    d = Categorical(torch.tensor([[math.log(0.2), math.log(0.8)]]), (2,), True)
    assert d.mode.tolist() == [1]
    assert d.log_prob(torch.tensor([0])).item() == pytest.approx(math.log(0.2), abs=1e-6)
    assert d.entropy().item() == pytest.approx(-(0.2 * math.log(0.2) + 0.8 * math.log(0.8)), abs=1e-6)
    q = Categorical(torch.tensor([[0.0, 0.0]]), (2,), True)
    assert d.kl(q).item() == pytest.approx(0.2 * math.log(0.4) + 0.8 * math.log(1.6), abs=1e-6)


def test_categorical_samples_follow_the_probabilities():
    logits = torch.tensor([0.5, -1.0, 2.0])
    noise = Categorical.noise((200_000,), 3, g())
    counts = torch.bincount(Categorical(logits, (3,), True).sample(noise), minlength=3)
    expected = logits.softmax(-1) * 200_000
    chi2 = ((counts - expected) ** 2 / expected).sum().item()
    assert chi2 < 13.8  # 2 degrees of freedom, p = 0.001


def test_masked_actions_never_happen_and_leave_finite_gradients():
    raw = torch.randn(1000, 4, generator=g(), requires_grad=True)
    mask = torch.tensor([True, False, True, False]).expand(1000, 4)
    d = Categorical(torch.where(mask, raw, MASKED), (4,), True)
    action = d.sample(Categorical.noise((1000,), 4, g(1)))
    assert set(action.tolist()) == {0, 2}
    p = raw.detach()[:, [0, 2]].softmax(-1)
    torch.testing.assert_close(d.entropy(), -(p * p.log()).sum(-1), atol=1e-5, rtol=0)
    (d.entropy().sum() + d.log_prob(action).sum()).backward()
    assert raw.grad.isfinite().all() and (raw.grad[:, [1, 3]] == 0).all()


def test_multi_categorical_is_the_sum_of_its_parts():
    logits = torch.randn(7, 5, generator=g())
    d = Categorical(logits, (2, 3), False)
    a = d.sample(Categorical.noise((7,), 5, g(1)))
    assert a.shape == (7, 2) and (a < torch.tensor([2, 3])).all()
    left, right = Categorical(logits[:, :2], (2,), True), Categorical(logits[:, 2:], (3,), True)
    torch.testing.assert_close(d.log_prob(a), left.log_prob(a[:, 0]) + right.log_prob(a[:, 1]))
    torch.testing.assert_close(d.entropy(), left.entropy() + right.entropy())
    assert d.kl(d).abs().max() < 1e-6


def test_gaussian_by_hand():
    d = Gaussian(torch.tensor([[1.0, -1.0]]), torch.tensor([[0.0, math.log(2.0)]]))
    # N(1,1) at 2: -0.5 - log sqrt(2 pi); N(-1,2) at -1: -log 2 - log sqrt(2 pi)
    expected = -0.5 - math.log(2) - math.log(2 * math.pi)
    assert d.log_prob(torch.tensor([[2.0, -1.0]])).item() == pytest.approx(expected, abs=1e-6)
    assert d.entropy().item() == pytest.approx(math.log(2) + 1 + math.log(2 * math.pi), abs=1e-6)
    torch.testing.assert_close(d.sample(torch.tensor([[1.0, 1.0]])), torch.tensor([[2.0, 1.0]]))


def test_gaussian_agrees_with_torch():
    mean, log_std, x = torch.randn(3, 50, 4, generator=g()).unbind(0)
    ours, theirs = Gaussian(mean, log_std), torch.distributions.Normal(mean, log_std.exp())
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(x).sum(-1))
    torch.testing.assert_close(ours.entropy(), theirs.entropy().sum(-1))
    other = torch.distributions.Normal(mean + 1, (log_std * 0.5).exp())
    kl = torch.distributions.kl_divergence(theirs, other).sum(-1)
    torch.testing.assert_close(ours.kl(Gaussian(mean + 1, log_std * 0.5)), kl)


def squashed(mean, log_std, low=-2.0, high=3.0, dtype=torch.float64):
    t = lambda v: torch.as_tensor(v, dtype=dtype)  # noqa: E731
    return SquashedGaussian(t(mean), t(log_std), t([low]), t([high]))


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.7, -1.0), (-1.5, 0.5), (3.0, -2.0)])
def test_squashed_density_integrates_to_one_and_entropy_is_its_integral(mean, log_std):
    d = squashed([mean], [log_std])
    u = torch.linspace(-13, 13, 400_001, dtype=torch.float64)  # substitution: fine where the density is steep
    a = (-2 + 2.5 * (u.tanh() + 1)).unsqueeze(-1)
    inside = (u.tanh().abs() < SquashedGaussian.LIMIT) & (a[:, 0] > -2) & (a[:, 0] < 3)
    u, a = u[inside], a[inside]
    log_p = d.log_prob(a)
    da = 2.5 * (1 - u.tanh() ** 2)
    normal = torch.distributions.Normal(mean, math.exp(log_std))
    mass = normal.cdf(u[-1]) - normal.cdf(u[0])  # what lies beyond the limit is held at it
    assert torch.trapezoid(log_p.exp() * da, u).item() == pytest.approx(mass.item(), abs=1e-5)
    entropy = -torch.trapezoid(log_p.exp() * log_p * da, u).item()
    assert d.entropy().item() == pytest.approx(entropy, abs=6e-3)


def test_squashed_samples_stay_inside_and_score_finite():
    d = squashed([[8.0]] * 1000, [[1.0]] * 1000, dtype=torch.float32)
    a = d.sample(Gaussian.noise((1000,), 1, g()))
    assert ((a > -2) & (a < 3)).all()
    assert d.log_prob(a).isfinite().all()


@pytest.mark.parametrize("kind", ["categorical", "multi", "gaussian", "squashed"])
def test_score_by_finite_differences(kind):
    """d log_prob / d parameters, against central differences in float64."""
    x = torch.randn(3, 4, dtype=torch.float64, generator=g(), requires_grad=True)
    if kind == "categorical":
        f = lambda x: Categorical(x, (4,), True).log_prob(torch.tensor([0, 1, 3])).sum().double()  # noqa: E731
    elif kind == "multi":
        f = lambda x: Categorical(x, (2, 2), False).log_prob(torch.tensor([[0, 1], [1, 1], [0, 0]])).sum().double()  # noqa: E731
    elif kind == "gaussian":
        f = lambda x: Gaussian(x[:, :2], x[:, 2:]).log_prob(torch.ones(3, 2, dtype=torch.float64)).sum()  # noqa: E731
    else:
        low, high = torch.full((2,), -1.0, dtype=torch.float64), torch.full((2,), 2.0, dtype=torch.float64)
        d = lambda x: SquashedGaussian(x[:, :2], x[:, 2:], low, high)  # noqa: E731
        f = lambda x: d(x).log_prob(torch.full((3, 2), 0.3, dtype=torch.float64)).sum() + d(x).entropy().sum()  # noqa: E731
    assert torch.autograd.gradcheck(f, (x,), eps=1e-6, atol=1e-6)


def test_squashed_sample_scores_itself():
    """By hand at one point, then against `log_prob` of the same action, which inverts the tanh."""
    d = squashed([0.3], [math.log(0.5)])
    action, log_prob = d.sample_and_log_prob(torch.tensor([0.8], dtype=torch.float64))
    u = 0.3 + 0.5 * 0.8
    assert action.item() == pytest.approx(-2 + 2.5 * (math.tanh(u) + 1), abs=1e-12)
    normal = -0.5 * 0.8**2 - math.log(0.5) - 0.5 * math.log(2 * math.pi)
    assert log_prob.item() == pytest.approx(normal - math.log(2.5 * (1 - math.tanh(u) ** 2)), abs=1e-9)
    d = squashed([[0.5, -1.0]] * 1000, [[-0.5, 0.3]] * 1000)
    action, log_prob = d.sample_and_log_prob(torch.randn(1000, 2, dtype=torch.float64, generator=g()))
    torch.testing.assert_close(log_prob, d.log_prob(action), atol=1e-6, rtol=1e-6)


def test_squashed_sample_scores_itself_where_the_tanh_is_flat():
    """log (1 - tanh(u)^2) = log 4 - 2 u + O(e^-2u): float32 keeps it where 1 - tanh(u)^2 is 0."""
    d = squashed([20.0], [0.0], -1.0, 1.0, torch.float32)
    log_prob = d.sample_and_log_prob(torch.tensor([1.0]))[1]
    assert log_prob.item() == pytest.approx(-0.5 - 0.5 * math.log(2 * math.pi) - (math.log(4) - 42), rel=1e-6)


def test_squashed_sample_gradients_by_finite_differences():
    x = torch.randn(3, 4, dtype=torch.float64, generator=g(), requires_grad=True)
    noise = torch.randn(3, 2, dtype=torch.float64, generator=g(1))
    low, high = torch.full((2,), -1.0, dtype=torch.float64), torch.full((2,), 2.0, dtype=torch.float64)
    f = lambda x: SquashedGaussian(x[:, :2], x[:, 2:], low, high).sample_and_log_prob(noise)  # noqa: E731
    assert torch.autograd.gradcheck(f, (x,), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["categorical", "multi", "gaussian", "scaled", "squashed", "mixed"])
def test_a_distribution_goes_into_a_batch_and_comes_back(kind):
    x, y = torch.randn(2, 5, 3, 4, generator=g())
    low, high = torch.tensor([-1.0, 0.0]), torch.tensor([2.0, 9.0])
    of = {
        "categorical": lambda x: Categorical(x, (4,), True),
        "multi": lambda x: Categorical(x, (2, 2), False),
        "gaussian": lambda x: Gaussian(x[..., :2], x[..., 2:]),
        "scaled": lambda x: ScaledGaussian(x[..., :2], x[..., 2:], low, high),
        "squashed": lambda x: SquashedGaussian(x[..., :2], x[..., 2:], low, high),
        "mixed": lambda x: Parts(Categorical(x[..., :2], (2,), False), Gaussian(x[..., 2:3], x[..., 3:])),
    }[kind]
    old, now = of(x), of(y)
    batch = make({"old": old.tensors()}, (5, 3))
    index = torch.randperm(15, generator=g())[:7]
    rows, expected = batch.flatten()[index], old.kl(now).flatten()[index]
    now = of(y.flatten(0, 1)[index])
    back = now.restore(get(rows, "old"))
    assert type(back) is type(old) and torch.equal(back.kl(now), expected)
    action = now.sample(torch.randn(7, {"categorical": 4, "multi": 4, "mixed": 3}.get(kind, 2), generator=g(1)))
    again = of(x.flatten(0, 1)[index])
    assert torch.equal(back.log_prob(action), again.log_prob(action)) and torch.equal(back.mode, again.mode)
