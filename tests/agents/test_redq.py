"""REDQ: the target's random few, the losses by hand, when the actor moves, compiled equals eager."""

import math

import pytest
import torch
from gymnasium import spaces

from whorl import batch
from whorl.agents.redq import REDQ, REDQConfig
from whorl.errors import BadInput, Incompatible
from whorl.nets.ensemble import QEnsemble
from whorl.policies.stochastic import Stochastic
from whorl.training.config import override

BOX, ACTIONS = spaces.Box(-1, 1, (1,)), spaces.Box(-2, 2, (1,))
GAMMA, ALPHA = 0.9, 0.5
V, W = (1.0, 1.5, -0.5), (0.2, -0.4, 0.3)  # Q_i(s, a) = V_i s + W_i a / 2 + 0.1 i: a enters in units of half its range
TARGET_V = (0.8, 1.0, 2.0)


class Features(torch.nn.Module):
    width = 1

    def forward(self, observation):
        return observation


def by_hand(**fields):
    """mean = 0.5 s, log std = -0.5 + 0.25 s; three critics that are lines; targets that are other lines."""
    policy = Stochastic(Features(), ACTIONS, std="dependent", squash=True, replay=True)
    with torch.no_grad():
        policy.head.weight.copy_(torch.tensor([[0.5], [0.25]]))
        policy.head.bias.copy_(torch.tensor([0.0, -0.5]))
    critic = QEnsemble(BOX, ACTIONS, 3, ())
    agent = REDQ(policy, critic, override(REDQConfig(discount=GAMMA, temperature=ALPHA, critics=3), fields))
    for net, v in ((critic, V), (agent.target.module, TARGET_V)):
        with torch.no_grad():
            net.layers[0].weight.copy_(torch.tensor([v, W]).T.unsqueeze(-1))
            net.layers[0].bias.copy_(torch.tensor([0.0, 0.1, 0.2]).view(3, 1, 1))
    return agent


ROWS = [  # s, a, r, s', terminated, z', z
    (0.5, 1.0, 1.0, -0.4, False, 0.3, -1.0),
    (-1.0, -0.5, -2.0, 0.8, True, -1.2, 0.4),
    (0.2, 0.3, 0.5, 1.0, False, 1.1, 0.9),
]


def rows(subset=(0, 2), **extra):
    s, a, r, s2, d, z2, z = zip(*ROWS, strict=True)
    column = lambda x: torch.tensor(x)[:, None]  # noqa: E731
    entries = {
        "observation": column(s),
        "action": column(a),
        "noise": torch.stack([column(z2), column(z)], 1),
        "subset": torch.tensor(subset).expand(3, len(subset)),
        "next": {"observation": column(s2), "reward": torch.tensor(r), "terminated": torch.tensor(d)},
    }
    entries |= {key: torch.tensor(value) for key, value in extra.items()}
    return batch.make(entries, (3,))


def sample(s, z):
    """(action, log pi), the density in units of half the range."""
    std = math.exp(-0.5 + 0.25 * s)
    u = 0.5 * s + std * z
    return 2 * math.tanh(u), -0.5 * z * z - math.log(std) - 0.5 * math.log(2 * math.pi) - math.log(
        1 - math.tanh(u) ** 2
    )


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
        loss, metrics = by_hand().critic_loss(rows(subset, **extra))
        squares = [w[b] * sum(e * e for e in expected[b]) for b in range(3)]
        assert loss.item() == pytest.approx(sum(squares) / 3, abs=1e-6)
        mean = [sum(abs(e) for e in row) / 3 for row in expected]
        assert metrics["priority"].tolist() == pytest.approx(mean, abs=1e-6)


def test_actor_loss_climbs_the_mean_of_all_critics():
    weight = (0.5, 2.0, 1.0)
    agent = by_hand(target_entropy=-1.5)
    loss, metrics = agent.actor_loss(rows(weight=weight))
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
            data = rows()
            agent.update(data)
            subset = data["subset"]
            assert subset.shape == (3, 2) and (subset == subset[0]).all()
            subsets.append(tuple(sorted(subset[0].tolist())))
        seen.append(subsets)
    assert seen[0] == seen[1]
    counts = [seen[0].count((i, j)) for i in range(4) for j in range(i + 1, 4)]
    assert sum(counts) == 300  # two different members each time
    assert sum((n - 50) ** 2 / 50 for n in counts) < 20.5  # chi-square, 5 degrees of freedom, p = 0.001


def test_noise_is_that_of_the_seed_and_the_update():
    found = []
    for seed in (0, 0, 1):
        agent = small(seed=seed)
        for _ in range(2):
            data = rows()
            agent.update(data)
            found.append(data["noise"])
    assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3])
    assert not torch.equal(found[0], found[1]) and not torch.equal(found[0], found[4])


def test_the_actor_moves_once_in_policy_delay_updates_and_targets_always():
    agent = small(policy_delay=3, target_rate=0.25)
    moved = []
    for _ in range(6):
        actor, target = ([p.clone() for p in part.parameters()] for part in (agent.policy, agent.target))
        metrics = agent.update(rows())
        moved.append(any(not torch.equal(a, b) for a, b in zip(actor, agent.policy.parameters(), strict=True)))
        pairs = zip(target, agent.critic.parameters(), agent.target.parameters(), strict=True)
        for old, its, new in pairs:
            torch.testing.assert_close(new, 0.75 * old + 0.25 * its.detach())
        assert {"critic_loss", "actor_loss", "temperature", "entropy", "temperature_loss"} <= set(metrics) | set(
            agent.report
        )
    assert moved == [True, False, False, True, False, False] and agent.updates == 6


def test_compiled_equals_eager():
    eager, graph = small(policy_delay=2), small(compiled=True, policy_delay=2)
    for _ in range(3):
        a, b = eager.update(rows()), graph.update(rows())
    for key in a:
        torch.testing.assert_close(a[key], b[key], atol=1e-5, rtol=1e-4)
    for p, other in zip(eager.parameters(), graph.parameters(), strict=True):
        torch.testing.assert_close(p, other, atol=1e-5, rtol=1e-4)


def test_refusals():
    with pytest.raises(BadInput, match="subset must be from 1 to the 3 critics, got 4"):
        small(critics=3, subset=4)
    with pytest.raises(Incompatible, match=r"needs Box actions, got Discrete\(2\)"):
        REDQ.build(BOX, spaces.Discrete(2), REDQConfig())
