"""The squashed policy of SAC and its relatives: gSDE, the uniform start."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from whorl.errors import BadInput, Incompatible
from whorl.policies.squashed import Squashed

BOX = spaces.Box(-1, 1, (4,), np.float32)
UNEVEN = spaces.Box(np.float32([0, -3]), np.float32([10, 1]))


def make(sde=False, every=0, hidden=(16, 16), activation="relu", action_space=UNEVEN, log_std=-1.0):
    torch.manual_seed(0)
    options = {"sde": sde, "sde_every": every, "sde_log_std": log_std}
    return Squashed.build(BOX, action_space, hidden=hidden, activation=activation, **options)


class Features(torch.nn.Module):
    """The observation itself, so that features are known numbers."""

    width = 2

    def forward(self, observation):
        return observation


def known(every=0):
    """gSDE on features [2], one action in [-1, 1]: mean = w . features, std from log_std [2, 1]."""
    policy = Squashed(Features(), spaces.Box(-1, 1, (1,), np.float32), sde=True, sde_every=every)
    with torch.no_grad():
        policy.head.weight.copy_(torch.tensor([[0.25, -0.5]]))
        policy.head.bias.zero_()
        policy.log_std.copy_(torch.tensor([[0.5], [0.25]]).log())
    return policy


@pytest.mark.parametrize("sde", [False, True])
def test_the_start_is_uniform(sde):
    policy, n = make(sde), 100_000
    policy.warming.fill_(True)
    noise = policy.noise((n,), torch.Generator().manual_seed(0))
    first = torch.ones(n, dtype=torch.bool)
    with torch.no_grad():
        action = policy.act(torch.randn(n, 4), policy.initial(n), first, noise)[0]["action"].numpy()
        greedy = policy.act(torch.randn(n, 4), policy.initial(n), first, None)[0]["action"].numpy()
    for d in range(2):
        counts, _ = np.histogram(action[:, d], 20, (UNEVEN.low[d], UNEVEN.high[d]))
        assert counts.sum() == n
        assert ((counts - n / 20) ** 2 / (n / 20)).sum() < 43.8  # chi-square, 19 degrees of freedom, p = 0.001
    assert greedy[:, 0].std() < 2  # greedy actions are the policy's at once


def test_samples_score_themselves_in_units_of_half_the_range():
    policy = make()
    observation, noise = torch.randn(50, 4), torch.randn(50, 2)
    action, log_prob = policy.sample(observation, noise)
    density = policy.distribution(policy.encode({"observation": observation})).log_prob(action)
    torch.testing.assert_close(log_prob, density + math.log(5) + math.log(2), atol=1e-4, rtol=1e-4)


def test_sde_std_by_hand():
    """std(s) = sqrt(features^2 @ exp(log_std)^2): sqrt(1 * 0.25 + 4 * 0.0625) = sqrt(0.5)."""
    policy = known()
    d = policy.distribution(torch.tensor([[1.0, 2.0]]))
    assert d.log_std.item() == pytest.approx(0.5 * math.log(0.5 + 1e-6), abs=1e-6)
    assert d.mean.item() == pytest.approx(-0.75)
    assert policy.distribution(torch.tensor([[1.0, 20.0]])).mean.item() == -2.0  # the mean's bound


def test_sde_actions_by_hand():
    """tanh(mean + features @ (exp(log_std) * z)), with one z held."""
    policy, carry = known(), None
    carry = policy.initial(1)
    z = torch.tensor([[0.4, -0.2]])
    for t, features in enumerate(([1.0, 2.0], [-3.0, 0.5])):
        noise = z if t == 0 else torch.full((1, 2), 9.0)  # held: later numbers are not used
        decided, carry = policy.act(torch.tensor([features]), carry, torch.tensor([t == 0]), noise)
        u = 0.25 * features[0] - 0.5 * features[1] + features[0] * 0.5 * 0.4 + features[1] * 0.25 * -0.2
        assert decided["action"].item() == pytest.approx(math.tanh(u), abs=1e-6)


def test_the_losses_distribution_is_that_of_the_actions_over_the_matrices():
    policy, n = known(), 200_000
    features = torch.tensor([[0.6, -0.4]]).expand(n, 2)
    noise = policy.noise((n,), torch.Generator().manual_seed(0))
    with torch.no_grad():
        acted, _ = policy.act(features, policy.initial(n), torch.ones(n, dtype=torch.bool), noise)
        drawn, _ = policy.sample(features, torch.randn(n, 1, generator=torch.Generator().manual_seed(1)))
        d = policy.distribution(features[:1])
    u = acted["action"].atanh()
    assert u.mean().item() == pytest.approx(d.mean.item(), abs=3e-3)
    assert u.std().item() == pytest.approx(d.log_std.exp().item(), rel=0.01)
    bins = torch.linspace(-1, 1, 21)
    a, b = (torch.histogram(x.flatten(), bins)[0] for x in (acted["action"], drawn))
    seen = a + b > 0
    assert ((a - b) ** 2 / (a + b))[seen].sum() < 45.4  # chi-square of two samples, 20 degrees of freedom, p = 0.001


@pytest.mark.parametrize(("every", "renewals"), [(0, [0, 7]), (3, [0, 3, 6, 7, 10, 13])])
def test_matrices_are_renewed_at_starts_and_every_so_many_steps(every, renewals):
    policy = known(every)
    g, carry, kept = torch.Generator().manual_seed(0), policy.initial(2), []
    for t in range(15):
        first = torch.tensor([t in (0, 7), t == 0])  # the second environment has one long episode
        _, carry = policy.act(torch.randn(2, 2, generator=g), carry, first, policy.noise((2,), g))
        kept.append(carry["exploration"])
    changed = [[t for t in range(15) if t == 0 or not torch.equal(kept[t][i], kept[t - 1][i])] for i in (0, 1)]
    assert changed[0] == renewals
    assert changed[1] == ([0] if every == 0 else [0, 3, 6, 9, 12])


def test_exploration_teaches_the_features_nothing():
    policy = make(sde=True)
    policy.distribution(policy.encode({"observation": torch.randn(5, 4)})).log_std.sum().backward()
    assert policy.log_std.grad.abs().sum() > 0
    assert all(p.grad is None for p in policy.encoder.parameters())


def test_refuses_what_it_cannot_do():
    with pytest.raises(Incompatible, match=r"squashed Gaussian needs Box actions, got Discrete\(2\); use discrete_sac"):
        make(action_space=spaces.Discrete(2))
    with pytest.raises(Incompatible, match="squashed Gaussian needs finite action bounds"):
        make(action_space=spaces.Box(-np.inf, np.inf, (1,), np.float32))
    with pytest.raises(Incompatible, match="acts in one-axis Box spaces, got"):
        make(action_space=spaces.Box(-1, 1, (2, 2), np.float32))
    with pytest.raises(BadInput, match="says in `width` how many features it gives; Linear does not"):
        Squashed(torch.nn.Linear(4, 10), UNEVEN)
