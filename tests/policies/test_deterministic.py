"""The deterministic policy: bounds, its two kinds of noise, the uniform start."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from whorl.errors import BadInput, Incompatible
from whorl.nets.encoder import Encoder
from whorl.policies.deterministic import Deterministic

BOX = spaces.Box(-1, 1, (4,), np.float32)
UNEVEN = spaces.Box(np.float32([0, -3]), np.float32([10, 1]))
NEVER = torch.zeros(1, dtype=torch.bool)


def make(noise="gaussian", std=0.1, hidden=(16, 16), activation="relu", action_space=UNEVEN):
    torch.manual_seed(0)
    return Deterministic.build(BOX, action_space, hidden=hidden, activation=activation, noise=noise, std=std)


def constant(unit, **fields):
    """A policy whose greedy action is `unit`, in units of half the range around the centre."""
    policy = make(**fields)
    with torch.no_grad():
        policy.head.weight.zero_()
        policy.head.bias.copy_(torch.tensor(unit).atanh())
    return policy


def test_the_output_meets_the_bounds_of_the_box():
    """rlpyt's actors gave [-1, 1] whatever the environment's bounds were."""
    action = constant([0.5, -0.25])(torch.randn(3, 4))
    torch.testing.assert_close(action, torch.tensor([[7.5, -1.5]]).expand(3, 2))  # 5 + 5 * 0.5, -1 - 2 * 0.25
    policy = make()
    with torch.no_grad():
        policy.head.bias.copy_(torch.tensor([50.0, -50.0]))
    assert policy(torch.randn(1, 4)).tolist() == [[10.0, -3.0]]


def test_gaussian_noise_is_in_units_of_half_the_range_and_cut_at_the_bounds():
    policy = constant([0.5, -0.25], std=0.1)
    action = policy.act(torch.zeros(1, 4), None, NEVER, torch.tensor([[2.0, -1.0]]))[0]["action"]
    assert action.tolist()[0] == pytest.approx([5 + 5 * 0.7, -1 - 2 * 0.35])
    action = policy.act(torch.zeros(1, 4), None, NEVER, torch.tensor([[30.0, -30.0]]))[0]["action"]
    assert action.tolist() == [[10.0, -3.0]]


def test_ornstein_uhlenbeck_noise_by_hand():
    """x <- x - theta x dt + sigma sqrt(dt) z, theta 0.15, dt 0.01; fresh at an episode's start, in that environment only."""
    policy = constant([0.0, 0.0], noise="ou", std=0.2)
    carry, x = policy.initial(2), [0.0, 0.0]
    numbers = [[1.0, -2.0], [0.5, 1.0], [-1.0, 3.0]]
    starts = [[True, True], [False, False], [False, True]]
    for z, first in zip(numbers, starts, strict=True):
        x = [0.0 if f else v for v, f in zip(x, first, strict=True)]
        x = [v - 0.15 * v * 0.01 + 0.2 * math.sqrt(0.01) * w for v, w in zip(x, z, strict=True)]
        noise = torch.tensor(z)[:, None].expand(2, 2)
        decided, carry = policy.act(torch.zeros(2, 4), carry, torch.tensor(first), noise)
        assert decided["action"][:, 0].tolist() == pytest.approx([5 + 5 * v for v in x], abs=1e-6)
    assert carry["ou"][:, 1].tolist() == pytest.approx(x, abs=1e-7)
    assert (
        policy.act(torch.zeros(2, 4), carry, torch.tensor([False] * 2), None)[1]["ou"] is carry["ou"]
    )  # greedy: nothing moves


def test_the_start_is_uniform():
    policy, n = make(), 100_000
    policy.warming.fill_(True)
    noise = policy.noise((n,), torch.Generator().manual_seed(0))
    with torch.no_grad():
        action = policy.act(torch.randn(n, 4), None, torch.zeros(n, dtype=torch.bool), noise)[0]["action"].numpy()
    for d in range(2):
        counts, _ = np.histogram(action[:, d], 20, (UNEVEN.low[d], UNEVEN.high[d]))
        assert counts.sum() == n
        assert ((counts - n / 20) ** 2 / (n / 20)).sum() < 43.8  # chi-square, 19 degrees of freedom, p = 0.001


def test_gradients_by_finite_differences():
    policy = make(hidden=(5,), activation="tanh").double()
    observation = torch.randn(3, 4, dtype=torch.float64)
    names = [name for name, _ in policy.named_parameters()]

    def f(*weights):
        return torch.func.functional_call(policy, dict(zip(names, weights, strict=True)), (observation,))

    weights = tuple(p.detach().clone().requires_grad_() for p in policy.parameters())
    assert torch.autograd.gradcheck(f, weights, eps=1e-6, atol=1e-6)


def test_refuses_what_it_cannot_do():
    with pytest.raises(Incompatible, match=r"acts in one-axis Box spaces, got Discrete\(2\)"):
        make(action_space=spaces.Discrete(2))
    with pytest.raises(Incompatible, match="needs finite action bounds"):
        make(action_space=spaces.Box(-np.inf, np.inf, (1,), np.float32))
    with pytest.raises(BadInput, match="noise must be 'gaussian' or 'ou', got 'pink'"):
        Deterministic(Encoder(BOX), UNEVEN, noise="pink")
    with pytest.raises(BadInput, match="std is that of the exploration noise and must be at least 0, got -1"):
        make(std=-1)
    with pytest.raises(BadInput, match="says in `width` how many features it gives; Linear does not"):
        Deterministic(torch.nn.Linear(4, 10), UNEVEN)
