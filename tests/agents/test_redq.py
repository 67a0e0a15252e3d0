"""REDQ: the target's random few, the losses by hand. What else holds: test_replay_family.py."""

import pytest
import torch

from tests.agents.tables import ACTIONS, BOX, ROWS, sample, squashed, transitions
from whorl.agents.redq import REDQ, REDQConfig
from whorl.errors import BadInput
from whorl.nets.ensemble import QEnsemble
from whorl.options import override

GAMMA, ALPHA = 0.9, 0.5
V, W = (1.0, 1.5, -0.5), (0.2, -0.4, 0.3)  # Q_i(s, a) = V_i s + W_i a / 2 + 0.1 i: a enters in units of half its range
TARGET_V = (0.8, 1.0, 2.0)


def by_hand(**fields):
    """Three critics that are lines; targets that are other lines."""
    critic = QEnsemble(BOX, ACTIONS, 3, ())
    agent = REDQ(squashed(), critic, override(REDQConfig(discount=GAMMA, temperature=ALPHA, critics=3), fields))
    for net, v in ((critic, V), (agent.target.module, TARGET_V)):
        with torch.no_grad():
            net.layers[0].weight.copy_(torch.tensor([v, W]).T.unsqueeze(-1))
            net.layers[0].bias.copy_(torch.tensor([0.0, 0.1, 0.2]).view(3, 1, 1))
    return agent


def q(v, s, a):
    return [v[i] * s + W[i] * a / 2 + 0.1 * i for i in range(3)]


def errors(subset):
    """Algorithm 1, line 8 and 9: y = r + gamma (min over the subset of the targets - alpha log pi), all critics against it."""
    found = []
    for s, a, r, s2, d, z2, _ in ROWS:
        a2, log_prob = sample(s2, z2)
        few = [q(TARGET_V, s2, a2)[i] for i in subset]
        y = r + GAMMA * (0 if d else 1) * (min(few) - ALPHA * log_prob)
        found.append([value - y for value in q(V, s, a)])
    return found


@pytest.mark.parametrize("subset", [(0, 2), (1,), (2, 0, 1)])
def test_critic_loss_by_hand(subset):
    weight = (0.5, 2.0, 1.0)
    expected = errors(subset)
    for extra, w in (({}, (1, 1, 1)), ({"weight": weight}, weight)):
        loss, metrics = by_hand().critic_loss(transitions(ROWS, subset=(subset,) * 3, **extra))
        squares = [w[b] * sum(e * e for e in expected[b]) for b in range(3)]
        assert loss.item() == pytest.approx(sum(squares) / 3, abs=1e-6)
        mean = [sum(abs(e) for e in row) / 3 for row in expected]
        assert metrics["priority"].tolist() == pytest.approx(mean, abs=1e-6)


def test_actor_loss_climbs_the_mean_of_all_critics():
    weight = (0.5, 2.0, 1.0)
    agent = by_hand(target_entropy=-1.5)
    loss, metrics = agent.actor_loss(transitions(ROWS, weight=weight))
    actor_loss = temperature_loss = entropy = 0.0
    for (s, *_, z), w in zip(ROWS, weight, strict=True):
        a, log_prob = sample(s, z)
        actor_loss += w * (ALPHA * log_prob - sum(q(V, s, a)) / 3) / 3
        temperature_loss += w * ALPHA * (-log_prob + 1.5) / 3
        entropy -= log_prob / 3
    assert metrics["entropy"].item() == pytest.approx(entropy, abs=1e-6)
    assert metrics["temperature_loss"].item() == pytest.approx(temperature_loss, abs=1e-6)
    assert loss.item() == pytest.approx(actor_loss + temperature_loss, abs=1e-6)
    loss.backward()
    assert agent.temperature.log_temperature.grad.item() == pytest.approx(temperature_loss, abs=1e-6)


def small(compiled=False, seed=0, **fields):
    torch.manual_seed(0)
    config = override(REDQConfig(hidden=(8, 8), learning_rate=1e-2, critic_learning_rate=1e-2), fields)
    agent = REDQ.build(BOX, ACTIONS, config)
    agent.compiled, agent.seed = compiled, seed
    return agent


def test_subsets_are_distinct_reproducible_and_reach_every_pair_alike():
    seen = []
    for _ in range(2):
        agent, subsets = small(critics=4, hidden=(2,), policy_delay=10_000), []
        for _ in range(300):
            data = transitions(ROWS)
            agent.update(data)
            subset = data["subset"]
            assert subset.shape == (3, 2) and (subset == subset[0]).all()
            subsets.append(tuple(sorted(subset[0].tolist())))
        seen.append(subsets)
    assert seen[0] == seen[1]
    counts = [seen[0].count((i, j)) for i in range(4) for j in range(i + 1, 4)]
    assert sum(counts) == 300  # two different members each time
    assert sum((n - 50) ** 2 / 50 for n in counts) < 20.5  # chi-square, 5 degrees of freedom, p = 0.001


def test_the_few_are_some_of_all():
    with pytest.raises(BadInput, match="subset must be from 1 to the 3 critics, got 4"):
        small(critics=3, subset=4)
