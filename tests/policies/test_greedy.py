"""Acting on action values: frequencies = `probabilities`, masks, ties, spreads; and nothing is kept."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from whorl.errors import Incompatible
from whorl.nets.linear_q import LinearQ
from whorl.nets.normalizer import Normalizer
from whorl.nets.q import QNetwork
from whorl.nets.tile_coding import OneHot
from whorl.policies import exploration
from whorl.policies.greedy import Greedy

KINDS = [
    ("epsilon_greedy", 0.3, 1.0),
    ("epsilon_greedy", 1.0, 1.0),
    ("epsilon_greedy", 0.0, 1.0),
    ("softmax", 0.1, 0.7),
]


def numbers(seed):
    return torch.Generator().manual_seed(seed)


def table(exploration="epsilon_greedy", epsilon=0.1, temperature=1.0, states=6, actions=4, seed=0):
    q = LinearQ(OneHot(spaces.Discrete(states)), actions)
    q.weight[:] = torch.randn(actions, states, generator=numbers(seed), dtype=torch.float64)
    return Greedy(q, spaces.Discrete(actions), exploration, epsilon, temperature)


def masks(n, actions, seed=3):
    allowed = torch.rand(n, actions, generator=numbers(seed)) < 0.5
    allowed[torch.arange(n), torch.randint(actions, (n,), generator=numbers(seed))] = True
    return allowed


def test_spread_epsilons_by_hand():
    """Horgan et al. 2018, section 4: epsilon_i = epsilon ** (1 + alpha i / (N - 1)), there .4 and 7."""
    policy = Greedy(QNetwork(spaces.Box(-1, 1, (1,)), 2, ()), spaces.Discrete(2), epsilon=0.4, epsilon_spread=7.0)
    expected = [0.4, 0.4 ** (1 + 7 / 3), 0.4 ** (1 + 14 / 3), 0.4**8]
    assert policy.epsilons(4).tolist() == pytest.approx(expected, abs=1e-12)
    assert policy.epsilons(1).tolist() == pytest.approx([0.4])
    with torch.no_grad():
        policy.q.advantage[0].weight.zero_()
        policy.q.advantage[0].bias.copy_(torch.tensor([0.0, 1.0]))  # 1 is best; `which` 0 explores with 0
    x, first = torch.zeros(4, 1), torch.zeros(4, dtype=torch.bool)
    for shift, actions in ((-1e-6, [0, 0, 0, 0]), (1e-6, [1, 1, 1, 1])):
        noise = torch.tensor([[e + shift, 0.0] for e in expected], dtype=torch.float64)
        assert policy.act(x, None, first, noise)[0]["action"].tolist() == actions
        assert policy.actor(4)(x.numpy(), None, first.numpy(), noise.numpy())[0]["action"].tolist() == actions


def test_epsilon_is_annealed_in_place_on_a_straight_line():
    policy = table(epsilon=1.0)
    seen = policy.exploration
    assert [float(policy.anneal(done, 10, 1.0, 0.2)) for done in (0, 5, 10, 99)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
    assert float(policy.anneal(0, 0, 1.0, 0.2)) == 0.2 and float(seen[exploration.EPSILON]) == 0.2


def test_the_actor_sees_later_weights_and_epsilons():
    policy = table(epsilon=0.0)
    actor, state, first = policy.actor(1), np.array([2]), np.zeros(1, bool)
    policy.q.weight[:, 2] = torch.tensor([0, 0, 9, 0])
    assert actor(state, None, first, np.zeros((1, 2)))[0]["action"] == [2]
    policy.q.weight[:, 2] = torch.tensor([0, 9, 0, 0])
    assert actor(state, None, first, np.zeros((1, 2)))[0]["action"] == [1]
    policy.exploration[exploration.EPSILON] = 0.5
    assert actor(state, None, first, np.array([[0.49, 0.99]]))[0]["action"] == [3]
    assert actor(state, None, first, np.array([[0.5, 0.99]]))[0]["action"] == [1]


def test_the_first_of_equals_is_the_best():
    policy = table()
    policy.q.weight[:, 0] = torch.tensor([1, 2, 2, 2])
    first, allowed = torch.zeros(1, dtype=torch.bool), torch.tensor([[True, False, True, True]])
    for mask, best in ((None, 1), (allowed, 2)):
        action = policy.act(torch.tensor([0]), None, first, None, mask)[0]["action"]
        arrays = None if mask is None else mask.numpy()
        compiled = policy.actor(1)(np.array([0]), None, first.numpy(), None, arrays)[0]["action"]
        assert action.tolist() == compiled.tolist() == [best]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_frequencies_are_the_probabilities(kind, masked):
    """Chi-square against `probabilities`; a uniform draw may be the best action too."""
    n, policy = 40_000, table(*kind)
    state = torch.full((n,), 3)
    allowed = torch.tensor([True, True, False, True]).expand(n, 4) if masked else None
    noise = policy.noise((n,), numbers(7))
    action = policy.act(state, None, torch.zeros(n, dtype=torch.bool), noise, allowed)[0]["action"]
    share = policy.probabilities(policy.q(state[:1]), None if allowed is None else allowed[:1])[0]
    expected, came = (n * share).numpy(), np.bincount(action.numpy(), minlength=4)
    possible = expected > 0
    assert came[~possible].sum() == 0
    assert ((came - expected)[possible] ** 2 / expected[possible]).sum() < 16.3  # .999 of chi-square with 3


def test_probabilities_by_hand():
    q = torch.tensor([1.0, 3.0, 2.0, 3.0])
    allowed = torch.tensor([True, False, True, True])
    close = lambda p, expected: torch.testing.assert_close(p, torch.tensor(expected))  # noqa: E731
    close(table(epsilon=0.2).probabilities(q), [0.05, 0.85, 0.05, 0.05])
    close(table(epsilon=0.3).probabilities(q, allowed), [0.1, 0.0, 0.1, 0.8])
    soft = np.exp([0.5, 1.5, 1.0, 1.5])
    close(table("softmax", temperature=2.0).probabilities(q), (soft / soft.sum()).tolist())
    soft[1] = 0
    close(table("softmax", temperature=2.0).probabilities(q, allowed), (soft / soft.sum()).tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_compiled_probabilities_equal_torch(kind):
    policy, q, allowed = table(*kind), torch.randn(100, 4, generator=numbers(5), dtype=torch.float64), masks(100, 4)
    expected = policy.probabilities(q, allowed)
    out = np.zeros(4)
    for i in range(100):
        best = exploration.probabilities(q[i].numpy(), allowed[i].numpy(), policy.exploration.numpy(), out)
        np.testing.assert_allclose(out, expected[i], atol=1e-12)
        assert best == torch.where(allowed[i], q[i], -torch.inf).argmax()


def test_softmax_of_large_values_is_finite():
    policy = table("softmax", temperature=1e-3)
    policy.q.weight[:, 0] = torch.tensor([1e6, -1e6, 1e6 - 1, 0])
    assert policy.probabilities(policy.q(torch.tensor([0])))[0].tolist() == [1, 0, 0, 0]
    noise = np.array([[0.5, 0.999]])
    assert policy.actor(1)(np.array([0]), None, np.zeros(1, bool), noise)[0]["action"] == [0]


def test_the_last_number_below_one_chooses_an_allowed_action():
    which = np.nextafter(1.0, 0.0)
    for kind in KINDS[1:]:
        policy = table(*kind, actions=7)
        allowed = torch.tensor([[True, True, True, True, True, False, False]])
        noise = torch.tensor([[0.0, which]], dtype=torch.float64)
        first = torch.zeros(1, dtype=torch.bool)
        action = policy.act(torch.tensor([0]), None, first, noise, allowed)[0]["action"]
        came = policy.actor(1)(np.array([0]), None, first.numpy(), noise.numpy(), allowed.numpy())[0]["action"]
        assert action < 5 and came < 5


def test_noise_is_drawn_from_the_generator_only_where_it_is_needed():
    generator = numbers(0)
    before = generator.get_state()
    assert not table(epsilon=0.0).noise((3, 2), generator).any()
    assert torch.equal(generator.get_state(), before)
    noise = table(epsilon=0.1).noise((3, 2), generator)
    assert noise.shape == (3, 2, 2) and noise.dtype == torch.float64 and noise.any()


def test_acting_changes_nothing_and_the_policy_holds_no_trace():
    """The ancestor's policy decayed and zeroed the learner's traces, and decayed epsilon, whenever it was asked for an action."""
    policy = table(epsilon=0.5)
    assert set(policy.state_dict()) == {"q.weight", "exploration"}
    before = {key: value.clone() for key, value in policy.state_dict().items()}
    actor = policy.actor(1)
    for noise in (np.array([[0.0, 0.5]]), np.array([[0.9, 0.5]]), None):
        for _ in range(3):
            actor(np.array([1]), None, np.zeros(1, bool), noise)
    assert all(torch.equal(value, before[key]) for key, value in policy.state_dict().items())


def test_actions_must_be_discrete():
    with pytest.raises(
        Incompatible, match="action values need Discrete actions, got Box.*; use an agent with a continuous"
    ):
        Greedy(nn.Identity(), spaces.Box(-1, 1, (1,)))


def test_linear_values_read_observations_as_they_are():
    q = LinearQ(OneHot(spaces.Discrete(3)), 2)
    with pytest.raises(Incompatible, match="read observations as they are"):
        Greedy(q, spaces.Discrete(2), normalizer=Normalizer((3,)))
