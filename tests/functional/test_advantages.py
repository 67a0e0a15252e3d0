"""Advantages: worked by hand, against their definitions, closed forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import seeds
from tests.functional import rollouts as slow
from tests.functional.rollouts import by_column, rollouts
from whorl.functional import discounted_return, gae, lambda_return, leave_one_out, n_step_return, standardise, vtrace

# Row 1 terminates, row 3 is truncated, row 4 is the last.
REWARD = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
VALUE = torch.tensor([2.0, 4.0, 6.0, 8.0, 10.0])
NEXT_VALUE = torch.tensor([4.0, 99.0, 8.0, 6.0, 12.0])
TERMINATED = torch.tensor([False, True, False, False, False])
TRUNCATED = torch.tensor([False, False, False, True, False])
ENDS = TERMINATED, TRUNCATED


def test_gae_by_hand():
    # delta = [1 + .5 * 4 - 2, 2 - 4, 3 + .5 * 8 - 6, 4 + .5 * 6 - 8, 5 + .5 * 12 - 10] = [1, -2, 1, -1, 1]
    # A4 = 1;  A3 = -1 (truncated);  A2 = 1 + .25 * -1 = .75;  A1 = -2 (terminated);  A0 = 1 + .25 * -2 = .5
    assert gae(REWARD, VALUE, NEXT_VALUE, *ENDS, 0.5, 0.5).tolist() == [0.5, -2, 0.75, -1, 1]


def test_gae_with_one_discount_for_each_row():
    # delta0 = 1 + .25 * 4 - 2 = 0;  A0 = 0 + .25 * .5 * -2 = -.25.  delta4 = 5 + 0 * 12 - 10 = -5
    discount = torch.tensor([0.25, 0.5, 0.5, 0.5, 0.0])
    assert gae(REWARD, VALUE, NEXT_VALUE, *ENDS, discount, 0.5).tolist() == [-0.25, -2, 0.75, -1, -5]


def test_termination_goes_before_truncation():
    both = torch.tensor([True, False])
    x = torch.ones(2)
    assert gae(x, x, x, both, both, 0.5, 1.0).tolist() == [0, 0.5]  # 1 - 1;  1 + .5 - 1


def test_gae_is_data():
    value = VALUE.clone().requires_grad_()
    assert not gae(REWARD, value, NEXT_VALUE, *ENDS, 0.5, 0.5).requires_grad


def test_next_value_of_a_terminated_row_may_hold_anything():
    wild = torch.where(TERMINATED, torch.nan, NEXT_VALUE)
    log_ratio = torch.zeros(5)
    assert gae(REWARD, VALUE, wild, *ENDS, 0.5, 0.5).isfinite().all()
    assert all(x.isfinite().all() for x in vtrace(log_ratio, REWARD, VALUE, wild, *ENDS, 0.5))


ROWS = ("reward", "value", "next_value", "terminated", "truncated", "discount")


@given(rollouts())
def test_gae_against_its_definition(rollout):
    fast = gae(*(rollout[name] for name in ROWS), rollout["trace_decay"])
    torch.testing.assert_close(fast, by_column(slow.gae, rollout, trace_decay=rollout["trace_decay"]))


@given(rollouts())
def test_gae_is_the_lambda_return_less_the_value(rollout):
    """Where the value of a successor is that of the next row."""
    value, next_value = rollout["value"], rollout["next_value"]
    inside = ~(rollout["terminated"] | rollout["truncated"])
    inside[-1] = False
    rollout["next_value"] = torch.where(inside, value.roll(-1, 0), next_value)
    rows = [rollout[name] for name in ROWS]
    target = lambda_return(rows[0], *rows[2:], rollout["trace_decay"])
    torch.testing.assert_close(gae(*rows, rollout["trace_decay"]) + value, target)


def test_gae_inside_a_graph():
    compiled = torch.compile(gae, fullgraph=True, backend="aot_eager")
    arguments = REWARD, VALUE, NEXT_VALUE, *ENDS, 0.5, 0.5
    assert torch.equal(compiled(*arguments), gae(*arguments))


def test_vtrace_by_hand():
    # Ratios 2, .5, 4: rho = min(1, .) = [1, .5, 1], c = min(.8, .) = [.8, .5, .8]; discount .5; no ends.
    # value = [0, 2, 4], next_value = [2, 4, 6], reward = 1
    # delta = [1 * (1 + 1 - 0), .5 * (1 + 2 - 2), 1 * (1 + 3 - 4)] = [2, .5, 0]
    # y2 = 0;  y1 = .5 + .5 * .5 * 0 = .5;  y0 = 2 + .5 * .8 * .5 = 2.2;  target = [2.2, 2.5, 4]
    # advantage = [1 * (1 + .5 * 2.5 - 0), .5 * (1 + .5 * 4 - 2), 1 * (1 + .5 * 6 - 4)] = [2.25, .5, 0]
    log_ratio = torch.tensor([2.0, 0.5, 4.0]).double().log()
    value, next_value = torch.tensor([0.0, 2, 4]).double(), torch.tensor([2.0, 4, 6]).double()
    never = torch.zeros(3, dtype=torch.bool)
    target, advantage = vtrace(log_ratio, torch.ones(3).double(), value, next_value, never, never, 0.5, c_clip=0.8)
    assert target.tolist() == pytest.approx([2.2, 2.5, 4])
    assert advantage.tolist() == pytest.approx([2.25, 0.5, 0])
    # Truncated at 1: y0 as before, and row 1 looks at next_value. Terminated at 0: target 1, advantage 1 - 0.
    ended = torch.tensor([False, True, False])
    assert vtrace(log_ratio, torch.ones(3).double(), value, next_value, never, ended, 0.5, c_clip=0.8)[1][1] == 0.5
    target, advantage = vtrace(log_ratio, torch.ones(3).double(), value, next_value, ended.roll(-1), never, 0.5)
    assert (target[0], advantage[0]) == (1, 1)


def slow_vtrace(t, c, trace_decay, rho_clip, c_clip):
    """Espeholt et al. 2018, eq. 1, written out."""
    ratio = [torch.tensor(x).exp().item() for x in c["log_ratio"]]
    total = c["value"][t]
    for k in range(t, t + slow.horizon(t, c)):
        traces = 1.0
        for i in range(t, k):
            traces *= trace_decay * min(c_clip, ratio[i])
        total += slow.weight(t, k, c) * traces * min(rho_clip, ratio[k]) * slow.error(k, c)
    return total


@given(rollouts(), st.sampled_from([0.5, 1.0, 3.0]), st.sampled_from([0.5, 1.0]))
def test_vtrace_against_its_definition(rollout, rho_clip, c_clip):
    trace_decay = rollout["trace_decay"]
    rows = [rollout[name] for name in ("log_ratio", *ROWS)]
    target, advantage = vtrace(*rows, trace_decay, rho_clip, c_clip)
    rollout["log_ratio"] = rollout["log_ratio"].float().double()
    numbers = {"trace_decay": trace_decay, "rho_clip": rho_clip, "c_clip": c_clip}
    torch.testing.assert_close(target, by_column(slow_vtrace, rollout, **numbers), rtol=1e-5, atol=1e-5)
    # The advantage looks one step ahead, at the target of the next row where there is one.
    inside = ~(rollout["terminated"] | rollout["truncated"])
    inside[-1] = False
    later = torch.where(inside, target.roll(-1, 0), rollout["next_value"])
    one_step = n_step_return(rollout["reward"], later, *rows[4:], 1)
    torch.testing.assert_close(advantage, rows[0].exp().clamp(max=rho_clip) * (one_step - rollout["value"]))


@given(rollouts())
def test_vtrace_on_policy_is_the_lambda_return(rollout):
    """Espeholt et al. 2018, remark 1 (the n-step Bellman target), where next_value is the next row's value."""
    inside = ~(rollout["terminated"] | rollout["truncated"])
    inside[-1] = False
    rollout["next_value"] = torch.where(inside, rollout["value"].roll(-1, 0), rollout["next_value"])
    rollout["log_ratio"].zero_()
    target, _ = vtrace(*(rollout[name] for name in ("log_ratio", *ROWS)))
    rows = [rollout[name] for name in ROWS]
    torch.testing.assert_close(target, discounted_return(rows[0], *rows[2:]))


def test_vtrace_is_data():
    log_ratio = torch.zeros(5, requires_grad=True)
    target, advantage = vtrace(log_ratio, REWARD, VALUE.clone().requires_grad_(), NEXT_VALUE, *ENDS, 0.5)
    assert not target.requires_grad and not advantage.requires_grad


def test_standardise_by_hand():
    # mean 2, deviations -1 and 1, population std 1
    assert standardise(torch.tensor([1.0, 3.0])).tolist() == pytest.approx([-1, 1])
    # masked: mean of (1, 3, 5, 7) = 4, deviations -3 -1 1 3, var = 20 / 4 = 5
    x = torch.tensor([[1.0, 3.0, torch.nan], [5.0, 7.0, torch.inf]])
    y = standardise(x, x.isfinite())
    r = 5**0.5
    assert y.flatten().tolist() == pytest.approx([-3 / r, -1 / r, 0, 1 / r, 3 / r, 0])


def test_standardise_where_there_is_nothing_to_see():
    assert standardise(torch.tensor([3.0])).tolist() == [0]
    assert standardise(torch.full((4,), 3.0)).tolist() == [0] * 4
    none = torch.zeros(4, dtype=torch.bool)
    assert standardise(torch.full((4,), 3.0), none).tolist() == [0] * 4
    x = torch.randn(64, generator=torch.Generator().manual_seed(seeds.seed(0)))
    torch.testing.assert_close(standardise(x), standardise(x, x.isfinite()))


def test_leave_one_out_by_hand():
    # others of 1: (2 + 6) / 2 = 4;  of 2: 3.5;  of 6: 1.5
    assert leave_one_out(torch.tensor([[1.0, 2.0, 6.0]])).tolist() == [[-3, -1.5, 4.5]]
