"""Baselines: numbers by hand, a slow reference on random rollouts with random ends and masks, and what each of them promises."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.func import functional_call

from tests import seeds
from whorl.errors import BatchError
from whorl.functional import (
    episode_rows,
    leave_one_out_baseline,
    optimal_baseline,
    reward_to_go,
    squared_scores,
    time_baseline,
)

t = torch.tensor


def flags(ends: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(terminated, truncated) [T, 1] of one column: x terminates, / truncates."""
    return t([[c == "x"] for c in ends]), t([[c == "/"] for c in ends])


def test_pad_time_dep_av_return_by_hand():
    # three episodes: returns (6, 5, 3), (4) and (2, 1), one after the other in a column
    target = t([6.0, 5, 3, 4, 2, 1]).unsqueeze(-1)
    terminated, truncated = flags("..xx./")
    padded = time_baseline(target, terminated, truncated)
    assert padded.squeeze(-1).tolist() == [4.0, 2.0, 1.0, 4.0, 4.0, 2.0]  # (6 + 4 + 2) / 3, (5 + 0 + 1) / 3, 3 / 3
    unpadded = time_baseline(target, terminated, truncated, padded=False)
    assert unpadded.squeeze(-1).tolist() == [4.0, 3.0, 3.0, 4.0, 4.0, 3.0]  # (6 + 4 + 2) / 3, (5 + 1) / 2, 3 / 1
    others = leave_one_out_baseline(target, terminated, truncated)
    assert others.squeeze(-1).tolist() == [
        3.0,
        0.5,
        0.0,
        4.0,
        5.0,
        2.5,
    ]  # (4 + 2) / 2, (0 + 1) / 2, 0; (6 + 2) / 2; ...


def test_episodes_of_many_environments_with_invented_and_waiting_rows():
    # column 0: an episode of 2, an invented row, one of 3; column 1: one of 4, then two rows of waiting, one of which "ends"
    terminated = t([[0, 0], [1, 0], [0, 0], [0, 1], [0, 1], [1, 0]], dtype=torch.bool)
    mask = t([[1, 1], [1, 1], [0, 1], [1, 1], [1, 0], [1, 0]], dtype=torch.bool)
    episode, time, count = episode_rows(terminated, torch.zeros_like(terminated), mask)
    assert count == 3
    assert episode.T.tolist() == [[0, 0, 0, 1, 1, 1], [2, 2, 2, 2, 0, 0]]
    assert time.T.tolist() == [[0, 1, 0, 0, 1, 2], [0, 1, 2, 3, 0, 0]]


def slow(target, terminated, truncated, mask):
    """Lists of (rows, returns) of the episodes, column by column."""
    episodes = []
    for i in range(target.shape[1]):
        rows = []
        for k in range(len(target)):
            if mask[k, i]:
                rows.append((k, i))
            if (terminated[k, i] or truncated[k, i] or k == len(target) - 1) and rows:
                episodes.append(rows)
                rows = []
    return episodes


@pytest.mark.parametrize("discount", [1.0, 0.9, "tensor"])
@pytest.mark.parametrize("seed", range(20))
def test_equal_to_the_slow_reference(seed, discount):
    g = torch.Generator().manual_seed(seeds.seed(seed))
    shape = (1 + seed, 1 + seed % 4)
    uniform = torch.rand(shape, generator=g)
    terminated, truncated = uniform < 0.2, uniform > 0.85
    mask = torch.rand(shape, generator=g) < 0.8
    mask[0] = True
    reward = torch.randn(shape, generator=g)
    discount = torch.rand(shape, generator=g) if discount == "tensor" else discount
    target = reward_to_go(reward, terminated, truncated, discount)
    garbage = target.masked_fill(~mask, float("nan"))
    episodes = slow(target, terminated, truncated, mask)
    returns = [[target[row].item() for row in rows] for rows in episodes]
    padded = time_baseline(garbage, terminated, truncated, mask)
    alive = time_baseline(garbage, terminated, truncated, mask, padded=False)
    others = leave_one_out_baseline(garbage, terminated, truncated, mask)
    number, time, count = episode_rows(terminated, truncated, mask)
    assert count == len(episodes)
    for e, rows in enumerate(episodes):
        for k, row in enumerate(rows):
            at = [g[k] if k < len(g) else 0.0 for g in returns]
            assert (number[row], time[row]) == (e, k)
            assert padded[row].item() == pytest.approx(sum(at) / len(at), abs=1e-5)
            assert alive[row].item() == pytest.approx(sum(at) / sum(k < len(g) for g in returns), abs=1e-5)
            mean = (sum(at) - at[e]) / (len(at) - 1) if len(at) > 1 else 0.0
            assert others[row].item() == pytest.approx(mean, abs=1e-5)
    for b in (padded, alive, others):
        assert (b[~mask] == 0).all()


def test_one_episode_is_its_own_baseline_and_has_no_other():
    """torch-twrl, E = 1: every advantage is 0. Not NaN, and to the bit."""
    target = torch.randn(7, 1, generator=torch.Generator().manual_seed(seeds.seed(0)))
    terminated, truncated = flags("......x")
    for padded in (True, False):
        assert torch.equal(time_baseline(target, terminated, truncated, padded=padded), target)
    assert (leave_one_out_baseline(target, terminated, truncated) == 0).all()


def test_episodes_of_one_step():
    """torch-twrl, T = 1: a crash."""
    target, end = t([[1.0, 2.0, 6.0]]), torch.ones(1, 3, dtype=torch.bool)
    assert time_baseline(target, end, ~end).tolist() == [[3.0, 3.0, 3.0]]
    assert leave_one_out_baseline(target, end, ~end).tolist() == [[4.0, 3.5, 1.5]]
    assert time_baseline(target[:, :1], end[:, :1], ~end[:, :1]).tolist() == [[1.0]]


@pytest.mark.parametrize("baseline", [time_baseline, leave_one_out_baseline])
def test_equal_returns_have_no_advantage_at_all(baseline):
    """Rounding noise, blown up by the normalization of advantages, would be learned from."""
    for episodes in (3, 7, 11):
        column = reward_to_go(torch.ones(50, 1), *flags("." * 49 + "x"), 0.99)
        end = torch.zeros(50, episodes, dtype=torch.bool)
        end[-1] = True
        target = column.expand(50, episodes).clone()
        assert torch.equal(baseline(target, end, torch.zeros_like(end)), target)


def test_rows_that_all_do_not_count_give_zero():
    end, none = torch.ones(3, 2, dtype=torch.bool), torch.zeros(3, 2, dtype=torch.bool)
    target = torch.full((3, 2), float("nan"))
    for b in (
        time_baseline(target, end, none, none),
        time_baseline(target, end, none, none, padded=False),
        leave_one_out_baseline(target, end, none, none),
        optimal_baseline(target, target, none),
    ):
        assert (b == 0).all()


def test_shapes_are_checked():
    end = torch.ones(3, 2, dtype=torch.bool)
    with pytest.raises(BatchError, match=r"target has shape \[3\], but terminated has shape \[3, 2\]"):
        time_baseline(torch.ones(3), end, end)
    with pytest.raises(BatchError, match=r"mask has shape \[3, 1\]"):
        episode_rows(end, end, end[:, :1])
    with pytest.raises(BatchError, match=r"target has shape \[3\], but squared_score has shape \[2\]"):
        optimal_baseline(torch.ones(3), torch.ones(2))


# ------------------------------------------------------------------------------------- unbiased, and of least variance

LOGITS, REWARD = t([0.3, -0.2, 0.9], dtype=torch.float64), t([1.0, -2.0, 4.0], dtype=torch.float64)
P = LOGITS.softmax(-1)
SCORE = torch.eye(3, dtype=torch.float64) - P  # grad log pi(a), one row for each action
GRADIENT = (P * REWARD) @ SCORE  # of the expected reward


def expected_gradient(episodes: int, baseline) -> torch.Tensor:
    """The mean gradient over every batch of `episodes` one-step episodes that can be drawn, each with its probability."""
    total = torch.zeros(3, dtype=torch.float64)
    for actions in product(range(3), repeat=episodes):
        a = list(actions)
        target, end = REWARD[a].unsqueeze(0), torch.ones(1, episodes, dtype=torch.bool)
        advantage = target - baseline(target, end, ~end)
        total += P[a].prod() * (advantage[0] @ SCORE[a]) / episodes
    return total


def test_leave_one_out_is_unbiased_and_the_padded_mean_is_its_share():
    torch.testing.assert_close(expected_gradient(3, leave_one_out_baseline), GRADIENT)
    torch.testing.assert_close(expected_gradient(3, time_baseline), GRADIENT * 2 / 3)


def test_weaver_tao_by_hand_and_no_constant_has_less_variance():
    assert optimal_baseline(t([1.0, 4.0]), t([3.0, 1.0])).item() == 1.75  # (3 * 1 + 1 * 4) / 4
    squares = SCORE.square().sum(-1)
    rows = torch.multinomial(P, 100_000, replacement=True, generator=torch.Generator().manual_seed(seeds.seed(0)))
    best = optimal_baseline(REWARD[rows], squares[rows])
    exact = (P * squares * REWARD).sum() / (P * squares).sum()
    assert best.item() == pytest.approx(exact.item(), abs=0.05)

    def variance(b):
        gradients = SCORE * (REWARD - b).unsqueeze(-1)
        return (P @ gradients.square()).sum() - (P @ gradients).square().sum()

    mean = P @ REWARD
    assert variance(exact) < min(variance(exact - 0.1), variance(exact + 0.1), variance(mean), variance(0.0))
    assert (optimal_baseline(t([5.0, 7.0]), t([0.0, 0.0])) == 0).all()


def test_squared_scores_are_those_of_one_row_at_a_time():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    g = torch.Generator().manual_seed(seeds.seed(0))
    rows = {"x": torch.randn(7, 3, dtype=torch.float64, generator=g), "a": torch.randint(2, (7,), generator=g)}

    def log_prob(weights, row):
        return functional_call(model, dict(weights), (row["x"],)).log_softmax(-1).gather(-1, row["a"][None])[0]

    weights = {name: p.detach() for name, p in model.named_parameters()}
    came = squared_scores(log_prob, weights, rows, chunk=3)
    for i in range(7):
        model.zero_grad()
        log_prob(dict(model.named_parameters()), {key: value[i] for key, value in rows.items()}).backward()
        assert came[i].item() == pytest.approx(sum(p.grad.square().sum().item() for p in model.parameters()))
