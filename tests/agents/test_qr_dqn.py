"""QR-DQN: its loss by hand, and quantiles that become right."""

import pytest
import torch

from tests.agents.tables import agent_on_table, rows

Q = [[[0.0, 2.0], [1.0, 1.0]], [[0.0, 1.0], [2.0, 3.0]]]  # two quantiles of each action, at .25 and .75
TARGET = [[[9.0, 9.0], [9.0, 9.0]], [[2.0, 8.0], [0.0, 4.0]]]


def qr_dqn(**fields):
    return agent_on_table("qr_dqn", Q, TARGET, **{"quantiles": 2, "discount": 0.5, **fields})


def two_rows(**more):
    """s0 -a0-> s1 with 0, going on; s0 -a1-> the end with -1."""
    return rows([0, 0], [0, 1], [0.0, -1.0], [1, 1], [False, True], **more)


# Row 0, targets (1, 4) of action 0: .5 + .625, see test_distributional. Double chooses action 1: targets (0, 2).
# u_0 = 0, 2: .25 (0 + 1.5) / 2; u_1 = -2, 0: .25 (1.5 + 0) / 2. Row 1, target -1: u = -2 twice: (.75 + .25) 1.5
FIRST, DOUBLE, END = 1.125, 0.375, 1.5


@pytest.mark.parametrize("double", [False, True])
def test_loss_by_hand(double):
    loss, metrics = qr_dqn(double=double).loss(two_rows())
    assert loss.item() == pytest.approx(((DOUBLE if double else FIRST) + END) / 2, abs=1e-6)
    assert metrics["priority"].tolist() == pytest.approx([(1.0 if double else 2.5) - 1, 2.0], abs=1e-6)
    assert metrics["q_mean"].item() == 1.0


def test_masks_weights_and_n_step():
    allowed = torch.tensor([[False, True], [True, True]])
    loss, _ = qr_dqn().loss(two_rows(next_action_mask=allowed, weight=torch.tensor([0.5, 2.0])))
    assert loss.item() == pytest.approx((0.5 * DOUBLE + 2 * END) / 2, abs=1e-6)
    loss, _ = qr_dqn(discount=0.1).loss(two_rows(next_discount=torch.tensor([0.5, 0.5])))
    assert loss.item() == pytest.approx((FIRST + END) / 2, abs=1e-6)


def test_quantiles_of_a_die_are_learned():
    """One state, an end after one step, rewards 1 to 6: the quantiles at 1/6, 3/6, 5/6 of them, with the sharp loss."""
    agent = agent_on_table(
        "qr_dqn", [[[0.0] * 3]], [[[0.0] * 3]], quantiles=3, huber=0.0, learning_rate=0.02, max_grad_norm=0.0
    )
    draw = torch.Generator().manual_seed(0)
    for _ in range(600):
        reward = torch.randint(1, 7, (64,), generator=draw).float()
        agent.update(rows([0] * 64, [0] * 64, reward.tolist(), [0] * 64, [True] * 64, states=1))
    learned = agent.policy.q.quantiles(torch.ones(1, 1))[0, 0].tolist()
    assert 0.8 < learned[0] < 2.2 and 2.8 < learned[1] < 4.2 and 4.8 < learned[2] < 6.2
    assert agent.value(torch.ones(1, 1)).item() == pytest.approx(3.5, abs=0.6)
