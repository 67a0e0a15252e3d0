"""Every fast actor equals the `act` of its policy: random weights, observations, noise and masks, normalizer on and off.

Where an action is a choice among scores, weights and observations are multiples of 1/4 and the network is ReLU: its sums are then
exact on every machine, in whatever order they are added, and choices must be equal. Elsewhere equal means to rounding.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from whorl.nets.linear_q import LinearQ
from whorl.nets.mlp import MLP
from whorl.nets.normalizer import NoNormalizer, Normalizer, observation_normalizer
from whorl.nets.q import QNetwork
from whorl.nets.tile_coding import OneHot, Raw, TileCoding
from whorl.policies.deterministic import Deterministic
from whorl.policies.exploration import EPSILON
from whorl.policies.greedy import Greedy
from whorl.policies.mixed import Mixed
from whorl.policies.policy import Policy
from whorl.policies.population import Population
from whorl.policies.random import Random
from whorl.policies.squashed import Squashed
from whorl.policies.stochastic import Stochastic

N = 8
BOX = spaces.Box(-1, 1, (4,), np.float32)
ACTIONS = {
    "discrete": spaces.Discrete(3),
    "multi": spaces.MultiDiscrete([2, 3]),
    "binary": spaces.MultiBinary(3),
    "box": spaces.Box(np.float32([0, -3]), np.float32([10, 1])),
}
SLOW = "policy"  # no twin: `Policy.actor`


class Case(NamedTuple):
    make: Callable[[bool], Policy]  # normalize -> policy
    home: str  # the file of actors/ that acts, or SLOW
    exact: bool = False  # the network's sums are
    draw: Callable[[torch.Generator, bool], torch.Tensor] | None = None  # observations, if not of BOX
    normalizes: bool = True


def stochastic(action, home, exact=False, **fields):
    def make(normalize):
        activation = "relu" if exact else fields.get("activation", "tanh")
        options = {k: v for k, v in fields.items() if k != "activation"}
        return Stochastic.build(
            BOX, ACTIONS[action], hidden=(16, 8), activation=activation, normalize=normalize, **options
        )

    return Case(make, home, exact)


def squashed(home="squashed", **fields):
    fields = {"hidden": (16, 16), "activation": "relu", "sde_log_std": -1.0} | fields
    return Case(lambda normalize: Squashed.build(BOX, ACTIONS["box"], normalize=normalize, **fields), home)


def deterministic(noise, activation):
    fields = {"hidden": (16, 16), "activation": activation, "noise": noise, "std": 0.3}
    return Case(lambda n: Deterministic.build(BOX, ACTIONS["box"], normalize=n, **fields), "deterministic")


def network(kind, hidden=(16, 8), spread=0.0, dueling=False, home="greedy", **fields):
    def make(normalize):
        q = QNetwork(BOX, 4, hidden, dueling=dueling, **fields)
        normalizer = observation_normalizer(BOX, normalize)
        return Greedy(q, spaces.Discrete(4), *kind, epsilon_spread=spread, normalizer=normalizer)

    return Case(make, home, home != SLOW)


def population(action, hidden):
    return Case(lambda n: Population(BOX, ACTIONS[action], hidden, normalize_observation=n), "population")


def linear(kind, features, draw):
    actions = spaces.Discrete(4)
    return Case(lambda _: Greedy(LinearQ(features, 4), actions, *kind), "greedy", draw=draw, normalizes=False)


KINDS = {
    "epsilon": ("epsilon_greedy", 0.3, 1.0),
    "uniform": ("epsilon_greedy", 1.0, 1.0),
    "greedy": ("epsilon_greedy", 0.0, 1.0),
    "softmax": ("softmax", 0.1, 0.7),
}
UNIT = spaces.Box(0, 1, (2,))
MIXED = spaces.Tuple((spaces.MultiDiscrete([2, 3]), UNIT))
FEATURES = {
    "table": (OneHot(spaces.Discrete(6)), lambda g: torch.randint(6, (N,), generator=g)),
    "tiles": (TileCoding(UNIT, bias=True), lambda g: torch.rand(N, 2, generator=g)),
    "hashed": (TileCoding(UNIT, memory=128), lambda g: torch.rand(N, 2, generator=g)),
    "raw": (Raw(UNIT), lambda g: torch.rand(N, 2, generator=g)),
}
CASES = {
    "categorical": stochastic("discrete", "stochastic", True),
    "gaussian": stochastic("box", "stochastic"),
    "gaussian, relu": stochastic("box", "stochastic", activation="relu"),
    "gaussian, dependent": stochastic("box", "stochastic", std="dependent"),
    "gaussian, fixed": stochastic("box", "stochastic", std="fixed", fixed_std=0.5),
    "gaussian, tanh mean, scaled": stochastic("box", "stochastic", mean="tanh", scale=True),
    "gaussian, all": stochastic("box", "stochastic", mean="tanh", scale=True, std="dependent"),
    "multi-categorical": stochastic("multi", SLOW),
    "binary": stochastic("binary", SLOW),
    "gaussian, squashed": stochastic("box", SLOW, squash=True),
    "mixed": Case(lambda n: Mixed.build(BOX, MIXED, hidden=(16, 8), normalize=n), SLOW),
    "squashed": squashed(),
    "squashed, tanh": squashed(activation="tanh"),
    "sde": squashed(sde=True),
    "sde, renewed": squashed(sde=True, sde_every=3),
    "squashed, own encoder": squashed(SLOW, encoder=lambda space: MLP(4, (8,))),
    **{f"deterministic, {n}, {a}": deterministic(n, a) for n in ("gaussian", "ou") for a in ("relu", "tanh")},
    **{f"network, {kind}": network(KINDS[kind]) for kind in KINDS},
    "network, linear": network(KINDS["epsilon"], ()),
    "network, one layer, dueling": network(KINDS["softmax"], (16,), dueling=True),
    "network, dueling": network(KINDS["epsilon"], dueling=True),
    "network, spread": network(KINDS["epsilon"], spread=7.0),
    "network, noisy": network(KINDS["greedy"], home=SLOW, noisy=True),
    **{
        f"{name}, {kind}": linear(KINDS[kind], features, draw)
        for name, (features, draw) in FEATURES.items()
        for kind in KINDS
    },
    "any q": Case(lambda _: Greedy(nn.Linear(4, 3), spaces.Discrete(3), "softmax"), SLOW, normalizes=False),
    **{f"population, {a}, {h}": population(a, h) for a in ("discrete", "box") for h in ((), (5,), (4, 3))},
    **{f"random, {a}": Case(lambda _, a=a: Random(ACTIONS[a]), SLOW, normalizes=False) for a in ACTIONS},
}


@torch.no_grad()
def move(policy: Policy, g: torch.Generator, exact: bool) -> None:
    """Other numbers in every place that an actor may have a view of."""
    for name, tensor in [*policy.named_parameters(), *policy.named_buffers()]:
        fresh = torch.randn(tensor.shape, generator=g)
        if name == "log_std":
            tensor.copy_(-1 + 0.3 * fresh)
        elif name.split(".")[-1] in ("weight", "bias", "weight_sigma", "bias_sigma") or name == "mean":
            tensor.copy_((2 * fresh).round().clamp(-4, 4) / 4 if exact else 0.4 * fresh)
        elif name == "normalizer.mean":
            tensor.fill_(0.5)
        elif name == "normalizer.scale":
            tensor.fill_(0.25)


def masks(policy: Policy, g: torch.Generator) -> torch.Tensor | None:
    """Random masks that leave an action, for policies of one discrete action."""
    actions = getattr(policy, "actions", None) or (policy.outputs if getattr(policy, "scalar", False) else 0)
    actions = 3 if getattr(policy, "discrete", False) else actions
    if not actions:
        return None
    allowed = torch.rand(N, actions, generator=g) < 0.5
    allowed[torch.arange(N), torch.randint(actions, (N,), generator=g)] = True
    return allowed


@pytest.mark.parametrize(
    ("case", "normalize"), [(case, n) for case in CASES for n in (False, True) if not n or CASES[case].normalizes]
)
def test_actor_equals_act(case, normalize):
    make, home, exact, draw, _ = CASES[case]
    torch.manual_seed(0)
    policy, g = make(normalize), torch.Generator().manual_seed(1)
    assert isinstance(policy.normalizer, Normalizer if normalize else NoNormalizer)
    actor, slow_carry, fast_carry = policy.actor(N), policy.initial(N), policy.initial(N)
    assert actor.__module__ == ("whorl.policies.policy" if home == SLOW else f"whorl.policies.actors.{home}")
    for t in range(60):
        move(policy, g, exact)
        if isinstance(policy, Squashed | Deterministic):
            policy.warming.fill_(t < 5)
        if isinstance(policy, Greedy) and t % 10 == 9:
            policy.exploration[EPSILON] *= 0.8
        if draw is None:
            x = torch.randn(N, 4, generator=g)
            x = (4 * x).round().clamp(-16, 16) / 4 if exact else 2 * x
        else:
            x = draw(g)
        first = torch.rand(N, generator=g) < (0.2 if t else 2)
        noise = None if t % 7 == 6 else policy.noise((N,), g)
        allowed = masks(policy, g) if t % 2 and not isinstance(policy, Random) else None
        with torch.no_grad():
            slow, slow_next = policy.act(x, slow_carry, first, noise, allowed)
        arrays = (None if tensor is None else tensor.numpy() for tensor in (noise, allowed))
        fast, fast_next = actor(x.numpy(), fast_carry, first.numpy(), *arrays)
        equal(fast, slow)
        equal(fast_next or {}, slow_next or {})
        if noise is not None:  # a greedy step in between leaves the memory alone
            slow_carry, fast_carry = slow_next, fast_next
        if allowed is not None:
            assert allowed[torch.arange(N), slow["action"]].all()


def equal(fast, slow):
    assert set(fast) == set(slow)
    for key, expected in slow.items():
        came = np.asarray(fast[key])
        assert came.shape == expected.shape
        if expected.is_floating_point():
            atol = 2e-4 if key == "log_prob" else 1e-5
            np.testing.assert_allclose(came, expected, atol=atol, rtol=1e-5, err_msg=key)
        else:
            assert came.tolist() == expected.tolist(), key


def test_a_categorical_actor_of_tanh_layers_scores_as_act_does():
    """Its sums are rounded, so its choices are compared where one action wins clearly."""
    policy, g = stochastic("discrete", "stochastic").make(True), torch.Generator().manual_seed(0)
    actor, first, compared = policy.actor(N), torch.zeros(N, dtype=torch.bool), 0
    for _ in range(50):
        move(policy, g, False)
        x, noise = torch.randn(N, 4, generator=g), policy.noise((N,), g)
        with torch.no_grad():
            slow, _ = policy.act(x, None, first, noise)
            two = (policy.distribution(policy.encode({"observation": x})).logits + noise).topk(2).values
        fast, _ = actor(x.numpy(), None, first.numpy(), noise.numpy())
        clear = (two[:, 0] - two[:, 1] > 1e-4).numpy()
        assert (fast["action"] == slow["action"].numpy())[clear].all()
        np.testing.assert_allclose(fast["log_prob"][clear], slow["log_prob"][clear], atol=2e-4, rtol=1e-4)
        compared += clear.sum()
    assert compared > 300


def test_actors_draw_from_the_distribution():
    torch.manual_seed(1)
    policy = Stochastic.build(BOX, ACTIONS["discrete"])
    with torch.no_grad():
        policy.head.bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
    n = 1000
    noise = policy.noise((100, n), torch.Generator().manual_seed(0)).numpy()
    actor, zeros = policy.actor(n), np.zeros((n, 4), np.float32)
    counts = sum(np.bincount(actor(zeros, None, np.zeros(n, bool), x)[0]["action"], minlength=3) for x in noise)
    p = policy.distribution(policy.encode({"observation": torch.zeros(1, 4)})).logits.softmax(-1)[0].detach().numpy()
    assert ((counts - p * 100_000) ** 2 / (p * 100_000)).sum() < 13.8  # chi-square, 2 degrees of freedom, p = 0.001


@pytest.mark.parametrize("case", CASES)
def test_the_state_of_a_policy_is_all_that_it_acts_by(case):
    make, _, exact, draw, normalizes = CASES[case]
    one, other, g = make(normalizes), make(normalizes), torch.Generator().manual_seed(0)
    move(one, g, exact)
    arrays, numbers = one.state()
    assert numbers == {} and other.load_state({key: value.clone() for key, value in arrays.items()}, numbers)
    x, first = torch.randn(N, 4, generator=g) if draw is None else draw(g), torch.ones(N, dtype=torch.bool)
    noise = one.noise((N,), g)
    with torch.no_grad():
        came, expected = (policy.act(x, policy.initial(N), first, noise)[0] for policy in (other, one))
    assert all(torch.equal(came[key], expected[key]) for key in expected)
