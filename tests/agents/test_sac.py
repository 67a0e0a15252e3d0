"""SAC: its three losses by hand, who gets which gradient, targets, the noise, compiled equals eager."""

import math

import pytest
import torch
from gymnasium import spaces

from whorl import batch
from whorl.agents.sac import SAC, SACConfig
from whorl.errors import Incompatible
from whorl.feeds import Replay
from whorl.policies.stochastic import Stochastic
from whorl.training.config import override

BOX = spaces.Box(-1, 1, (1,))
ACTIONS = spaces.Box(-2, 2, (1,))
GAMMA, ALPHA = 0.9, 0.5


class Features(torch.nn.Module):
    width = 1

    def forward(self, observation):
        return observation


class Lines(torch.nn.Module):
    """Q_i(s, a) = v_i s + w_i a."""

    def __init__(self, v, w):
        super().__init__()
        self.v, self.w = (torch.nn.Parameter(torch.tensor(x).view(2, 1)) for x in (v, w))

    def forward(self, observation, action):
        return self.v * observation[:, 0] + self.w * action[:, 0]


def by_hand(**fields):
    """mean = 0.5 s, log std = -0.5 + 0.25 s; two critics that are lines; a target that is not the critic."""
    policy = Stochastic(Features(), ACTIONS, std="dependent", squash=True, replay=True)
    with torch.no_grad():
        policy.head.weight.copy_(torch.tensor([[0.5], [0.25]]))
        policy.head.bias.copy_(torch.tensor([0.0, -0.5]))
    config = override(SACConfig(discount=GAMMA, temperature=ALPHA), fields)
    agent = SAC(policy, Lines([1.0, 1.5], [0.2, -0.4]), config)
    with torch.no_grad():
        agent.critic.v.copy_(torch.tensor([[2.0], [0.5]]))
    return agent


ROWS = [  # s, a, r, s', terminated, z', z
    (0.5, 1.0, 1.0, -0.4, False, 0.3, -1.0),
    (-1.0, -0.5, -2.0, 0.8, True, -1.2, 0.4),
    (0.2, 0.3, 0.5, 1.0, False, 1.1, 0.9),
]


def rows(weight=None, discount=None):
    s, a, r, s2, d, z2, z = zip(*ROWS, strict=True)
    column = lambda x: torch.tensor(x)[:, None]  # noqa: E731
    entries = {
        "observation": column(s),
        "action": column(a),
        "noise": torch.stack([column(z2), column(z)], 1),
        "next": {"observation": column(s2), "reward": torch.tensor(r), "terminated": torch.tensor(d)},
    }
    if weight:
        entries["weight"] = torch.tensor(weight)
    if discount:
        entries["next"]["discount"] = torch.tensor(discount)
    return batch.make(entries, (len(ROWS),))


def sample(s, z):
    """(action, log pi) from the formulas of appendix C, the density in units of half the range."""
    std = math.exp(-0.5 + 0.25 * s)
    u = 0.5 * s + std * z
    return 2 * math.tanh(u), -0.5 * z * z - math.log(std) - 0.5 * math.log(2 * math.pi) - math.log(
        1 - math.tanh(u) ** 2
    )


def errors(discounts=(GAMMA,) * 3):
    found = []
    for (s, a, r, s2, d, z2, _), gamma in zip(ROWS, discounts, strict=True):
        a2, log_prob = sample(s2, z2)
        value = min(1.0 * s2 + 0.2 * a2, 1.5 * s2 - 0.4 * a2) - ALPHA * log_prob  # of the target's own weights
        target = r + gamma * (0 if d else 1) * value
        found.append([2.0 * s + 0.2 * a - target, 0.5 * s - 0.4 * a - target])
    return found


def test_critic_loss_by_hand():
    loss, metrics = by_hand().critic_loss(rows())
    expected = errors()
    assert loss.item() == pytest.approx(sum(0.5 * (x * x + y * y) for x, y in expected) / 3, abs=1e-6)
    assert metrics["priority"].tolist() == pytest.approx([max(abs(x), abs(y)) for x, y in expected], abs=1e-6)
    q = [v * s + w * a for s, a, *_ in ROWS for v, w in ((2.0, 0.2), (0.5, -0.4))]
    assert metrics["q_mean"].item() == pytest.approx(sum(q) / 6, abs=1e-6)


def test_importance_weights_and_n_step_discounts_by_hand():
    agent, weight, discounts = by_hand(), (0.5, 2.0, 1.0), (0.9**3, 0.9, 0.9**2)
    loss, metrics = agent.critic_loss(rows(weight, discounts))
    squares = [w * 0.5 * (x * x + y * y) for w, (x, y) in zip(weight, errors(discounts), strict=True)]
    assert loss.item() == pytest.approx(sum(squares) / 3, abs=1e-6)
    assert metrics["priority"].max().item() == pytest.approx(max(abs(e) for pair in errors(discounts) for e in pair))


@pytest.mark.parametrize("weight", [None, (0.5, 2.0, 1.0)])
def test_actor_and_temperature_losses_by_hand(weight):
    agent = by_hand(target_entropy=-1.5)
    loss, metrics = agent.actor_loss(rows(weight))
    actor_loss = entropy = missing = 0.0
    for (s, *_, z), w in zip(ROWS, weight or (1.0,) * 3, strict=True):
        a, log_prob = sample(s, z)
        actor_loss += w * (ALPHA * log_prob - min(2.0 * s + 0.2 * a, 0.5 * s - 0.4 * a)) / 3
        entropy -= log_prob / 3
        missing += w * (-log_prob + 1.5) / 3  # of the target
    assert metrics["entropy"].item() == pytest.approx(entropy, abs=1e-6)
    assert metrics["temperature"].item() == pytest.approx(ALPHA)
    assert metrics["temperature_loss"].item() == pytest.approx(ALPHA * missing, abs=1e-6)
    assert loss.item() == pytest.approx(actor_loss + ALPHA * missing, abs=1e-6)
    loss.backward()  # log alpha sees its own loss only: d alpha (H - target) / d log alpha
    assert agent.temperature.log_temperature.grad.item() == pytest.approx(ALPHA * missing, abs=1e-6)


def test_gradients_by_finite_differences():
    agent = by_hand(learn_temperature=False).double()
    data = rows().apply(lambda x: x.double() if x.is_floating_point() else x)
    for loss, part in ((agent.critic_loss, agent.critic), (agent.actor_loss, agent.policy)):
        loss(data)[0].backward()
        for p in part.parameters():
            for i in range(p.numel()):
                values = []
                for sign in (1, -1):
                    with torch.no_grad():
                        p.view(-1)[i] += sign * 1e-6
                        values.append(loss(data)[0].item())
                        p.view(-1)[i] -= sign * 1e-6
                assert p.grad.view(-1)[i].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-6, abs=1e-8)
        agent.zero_grad()


def small(seed=0, action_space=ACTIONS, compiled=False, **fields):
    torch.manual_seed(0)
    agent = SAC.build(BOX, action_space, override(SACConfig(hidden=(8, 8)), fields))
    agent.seed, agent.compiled = seed, compiled
    return agent


def weights(module):
    return [p.detach().clone() for p in module.parameters()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_each_optimizer_moves_its_own_part_at_its_own_rate():
    agent = small(learning_rate=1e-3, critic_learning_rate=2e-2)
    data = rows()
    critic, actor = weights(agent.critic), weights(agent.policy)
    agent.optimize(agent.actor_loss, agent.optimizer, data)
    assert same(critic, weights(agent.critic)) and all(p.grad is None for p in agent.critic.parameters())
    # Adam's first step is the learning rate, for every weight that has a gradient
    moved = max((a - b).abs().max().item() for a, b in zip(actor, weights(agent.policy), strict=True))
    assert moved == pytest.approx(1e-3, rel=1e-3)
    assert agent.temperature.log_temperature.abs().item() == pytest.approx(1e-3, rel=1e-3)
    actor = weights(agent.policy)
    agent.optimize(agent.critic_loss, agent.critic_optimizer, data)
    assert same(actor, weights(agent.policy))
    moved = max((a - b).abs().max().item() for a, b in zip(critic, weights(agent.critic), strict=True))
    assert moved == pytest.approx(2e-2, rel=1e-3)
    assert not any(p.requires_grad for p in agent.target.parameters())


def test_targets_are_equal_at_the_start_and_follow():
    agent = small(target_rate=0.25)
    assert same(weights(agent.critic), weights(agent.target.module))
    old = weights(agent.critic)
    agent.update(rows())
    for a, b, target in zip(old, agent.critic.parameters(), agent.target.parameters(), strict=True):
        torch.testing.assert_close(target, 0.75 * a + 0.25 * b.detach())


def test_the_noise_of_an_update_is_its_own_and_that_of_its_seed():
    agents = [small(0), small(0), small(1)]
    seen = []
    for agent in agents:
        seen.append([])
        for _ in range(2):
            data = rows()
            agent.update(data)
            seen[-1].append(data["noise"])
    assert seen[0][0].shape == (3, 2, 1) and agents[0].updates == 2
    assert torch.equal(seen[0][0], seen[1][0]) and torch.equal(seen[0][1], seen[1][1])
    assert not torch.equal(seen[0][0], seen[0][1]) and not torch.equal(seen[0][0], seen[2][0])
    assert same(weights(agents[0]), weights(agents[1])) and not same(weights(agents[0]), weights(agents[2]))


def test_a_fixed_temperature_stays():
    agent = small(learn_temperature=False, temperature=0.1)
    metrics = agent.update(rows())
    assert "temperature_loss" not in metrics and metrics["temperature"].item() == pytest.approx(0.1)
    assert agent.temperature().item() == pytest.approx(0.1)


def test_the_learned_temperature_holds_the_entropy_at_its_target():
    """No action is better than another: the temperature rises below the target entropy and falls above it."""
    for target, rises in ((5.0, True), (-5.0, False)):
        agent = small(target_entropy=target, learning_rate=1e-2)
        for _ in range(20):
            metrics = agent.update(rows())
        assert (metrics["temperature"] > 1) == rises
        assert (metrics["entropy"] < target) == rises


def test_the_bounds_have_no_say_in_the_losses():
    """The same policy in units of the bounds: same entropies, same losses."""
    found = []
    for half in (1.0, 20.0):
        agent, data = small(action_space=spaces.Box(-half, half, (1,))), rows()
        data["action"] = data["action"] * half / 2
        metrics = agent.update(data)
        found.append([metrics[key].item() for key in ("critic_loss", "actor_loss", "temperature_loss", "entropy")])
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_warming_ends_with_the_warm_up():
    agent = small(feed=Replay(warmup=10))
    assert agent.policy.warming
    rollout = batch.make({"observation": torch.zeros(4, 1, 1)}, (4, 1))
    flags = []
    for _ in range(3):
        agent.prepare(rollout)
        flags.append(bool(agent.policy.warming))
    assert flags == [True, True, False]  # 4, 8, 12 steps
    assert not small(feed=Replay(warmup=0)).policy.warming


@pytest.mark.parametrize("sde", [False, True])
def test_compiled_equals_eager(sde):
    eager, graph = (small(compiled=c, sde=sde, learning_rate=1e-2, critic_learning_rate=1e-2) for c in (False, True))
    for _ in range(3):
        a, b = eager.update(rows()), graph.update(rows())
    for key in a:
        torch.testing.assert_close(a[key], b[key], atol=1e-5, rtol=1e-4)
    for p, q in zip(eager.parameters(), graph.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-5, rtol=1e-4)


def test_needs_box_actions():
    with pytest.raises(Incompatible, match=r"needs Box actions, got Discrete\(2\); use discrete_sac"):
        small(action_space=spaces.Discrete(2))
