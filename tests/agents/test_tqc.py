"""TQC: truncation and losses by hand from the paper's formulas. What else holds: test_replay_family.py."""

import pytest
import torch

from tests.agents.tables import ACTIONS, BOX, ROWS, sample, squashed, transitions
from whorl.agents.tqc import TQC, TQCConfig, pool
from whorl.errors import BadInput
from whorl.nets.ensemble import QEnsemble
from whorl.options import override

GAMMA, ALPHA = 0.9, 0.5
N, M = 2, 3  # critics and atoms
BIAS = ((0.0, 0.7, 2.0), (-1.0, 0.3, 5.0))  # atom m of critic n at (s, a): BIAS[n][m] + 1.5 s + 0.4 a / 2
TARGET_BIAS = ((3.0, -0.5, 0.2), (4.0, 1.0, -2.0))


def by_hand(**fields):
    config = TQCConfig(discount=GAMMA, temperature=ALPHA, critics=N, quantiles=M, dropped=1)
    agent = TQC(squashed(), QEnsemble(BOX, ACTIONS, N, (), outputs=M), override(config, fields))
    for net, bias in ((agent.critic, BIAS), (agent.target.module, TARGET_BIAS)):
        with torch.no_grad():
            net.layers[0].weight.copy_(torch.tensor([[1.5], [0.4]]).expand(N, 2, M))
            net.layers[0].bias.copy_(torch.tensor(bias).view(N, 1, M))
    return agent


def atoms(bias, s, a):
    return [[b + 1.5 * s + 0.4 * a / 2 for b in row] for row in bias]


def quantile_huber(theta, targets, tau):
    total = 0.0
    for y in targets:
        u = y - theta
        total += abs(tau - (u < 0)) * (u * u / 2 if abs(u) <= 1 else abs(u) - 0.5)
    return total / len(targets)


def losses(dropped):
    """Row by row: eq. 9 to 13 for both critics (their losses summed), and |mean of the atoms - mean of the targets|."""
    found = []
    for s, a, r, s2, d, z2, _ in ROWS:
        a2, log_prob = sample(s2, z2)
        pooled = sorted(x for row in atoms(TARGET_BIAS, s2, a2) for x in row)
        kept = pooled[: N * M - dropped * N]
        y = [r + GAMMA * (0 if d else 1) * (x - ALPHA * log_prob) for x in kept]
        own = atoms(BIAS, s, a)
        loss = sum(quantile_huber(row[m], y, (2 * m + 1) / (2 * M)) / M for row in own for m in range(M))
        found.append((loss, abs(sum(map(sum, own)) / (N * M) - sum(y) / len(y))))
    return found


@pytest.mark.parametrize("dropped", [0, 1, 2])
def test_critic_loss_by_hand(dropped):
    weight = (0.5, 2.0, 1.0)
    expected = losses(dropped)
    for extra, w in (({}, (1, 1, 1)), ({"weight": weight}, weight)):
        loss, metrics = by_hand(dropped=dropped).critic_loss(transitions(ROWS, **extra))
        assert loss.item() == pytest.approx(sum(k * x for k, (x, _) in zip(w, expected, strict=True)) / 3, abs=1e-6)
        assert metrics["priority"].tolist() == pytest.approx([p for _, p in expected], abs=1e-6)


def test_dropping_lowers_the_target():
    """The largest atoms of the pool go, whichever critic they come from: here 4 of one and 3 of the other."""
    agent = by_hand()
    target = agent.target(torch.zeros(1, 1), torch.zeros(1, 1))
    assert pool(target).sort(-1).values[0].tolist() == pytest.approx([-2.0, -0.5, 0.2, 1.0, 3.0, 4.0])
    assert pool(target)[0].tolist() == pytest.approx([3.0, -0.5, 0.2, 4.0, 1.0, -2.0])  # critic after critic


def test_actor_loss_by_hand():
    weight = (0.5, 2.0, 1.0)
    agent = by_hand(target_entropy=-1.5)
    loss, metrics = agent.actor_loss(transitions(ROWS, weight=weight))
    actor_loss = temperature_loss = 0.0
    for (s, *_, z), w in zip(ROWS, weight, strict=True):
        a, log_prob = sample(s, z)
        actor_loss += w * (ALPHA * log_prob - sum(map(sum, atoms(BIAS, s, a))) / (N * M)) / 3  # none dropped
        temperature_loss += w * ALPHA * (-log_prob + 1.5) / 3
    assert metrics["temperature_loss"].item() == pytest.approx(temperature_loss, abs=1e-6)
    assert loss.item() == pytest.approx(actor_loss + temperature_loss, abs=1e-6)


def small(compiled=False, **fields):
    torch.manual_seed(0)
    config = TQCConfig(hidden=(8, 8), critic_hidden=(8, 8), learning_rate=1e-2, critic_learning_rate=1e-2)
    agent = TQC.build(BOX, ACTIONS, override(config, fields))
    agent.compiled = compiled
    return agent


def test_every_critic_moves():
    agent = small()
    before = [p.detach().clone() for p in agent.critic.parameters()]
    agent.update(transitions(ROWS))
    for a, b in zip(before, agent.critic.parameters(), strict=True):
        assert ((a - b).flatten(1).abs().amax(1) > 0).all()


def test_some_atoms_are_left():
    with pytest.raises(BadInput, match="dropped must be from 0 to less than the 25 quantiles, got 25"):
        small(dropped=25)
