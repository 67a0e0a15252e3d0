"""Objectives and losses: worked by hand, and where their gradients go."""

from __future__ import annotations

import math

import pytest
import torch

from whorl.functional import clipped_surrogate, clipped_value_loss, score_function, value_loss


def t(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_score_function():
    assert score_function(t(-1, -2), t(3, -0.5)).tolist() == [-3, 1]


def test_score_function_gives_the_gradient_of_the_expected_return():
    """Of J = sum_a pi(a) A(a), over all actions weighted by their probability."""
    logits, advantage = t(0.3, -0.2, 1.1).requires_grad_(), t(1, -2, 0.5)
    exact = torch.autograd.grad((logits.softmax(0) * advantage).sum(), logits)[0]
    weighted = (logits.softmax(0).detach() * score_function(logits.log_softmax(0), advantage)).sum()
    torch.testing.assert_close(torch.autograd.grad(weighted, logits)[0], exact)


# The six cases of Schulman et al. 2017, figure 1, with clip_range .2: ratio, A, objective, d objective / d log_prob
CASES = [
    (1.0, 2.0, 2.0, 2.0),
    (1.5, 2.0, 1.2 * 2, 0.0),  # good action, already likelier: no more reward for it
    (0.5, 2.0, 0.5 * 2, 0.5 * 2),  # good action made less likely: pulled back
    (1.5, -2.0, 1.5 * -2, 1.5 * -2),  # bad action made likelier: pushed back
    (0.5, -2.0, 0.8 * -2, 0.0),
    (1.1, -2.0, 1.1 * -2, 1.1 * -2),
]


@pytest.mark.parametrize("ratio, advantage, objective, slope", CASES)
def test_clipped_surrogate(ratio, advantage, objective, slope):
    log_prob = t(math.log(ratio) - 1).requires_grad_()
    result = clipped_surrogate(log_prob, t(-1), t(advantage), 0.2)
    assert result.item() == pytest.approx(objective)
    assert torch.autograd.grad(result.sum(), log_prob)[0].item() == pytest.approx(slope)


def test_value_loss():
    assert value_loss(t(1, 5), t(3, 5)).tolist() == [2, 0]  # (1 - 3)^2 / 2


# old value 0, clip_range 1: value, target, loss, slope
VALUE_CASES = [
    (0.5, 2.0, 1.125, -1.5),  # inside: (.5 - 2)^2 / 2
    (1.5, 2.0, 0.5, 0.0),  # moved too far towards the target: max(.125, (1 - 2)^2 / 2), no gradient
    (-1.5, 2.0, 6.125, -3.5),  # moved away: max((-3.5)^2 / 2, (-3)^2 / 2)
]


@pytest.mark.parametrize("value, target, loss, slope", VALUE_CASES)
def test_clipped_value_loss(value, target, loss, slope):
    x = t(value).requires_grad_()
    result = clipped_value_loss(x, t(0), t(target), 1.0)
    assert result.item() == pytest.approx(loss)
    assert torch.autograd.grad(result.sum(), x)[0].item() == pytest.approx(slope)


@pytest.mark.parametrize(
    "f",
    [
        score_function,
        value_loss,
        lambda x, a: clipped_surrogate(x, a, a, 0.2),
        lambda x, a: clipped_value_loss(x, a, a, 0.2),
    ],
    ids=["score_function", "value_loss", "clipped_surrogate", "clipped_value_loss"],
)
def test_only_the_first_argument_carries_a_gradient(f):
    first, other = t(0.1, 0.2).requires_grad_(), t(0.3, -0.4).requires_grad_()
    gradients = torch.autograd.grad(f(first, other).sum(), (first, other), allow_unused=True)
    assert gradients[0] is not None and gradients[1] is None


def test_inside_a_graph():
    x, old, a = t(-1, -2), t(-1.1, -1.5), t(1, -1)
    for f in (clipped_surrogate, clipped_value_loss):
        assert torch.equal(torch.compile(f, fullgraph=True, backend="aot_eager")(x, old, a, 0.2), f(x, old, a, 0.2))
