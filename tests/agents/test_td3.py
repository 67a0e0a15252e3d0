"""TD3: its losses by hand, the clipped smoothing noise, the delay, targets, rates, compiled equals eager."""

import math

import pytest
import torch
from gymnasium import spaces

from whorl import batch
from whorl.agents.td3 import TD3, TD3Config
from whorl.errors import Incompatible
from whorl.feeds import Replay
from whorl.policies.deterministic import Deterministic
from whorl.training.config import override

BOX = spaces.Box(-1, 1, (1,))
ACTIONS = spaces.Box(-2, 2, (1,))
GAMMA = 0.9


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


def rows(weight=None, discount=None):
    s, a, r, s2, d, z = zip(*ROWS, strict=True)
    column = lambda x: torch.tensor(x)[:, None]  # noqa: E731
    entries = {
        "observation": column(s),
        "action": column(a),
        "noise": column(z),
        "next": {"observation": column(s2), "reward": torch.tensor(r), "terminated": torch.tensor(d)},
    }
    if weight:
        entries["weight"] = torch.tensor(weight)
    if discount:
        entries["next"]["discount"] = torch.tensor(discount)
    return batch.make(entries, (len(ROWS),))


def errors(discounts=(GAMMA,) * 5):
    found = []
    for (s, a, r, s2, d, z), gamma in zip(ROWS, discounts, strict=True):
        noise = min(max(0.2 * z, -0.5), 0.5)
        a2 = 2 * min(max(math.tanh(0.5 * s2) + noise, -1.0), 1.0)
        target = r + gamma * (0 if d else 1) * min(1.0 * s2 + 0.2 * a2, 1.5 * s2 - 0.4 * a2)
        found.append([2.0 * s + 0.2 * a - target, 0.5 * s - 0.4 * a - target])
    return found


def test_critic_loss_by_hand():
    loss, metrics = by_hand().critic_loss(rows())
    expected = errors()
    assert loss.item() == pytest.approx(sum(x * x + y * y for x, y in expected) / 5, abs=1e-6)
    assert metrics["priority"].tolist() == pytest.approx([max(abs(x), abs(y)) for x, y in expected], abs=1e-6)


def test_importance_weights_and_n_step_discounts_by_hand():
    weight, discounts = (0.5, 2.0, 1.0, 0.25, 3.0), (0.9**3, 0.9, 0.9**2, 0.5, 1.0)
    loss, _ = by_hand().critic_loss(rows(weight, discounts))
    squares = [w * (x * x + y * y) for w, (x, y) in zip(weight, errors(discounts), strict=True)]
    assert loss.item() == pytest.approx(sum(squares) / 5, rel=1e-6)


@pytest.mark.parametrize("weight", [None, (0.5, 2.0, 1.0, 0.25, 3.0)])
def test_actor_loss_by_hand(weight):
    """Of the first critic alone."""
    loss, _ = by_hand().actor_loss(rows(weight))
    q = [2.0 * s + 0.2 * 2 * math.tanh(0.8 * s) for s, *_ in ROWS]
    assert loss.item() == pytest.approx(-sum(w * x for w, x in zip(weight or (1.0,) * 5, q, strict=True)) / 5, abs=1e-6)


def test_gradients_by_finite_differences():
    agent = by_hand().double()
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


def small(action_space=ACTIONS, compiled=False, **fields):
    torch.manual_seed(0)
    agent = TD3.build(BOX, action_space, override(TD3Config(hidden=(8, 8)), fields))
    agent.compiled = compiled
    return agent


def weights(module):
    return [p.detach().clone() for p in module.parameters()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_both_targets_are_equal_at_the_start():
    """rlpyt's actor target began at weights of its own."""
    agent = small()
    assert same(weights(agent.critic), weights(agent.target)) and same(
        weights(agent.policy), weights(agent.target_policy)
    )
    assert not any(p.requires_grad for part in (agent.target, agent.target_policy) for p in part.parameters())


def test_actor_and_targets_wait_for_the_delay():
    agent = small(policy_delay=3, target_rate=0.25)
    parts = (agent.policy, agent.target, agent.target_policy)
    for update in range(1, 7):
        before, critic = [weights(part) for part in parts], weights(agent.critic)
        agent.update(rows())
        assert not same(critic, weights(agent.critic))
        for part, old in zip(parts, before, strict=True):
            assert same(old, weights(part)) == (update % 3 != 0)
        assert ("actor_loss" in agent.report) == (update >= 3)
    for old, new, target in zip(before[1], agent.critic.parameters(), agent.target.parameters(), strict=True):
        torch.testing.assert_close(target, 0.75 * old + 0.25 * new.detach())


def test_each_optimizer_moves_its_own_part_at_its_own_rate():
    """rlpyt's TD3 never used its actor's learning rate."""
    agent = small(learning_rate=1e-3, critic_learning_rate=2e-2, policy_delay=1)
    critic, actor = weights(agent.critic), weights(agent.policy)
    agent.optimize(agent.actor_loss, agent.optimizer, rows())
    assert same(critic, weights(agent.critic)) and all(p.grad is None for p in agent.critic.parameters())
    moved = max((a - b).abs().max().item() for a, b in zip(actor, weights(agent.policy), strict=True))
    assert moved == pytest.approx(1e-3, rel=1e-3)  # Adam's first step is its learning rate
    agent.optimize(agent.critic_loss, agent.critic_optimizer, rows())
    moved = max((a - b).abs().max().item() for a, b in zip(critic, weights(agent.critic), strict=True))
    assert moved == pytest.approx(2e-2, rel=1e-3)


def test_warming_ends_with_the_warm_up():
    agent = small(feed=Replay(warmup=10))
    assert agent.policy.warming and not small(feed=Replay(warmup=0)).policy.warming
    rollout = batch.make({"observation": torch.zeros(5, 1, 1)}, (5, 1))
    agent.prepare(rollout)
    assert agent.policy.warming
    agent.prepare(rollout)
    assert not agent.policy.warming


def test_compiled_equals_eager():
    eager, graph = (small(compiled=c, learning_rate=1e-2, critic_learning_rate=1e-2) for c in (False, True))
    for _ in range(4):
        a, b = eager.update(rows()), graph.update(rows())
    for key in a:
        torch.testing.assert_close(a[key], b[key], atol=1e-5, rtol=1e-4)
    for p, q in zip(eager.parameters(), graph.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-5, rtol=1e-4)


def test_needs_box_actions():
    with pytest.raises(Incompatible, match=r"acts in one-axis Box spaces, got Discrete\(2\)"):
        small(action_space=spaces.Discrete(2))
