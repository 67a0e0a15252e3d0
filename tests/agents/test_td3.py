"""TD3: its losses by hand, the clipped smoothing noise. What else holds: test_replay_family.py."""

import math

import pytest
import torch

from tests.agents.tables import ACTIONS, Features, Lines, transitions
from whorl.agents.td3 import TD3, TD3Config
from whorl.options import override
from whorl.policies.deterministic import Deterministic

GAMMA = 0.9


def by_hand(**fields):
    """pi(s) = 2 tanh(0.8 s), its target 2 tanh(0.5 s); two critics that are lines, with other lines as targets."""
    policy = Deterministic(Features(), ACTIONS)
    with torch.no_grad():
        policy.head.weight.fill_(0.5)
        policy.head.bias.zero_()
    agent = TD3(policy, Lines([1.0, 1.5], [0.2, -0.4]), override(TD3Config(discount=GAMMA), fields))
    with torch.no_grad():
        agent.critic.v.copy_(torch.tensor([[2.0], [0.5]]))
        agent.policy.head.weight.fill_(0.8)
    return agent


ROWS = [  # s, a, r, s', terminated, z of the smoothing noise
    (0.5, 1.0, 1.0, -0.4, False, 0.6),
    (-1.0, -0.5, -2.0, 0.8, True, 1.0),
    (0.2, 0.3, 0.5, 1.0, False, 4.0),  # 0.2 * 4 is cut to 0.5
    (0.7, -1.3, 0.0, 1.9, False, -9.0),  # cut to -0.5
    (0.1, 0.9, 0.25, 3.0, False, 1.5),  # tanh(1.5) + 0.3 is cut to 1, the bound
]


def errors(discounts=(GAMMA,) * 5):
    found = []
    for (s, a, r, s2, d, z), gamma in zip(ROWS, discounts, strict=True):
        noise = min(max(0.2 * z, -0.5), 0.5)
        a2 = 2 * min(max(math.tanh(0.5 * s2) + noise, -1.0), 1.0)
        target = r + gamma * (0 if d else 1) * min(1.0 * s2 + 0.2 * a2, 1.5 * s2 - 0.4 * a2)
        found.append([2.0 * s + 0.2 * a - target, 0.5 * s - 0.4 * a - target])
    return found


def test_critic_loss_by_hand():
    loss, metrics = by_hand().critic_loss(transitions(ROWS))
    expected = errors()
    assert loss.item() == pytest.approx(sum(x * x + y * y for x, y in expected) / 5, abs=1e-6)
    assert metrics["priority"].tolist() == pytest.approx([max(abs(x), abs(y)) for x, y in expected], abs=1e-6)


def test_importance_weights_and_n_step_discounts_by_hand():
    weight, discounts = (0.5, 2.0, 1.0, 0.25, 3.0), (0.9**3, 0.9, 0.9**2, 0.5, 1.0)
    loss, _ = by_hand().critic_loss(transitions(ROWS, weight=weight, next_discount=discounts))
    squares = [w * (x * x + y * y) for w, (x, y) in zip(weight, errors(discounts), strict=True)]
    assert loss.item() == pytest.approx(sum(squares) / 5, rel=1e-6)


@pytest.mark.parametrize("weight", [None, (0.5, 2.0, 1.0, 0.25, 3.0)])
def test_actor_loss_by_hand(weight):
    """Of the first critic alone."""
    loss, _ = by_hand().actor_loss(transitions(ROWS, weight=weight))
    q = [2.0 * s + 0.2 * 2 * math.tanh(0.8 * s) for s, *_ in ROWS]
    assert loss.item() == pytest.approx(-sum(w * x for w, x in zip(weight or (1.0,) * 5, q, strict=True)) / 5, abs=1e-6)
