"""C51: its loss by hand, and distributions that become right."""

import math

import pytest
import torch

from tests.agents.tables import agent_on_table, rows
from whorl.errors import BadInput

log = math.log
# atoms 0, 1, 2; outputs are logs of these probabilities, action by action
Q = [[[0.25, 0.25, 0.5], [0.5, 0.25, 0.25]], [[0.5, 0.5, 1e-9], [1e-9, 0.5, 0.5]]]  # at s1: q = .5, 1.5
TARGET = [[[1.0, 1, 1], [1, 1, 1]], [[0.1, 0.1, 0.8], [0.6, 0.2, 0.2]]]  # at s1: q = 1.7, .6


def c51(**fields):
    of = lambda table: torch.tensor(table).log().tolist()  # noqa: E731
    return agent_on_table("c51", of(Q), of(TARGET), atoms=3, v_min=0.0, v_max=2.0, discount=0.5, **fields)


def two_rows(**more):
    """s0 -a0-> s1 with .5, going on; s0 -a1-> the end with 1.25."""
    return rows([0, 0], [0, 1], [0.5, 1.25], [1, 1], [False, True], **more)


def kl(p, q):
    return sum(a * log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def cross_entropy(p, q):
    return -sum(a * log(b) for a, b in zip(p, q, strict=True))


# Atoms 0, 1, 2 move to .5, 1, 1.5. Action 0 of the target: .1 halved, .1, .8 halved. Action 1 (double): .6, .2, .2.
FIRST, DOUBLE = (0.05, 0.05 + 0.1 + 0.4, 0.4), (0.3, 0.3 + 0.2 + 0.1, 0.1)
END = (0, 0.75, 0.25)


@pytest.mark.parametrize("double", [False, True])
def test_loss_by_hand(double):
    p = DOUBLE if double else FIRST
    loss, metrics = c51(double=double).loss(two_rows())
    expected = [cross_entropy(p, Q[0][0]), cross_entropy(END, Q[0][1])]
    assert loss.item() == pytest.approx(sum(expected) / 2, abs=1e-6)
    divergences = [kl(p, Q[0][0]), kl(END, Q[0][1])]
    assert metrics["priority"].tolist() == pytest.approx(divergences, abs=1e-6)
    assert metrics["kl"].item() == pytest.approx(sum(divergences) / 2, abs=1e-6)
    assert metrics["q_mean"].item() == pytest.approx((1.25 + 0.75) / 2, abs=1e-6)


def test_masks_and_weights():
    allowed = torch.tensor([[False, True], [True, True]])
    loss, _ = c51().loss(two_rows(next_action_mask=allowed, weight=torch.tensor([0.5, 2.0])))
    expected = 0.5 * cross_entropy(DOUBLE, Q[0][0]) + 2 * cross_entropy(END, Q[0][1])
    assert loss.item() == pytest.approx(expected / 2, abs=1e-6)


def test_the_gradient_of_the_logits_is_prediction_minus_target():
    agent = c51()
    gradient = torch.autograd.grad(agent.loss(two_rows())[0], agent.policy.q.net.advantage[-1].weight)[0]
    expected = [
        [(q - p) / 2 for q, p in zip(Q[0][0], FIRST, strict=True)],
        [(q - p) / 2 for q, p in zip(Q[0][1], END, strict=True)],
    ]
    torch.testing.assert_close(gradient[:, 0], torch.tensor(expected).flatten(), atol=1e-6, rtol=0)
    assert not gradient[:, 1].any()


def test_atoms_must_go_up():
    with pytest.raises(BadInput, match="the atoms go from v_min up to v_max, got v_min = 2.0, v_max = 2.0"):
        agent_on_table("c51", [[[0.0] * 3]], [[[0.0] * 3]], atoms=3, v_min=2.0, v_max=2.0)
