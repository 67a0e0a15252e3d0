"""DQN: targets, Huber, double, n-step, masks and weights by hand; epsilon's schedule."""

import pytest
import torch

from tests.agents.tables import agent_on_table, rows
from whorl.agents.dqn import DQNConfig
from whorl.options import override
from whorl.training.build import build

Q, TARGET = [[1.0, 2.0], [3.0, 5.0]], [[9.0, 9.0], [4.0, 1.5]]


def dqn(**fields):
    return agent_on_table("dqn", Q, TARGET, **{"discount": 0.9, "double": False, **fields})


def two_rows(**more):
    """s0 -a0-> s1 with .5, going on; s0 -a1-> the end with -1."""
    return rows([0, 0], [0, 1], [0.5, -1.0], [1, 1], [False, True], **more)


# fields, more of the batch, errors target - q, loss
CASES = {
    "max of the target net": ({}, {}, (0.5 + 0.9 * 4 - 1, -1 - 2), (3.1 - 0.5 + 3 - 0.5) / 2),
    "double: the online net chooses action 1": (
        {"double": True},
        {},
        (0.5 + 0.9 * 1.5 - 1, -3),
        (0.85**2 / 2 + 2.5) / 2,
    ),
    "squared": ({"huber": 0.0}, {}, (3.1, -3), (3.1**2 / 2 + 9 / 2) / 2),
    "wider Huber": ({"huber": 3.0}, {}, (3.1, -3), (3 * 3.1 - 4.5 + 4.5) / 2),
    "n-step discounts": (
        {},
        {"next_discount": torch.tensor([0.9**3, 0.9])},
        (0.5 + 0.729 * 4 - 1, -3),
        (1.916 + 2.5) / 2,
    ),
    "action masks": (
        {},
        {"next_action_mask": torch.tensor([[False, True], [True, True]])},
        (0.85, -3),
        (0.85**2 / 2 + 2.5) / 2,
    ),
    "masks and double": (
        {"double": True},
        {"next_action_mask": torch.tensor([[True, False], [True, True]])},
        (3.1, -3),
        (2.6 + 2.5) / 2,
    ),
    "rows that count": ({}, {"mask": torch.tensor([True, False])}, (3.1, -3), 2.6),
    "rows that count, weighted": (
        {},
        {"mask": torch.tensor([False, True]), "weight": torch.tensor([0.5, 0.25])},
        (3.1, -3),
        0.25 * 2.5,
    ),
    "importance weights": ({}, {"weight": torch.tensor([0.5, 1.0])}, (3.1, -3), (0.5 * 2.6 + 2.5) / 2),
}


@pytest.mark.parametrize("case", CASES)
def test_loss_by_hand(case):
    fields, more, errors, expected = CASES[case]
    loss, metrics = dqn(**fields).loss(two_rows(**more))
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert metrics["priority"].tolist() == pytest.approx([abs(error) for error in errors], abs=1e-6)
    rows_that_count = more.get("mask", torch.tensor([True, True])).tolist()
    sizes, q = (
        [x for x, counts in zip(xs, rows_that_count, strict=True) if counts] for xs in (map(abs, errors), (1.0, 2.0))
    )
    assert metrics["td_error"].item() == pytest.approx(sum(sizes) / len(sizes), abs=1e-6)
    assert metrics["q_mean"].item() == pytest.approx(sum(q) / len(q))


def test_the_gradient_is_that_of_the_online_value_alone():
    """d huber / d q(s, a) = -error where it is small, -1 or 1 beyond: over 2 rows."""
    agent = dqn(double=True)
    weight = agent.policy.q.advantage[-1].weight
    gradient = torch.autograd.grad(agent.loss(two_rows())[0], weight)[0]
    torch.testing.assert_close(gradient, torch.tensor([[-0.85 / 2, 0.0], [1 / 2, 0.0]]))
    assert not any(p.requires_grad for p in agent.target.parameters())


def test_dueling_is_built_and_value_is_the_largest():
    agent = build("dqn", "CartPole-v1", DQNConfig(dueling=True), num_envs=2).agent
    assert agent.policy.q.value is not None
    assert dqn().value(torch.eye(2)).tolist() == [2.0, 5.0]


def test_epsilon_falls_on_a_straight_line_of_environment_steps():
    config = override(DQNConfig(), {"epsilon_steps": 40, "epsilon_min": 0.2, "feed": {"warmup": 1000}})
    p = build("dqn", "CartPole-v1", config, num_envs=8)
    came = []
    for _ in range(7):
        p.agent.prepare(p.collector.collect())
        came.append(float(p.agent.report["epsilon"]))
    assert came == pytest.approx([1 - 0.8 * 8 * k / 40 for k in range(1, 6)] + [0.2, 0.2])
    assert float(p.agent.policy.exploration[1]) == came[-1]
