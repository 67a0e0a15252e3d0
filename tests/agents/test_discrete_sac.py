"""Discrete SAC: exact expectations by hand, masks, gradients of the actor. What else holds: test_replay_family.py."""

import math

import pytest
import torch
from gymnasium import spaces

from tests.agents.tables import Features
from whorl import batch
from whorl.agents.discrete_sac import DiscreteSAC, DiscreteSACConfig
from whorl.options import override
from whorl.policies.stochastic import Stochastic

BOX, ACTIONS = spaces.Box(-1, 1, (1,)), spaces.Discrete(3)
GAMMA, ALPHA = 0.9, 0.5
SLOPE = (1.0, -0.5, 0.25)  # logits = SLOPE s
Q = ((1.0, 2.0, -1.0), (0.5, 2.5, 3.0))  # Q_i(s, a) = Q[i][a] + s
TARGET = ((0.2, 1.0, 0.4), (0.6, -1.0, 0.5))


class Table(torch.nn.Module):
    def __init__(self, q):
        super().__init__()
        self.q = torch.nn.Parameter(torch.tensor(q).unsqueeze(1))

    def forward(self, observation):
        return self.q + observation


def by_hand(**fields):
    policy = Stochastic(Features(), ACTIONS)
    with torch.no_grad():
        policy.head.weight.copy_(torch.tensor(SLOPE).unsqueeze(-1))
    config = override(DiscreteSACConfig(discount=GAMMA, temperature=ALPHA), fields)
    agent = DiscreteSAC(policy, Table(TARGET), config)  # the target is a copy of this
    with torch.no_grad():
        agent.critic.q.copy_(torch.tensor(Q).unsqueeze(1))
    return agent


ROWS = [  # s, a, r, s', terminated
    (0.5, 1, 1.0, -0.4, False),
    (-1.0, 0, -2.0, 0.8, True),
    (0.2, 2, 0.5, 1.0, False),
]
WEIGHT = (0.5, 2.0, 1.0)


def rows(mask=None, **extra):
    s, a, r, s2, d = zip(*ROWS, strict=True)
    next = {"observation": torch.tensor(s2)[:, None], "reward": torch.tensor(r), "terminated": torch.tensor(d)}
    entries = {"observation": torch.tensor(s)[:, None], "action": torch.tensor(a), "next": next}
    if mask:
        entries["action_mask"] = next["action_mask"] = torch.tensor(mask).expand(3, 3).clone()
    return batch.make(entries | {key: torch.tensor(value) for key, value in extra.items()}, (3,))


def probabilities(s, mask=(True,) * 3):
    weights = [math.exp(k * s) if allowed else 0.0 for k, allowed in zip(SLOPE, mask, strict=True)]
    return [w / sum(weights) for w in weights]


def soft(pi, q):
    """sum_a pi (q - alpha log pi)."""
    return sum(p * (x - ALPHA * math.log(p)) for p, x in zip(pi, q, strict=True) if p)


@pytest.mark.parametrize("mask", [None, (True, False, True)])
def test_critic_loss_by_hand(mask):
    errors = []
    for s, a, r, s2, d in ROWS:
        value = soft(probabilities(s2, mask or (True,) * 3), [min(TARGET[0][b], TARGET[1][b]) + s2 for b in range(3)])
        y = r + GAMMA * (0 if d else 1) * value
        errors.append([Q[i][a] + s - y for i in range(2)])
    for extra, weight in (({}, (1, 1, 1)), ({"weight": WEIGHT}, WEIGHT)):
        loss, metrics = by_hand().critic_loss(rows(mask, **extra))
        expected = sum(w * 0.5 * (x * x + y * y) for w, (x, y) in zip(weight, errors, strict=True)) / 3
        assert loss.item() == pytest.approx(expected, abs=1e-6)
        assert metrics["priority"].tolist() == pytest.approx([max(map(abs, e)) for e in errors], abs=1e-6)


@pytest.mark.parametrize("mask", [None, (True, False, True)])
def test_actor_and_temperature_losses_by_hand(mask):
    agent = by_hand(target_entropy=0.9)
    loss, metrics = agent.actor_loss(rows(mask, weight=WEIGHT))
    actor_loss = temperature_loss = entropy = 0.0
    for (s, *_), w in zip(ROWS, WEIGHT, strict=True):
        pi = probabilities(s, mask or (True,) * 3)
        own = -sum(p * math.log(p) for p in pi if p)
        actor_loss -= w * soft(pi, [min(Q[0][b], Q[1][b]) + s for b in range(3)]) / 3
        temperature_loss += w * ALPHA * (own - 0.9 * math.log(2 if mask else 3)) / 3
        entropy += own / 3
    assert metrics["entropy"].item() == pytest.approx(entropy, abs=1e-6)
    assert metrics["temperature_loss"].item() == pytest.approx(temperature_loss, abs=1e-6)
    assert loss.item() == pytest.approx(actor_loss + temperature_loss, abs=1e-6)
    loss.backward()
    assert agent.temperature.log_temperature.grad.item() == pytest.approx(temperature_loss, abs=1e-6)
    assert agent.critic.q.grad is None


def test_the_actor_comes_to_the_boltzmann_policy():
    """With fixed values the best policy is softmax(min Q / alpha)."""
    agent = by_hand(learn_temperature=False, learning_rate=3e-2)
    data = rows()
    for _ in range(400):
        agent.optimize(agent.actor_loss, agent.optimizer, data)
    best = (torch.tensor(Q).amin(0) / ALPHA).softmax(-1)
    torch.testing.assert_close(agent.log_policy(data).exp(), best.expand(3, 3), rtol=0, atol=2e-2)


@pytest.mark.parametrize(("share", "rises"), [(0.99, True), (0.2, False)])
def test_the_temperature_moves_towards_the_target_entropy(share, rises):
    agent = by_hand(target_entropy=share)
    agent.update(rows())
    assert (float(agent.temperature().detach()) > ALPHA) == rises


def test_first_actions_are_near_uniform():
    torch.manual_seed(0)
    agent = DiscreteSAC.build(BOX, ACTIONS, DiscreteSACConfig(hidden=(8, 8)))
    entropy = agent.actor_loss(rows())[1]["entropy"]
    assert entropy.item() == pytest.approx(math.log(3), abs=1e-3)
