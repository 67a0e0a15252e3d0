"""DDPG: its losses by hand. What else holds: test_replay_family.py."""

import math

import pytest
import torch

from tests.agents.tables import ACTIONS, ROWS, Features, Lines, transitions
from whorl.agents.ddpg import DDPG, DDPGConfig
from whorl.options import override
from whorl.policies.deterministic import Deterministic

GAMMA = 0.9


def by_hand(**fields):
    """pi(s) = 2 tanh(0.8 s), its target 2 tanh(0.5 s); a critic that is a line, with another line as target."""
    policy = Deterministic(Features(), ACTIONS)
    with torch.no_grad():
        policy.head.weight.fill_(0.5)
        policy.head.bias.zero_()
    agent = DDPG(policy, Lines([1.5], [-0.4]), override(DDPGConfig(discount=GAMMA), fields))
    with torch.no_grad():
        agent.critic.v.fill_(2.0)
        agent.policy.head.weight.fill_(0.8)
    return agent


def errors(discounts):
    found = []
    for (s, a, r, s2, d, *_), gamma in zip(ROWS, discounts, strict=True):
        a2 = 2 * math.tanh(0.5 * s2)
        found.append(2.0 * s - 0.4 * a - (r + gamma * (0 if d else 1) * (1.5 * s2 - 0.4 * a2)))
    return found


@pytest.mark.parametrize("weight", [None, (0.5, 2.0, 1.0)])
def test_critic_loss_by_hand(weight):
    discounts = (0.9**3, 0.9, 0.9**2) if weight else None
    loss, metrics = by_hand().critic_loss(transitions(ROWS, weight=weight, next_discount=discounts))
    expected = errors(discounts or (GAMMA,) * 3)
    squares = [w * x * x for w, x in zip(weight or (1.0,) * 3, expected, strict=True)]
    assert loss.item() == pytest.approx(sum(squares) / 3, abs=1e-6)
    assert metrics["priority"].tolist() == pytest.approx([abs(x) for x in expected], abs=1e-6)


@pytest.mark.parametrize("weight", [None, (0.5, 2.0, 1.0)])
def test_actor_loss_by_hand(weight):
    loss, _ = by_hand().actor_loss(transitions(ROWS, weight=weight))
    q = [2.0 * s - 0.4 * 2 * math.tanh(0.8 * s) for s, *_ in ROWS]
    assert loss.item() == pytest.approx(-sum(w * x for w, x in zip(weight or (1.0,) * 3, q, strict=True)) / 3, abs=1e-6)
