"""Returns: worked by hand, against their definitions, closed forms, gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import seeds
from tests.functional import rollouts as slow
from tests.functional.rollouts import by_column, rollouts
from whorl.errors import BadInput
from whorl.functional import discounted_return, lambda_return, n_step_return, reward_to_go

# Five rows: one ends by termination (row 1), one by truncation (row 3), the last one is cut by the rollout.
REWARD = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
NEXT_VALUE = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0])
TERMINATED = torch.tensor([False, True, False, False, False])
TRUNCATED = torch.tensor([False, False, False, True, False])
ENDS = TERMINATED, TRUNCATED


def test_discounted_return_by_hand():
    # G4 = 5 + .5 * 50 = 30;  G3 = 4 + .5 * 40 = 24;  G2 = 3 + .5 * 24 = 15;  G1 = 2;  G0 = 1 + .5 * 2 = 2
    assert discounted_return(REWARD, NEXT_VALUE, *ENDS, 0.5).tolist() == [2, 2, 15, 24, 30]


def test_reward_to_go_by_hand():
    # G4 = 5;  G3 = 4;  G2 = 3 + .5 * 4 = 5;  G1 = 2;  G0 = 1 + .5 * 2 = 2
    assert reward_to_go(REWARD, *ENDS, 0.5).tolist() == [2, 2, 5, 4, 5]


def test_lambda_return_by_hand():
    # lambda = .5. G4 = 5 + .5 * 50 = 30;  G3 = 4 + .5 * 40 = 24;  G2 = 3 + .5 * (.5 * 30 + .5 * 24) = 16.5
    # G1 = 2;  G0 = 1 + .5 * (.5 * 10 + .5 * 2) = 4
    assert lambda_return(REWARD, NEXT_VALUE, *ENDS, 0.5, 0.5).tolist() == [4, 2, 16.5, 24, 30]


def test_n_step_return_by_hand():
    one = [1 + 0.5 * 10, 2, 3 + 0.5 * 30, 4 + 0.5 * 40, 5 + 0.5 * 50]
    assert n_step_return(REWARD, NEXT_VALUE, *ENDS, 0.5, 1).tolist() == one
    # Two steps, no ends but the last: G0 = 1 + .5 * 2 + .25 * 20 = 7;  G1 = 2 + 1.5 + 7.5 = 11;  G2 = 3 + 2 + 10 = 15
    # G3 = 4 + 2.5 + 12.5 = 19;  G4 has one step: 5 + 25 = 30
    never = torch.zeros(5, dtype=torch.bool)
    assert n_step_return(REWARD, NEXT_VALUE, never, never, 0.5, 2).tolist() == [7, 11, 15, 19, 30]
    # With the ends: G0 = 1 + .5 * 2 (terminated at 1);  G1 = 2;  G2 = 3 + 2 + .25 * 40 = 15;  G3 = 4 + 20 (truncated)
    assert n_step_return(REWARD, NEXT_VALUE, *ENDS, 0.5, 2).tolist() == [2, 2, 15, 24, 30]


def test_one_discount_for_each_row():
    # An option of 2 steps at row 0: its discount is .25. G0 = 1 + .25 * 2;  row 2: 3 + 1 * 24
    discount = torch.tensor([0.25, 0.5, 1.0, 0.5, 0.0])
    assert discounted_return(REWARD, NEXT_VALUE, *ENDS, discount).tolist() == [1.5, 2, 27, 24, 5]
    assert reward_to_go(REWARD, *ENDS, discount).tolist() == [1.5, 2, 7, 4, 5]


def test_termination_goes_before_truncation():
    both = torch.tensor([True])
    for f in (discounted_return, lambda r, v, e, u, d: lambda_return(r, v, e, u, d, 0.3)):
        assert f(torch.tensor([1.0]), torch.tensor([9.0]), both, both, 0.5).tolist() == [1]


def test_next_value_of_a_terminated_row_may_hold_anything():
    next_value = torch.where(TERMINATED, torch.nan, NEXT_VALUE)
    for f in (
        lambda v: discounted_return(REWARD, v, *ENDS, 0.5),
        lambda v: lambda_return(REWARD, v, *ENDS, 0.5, 0.5),
        lambda v: n_step_return(REWARD, v, *ENDS, 0.5, 3),
    ):
        assert torch.equal(f(next_value), f(NEXT_VALUE))
    last = torch.tensor([True])
    assert discounted_return(torch.ones(1), torch.tensor([torch.nan]), last, ~last, 0.5).tolist() == [1]


def test_closed_form_of_constant_rewards():
    # Reward 1 for ever, true values 1 / (1 - d) = 10: every estimate is that value.
    reward, value, never = torch.ones(50, 2).double(), torch.full((50, 2), 10.0).double(), torch.zeros(50, 2) > 0
    for target in (
        discounted_return(reward, value, never, never, 0.9),
        lambda_return(reward, value, never, never, 0.9, 0.7),
        n_step_return(reward, value, never, never, 0.9, 5),
    ):
        torch.testing.assert_close(target, value)
    # Without bootstrap: (1 - d^(T - t)) / (1 - d)
    left = torch.arange(50, 0, -1).double().unsqueeze(1).expand(50, 2)
    torch.testing.assert_close(reward_to_go(reward, never, never, 0.9), (1 - 0.9**left) / 0.1)


def arguments(rollout, *names):
    return [rollout[name] for name in (*names, "terminated", "truncated", "discount")]


@given(rollouts(), st.integers(1, 12))
def test_against_the_definitions(rollout, n):
    bootstrapped, trace_decay = arguments(rollout, "reward", "next_value"), rollout["trace_decay"]
    close = torch.testing.assert_close
    close(n_step_return(*bootstrapped, n), by_column(slow.n_step, rollout, n=n))
    close(discounted_return(*bootstrapped), by_column(slow.n_step, rollout, n=1000))
    close(reward_to_go(*arguments(rollout, "reward")), by_column(slow.reward_to_go, rollout))
    mixture = by_column(slow.lambda_mixture, rollout, trace_decay=trace_decay)
    close(lambda_return(*bootstrapped, trace_decay), mixture)


@given(rollouts())
def test_limits_of_lambda_and_n(rollout):
    rows = arguments(rollout, "reward", "next_value")
    torch.testing.assert_close(lambda_return(*rows, 0.0), n_step_return(*rows, 1))
    torch.testing.assert_close(n_step_return(*rows, 100), discounted_return(*rows))


def test_gradients():
    generator = torch.Generator().manual_seed(seeds.seed(0))
    reward, next_value, discount = (
        torch.rand(5, 2, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(3)
    )
    ends = torch.tensor([[0, 0], [1, 0], [0, 0], [0, 1], [0, 0]]) > 0, torch.tensor([[0, 1]] + [[0, 0]] * 4) > 0
    check = torch.autograd.gradcheck
    assert check(lambda r, v, d: discounted_return(r, v, *ends, d), (reward, next_value, discount))
    assert check(lambda r, v, d: lambda_return(r, v, *ends, d, 0.8), (reward, next_value, discount))
    assert check(lambda r, v, d: n_step_return(r, v, *ends, d, 3), (reward, next_value, discount))
    assert check(lambda r, d: reward_to_go(r, *ends, d), (reward, discount))


def test_n_step_wants_a_step():
    with pytest.raises(BadInput, match="n >= 1, got n = 0"):
        n_step_return(REWARD, NEXT_VALUE, *ENDS, 0.5, 0)
