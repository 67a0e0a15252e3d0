"""The policy: every space, the numpy actor equal to `act`, masks, greedy, saving."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from whorl.errors import Incompatible
from whorl.policies.random import Random
from whorl.policies.stochastic import Stochastic

BOX = spaces.Box(-1, 1, (4,), np.float32)
ACTIONS = {
    "discrete": spaces.Discrete(3),
    "multi": spaces.MultiDiscrete([2, 3]),
    "binary": spaces.MultiBinary(3),
    "box": spaces.Box(-1, 1, (2,), np.float32),
}


def act_both(policy, n=8, seed=0, mask=None, greedy=False):
    g = torch.Generator().manual_seed(seed)
    observation = torch.randn(n, 4, generator=g)
    noise = None if greedy else policy.noise((n,), g)
    first = torch.zeros(n, dtype=torch.bool)
    with torch.no_grad():
        slow, _ = policy.act(observation, None, first, noise, mask)
    arrays = (observation.numpy(), None, first.numpy(), None if greedy else noise.numpy())
    fast, _ = policy.actor(n)(*arrays, None if mask is None else mask.numpy())
    return slow, {key: torch.as_tensor(value) for key, value in fast.items()}


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    "options", [{}, {"normalize_observation": True}, {"activation": "relu"}, {"std": "dependent"}, {"squash": True}]
)
def test_actor_equals_act(action, options, greedy):
    torch.manual_seed(0)
    policy = Stochastic(BOX, ACTIONS[action], **options).eval()
    with torch.no_grad():  # far from the near-uniform start, and with moved statistics
        policy.head.weight.mul_(100)
        if options.get("normalize_observation"):
            policy.normalizer.merge(policy.normalizer.moments(torch.randn(100, 4) * 3 + 1))
    for seed in range(20):
        slow, fast = act_both(policy, seed=seed, greedy=greedy)
        if action == "box":
            torch.testing.assert_close(fast["action"], slow["action"], atol=1e-5, rtol=1e-5)
        else:
            assert torch.equal(fast["action"], slow["action"])
        torch.testing.assert_close(fast["log_prob"], slow["log_prob"], atol=2e-4, rtol=1e-4)


def test_numpy_actor_is_used_and_sees_weights_change():
    policy = Stochastic(BOX, ACTIONS["discrete"])
    actor = policy.actor(2)
    assert actor.__module__.endswith("numpy_actor")
    with torch.no_grad():
        policy.head.bias.copy_(torch.tensor([0.0, 50.0, 0.0]))
    decided, _ = actor(np.zeros((2, 4), np.float32), None, np.zeros(2, bool), None)
    assert decided["action"].tolist() == [1, 1]


def test_actor_in_distribution():
    torch.manual_seed(1)
    policy = Stochastic(BOX, ACTIONS["discrete"])
    with torch.no_grad():
        policy.head.bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
    n = 1000
    noise = policy.noise((100, n), torch.Generator().manual_seed(0)).numpy()
    actor, zeros = policy.actor(n), np.zeros((n, 4), np.float32)
    counts = sum(np.bincount(actor(zeros, None, np.zeros(n, bool), x)[0]["action"], minlength=3) for x in noise)
    p = policy.distribution(policy.encode({"observation": torch.zeros(1, 4)})).logits.softmax(-1)[0].detach().numpy()
    assert ((counts - p * 100_000) ** 2 / (p * 100_000)).sum() < 13.8  # chi-square, 2 degrees of freedom, p = 0.001


@pytest.mark.parametrize("action", ["discrete", "multi"])
def test_masked_actions_are_never_taken(action):
    policy = Stochastic(BOX, ACTIONS[action])
    mask = torch.tensor([[False, True, True]] if action == "discrete" else [[False, True, True, False, True]]).repeat(
        8, 1
    )
    for seed in range(30):
        for result in act_both(policy, seed=seed, mask=mask):
            assert (result["action"] != 0).all() if action == "discrete" else (result["action"][:, 0] == 1).all()


SPACES = {
    "image": spaces.Box(0, 255, (84, 84, 4), np.uint8),
    "image, channels first": spaces.Box(0, 255, (4, 84, 84), np.uint8),
    "discrete": spaces.Discrete(5),
    "multi-discrete": spaces.MultiDiscrete([3, 4]),
    "binary": spaces.MultiBinary(6),
    "matrix": spaces.Box(-1, 1, (3, 4), np.float32),
    "dict": spaces.Dict(
        camera=spaces.Box(0, 255, (36, 36, 3), np.uint8),
        body=spaces.Dict(speed=spaces.Box(-1, 1, (2,), np.float32), gear=spaces.Discrete(6)),
    ),
}


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("kind", SPACES)
def test_every_observation_space(kind, normalize):
    from whorl.spaces import to_tensors, zeros

    policy = Stochastic(SPACES[kind], ACTIONS["discrete"], normalize_observation=normalize)
    for shape in ((3,), (2, 3)):
        features = policy.encode({"observation": zeros(SPACES[kind], shape)})
        assert features.shape[:-1] == shape
        assert policy.distribution(features).log_prob(torch.zeros(shape, dtype=torch.int64)).shape == shape
    one = to_tensors(zeros(SPACES[kind], (3,)))
    decided, _ = policy.actor(3)(one, None, torch.zeros(3, dtype=torch.bool), None)
    assert decided["action"].shape == (3,)


def test_refuses_what_it_cannot_do():
    with pytest.raises(Incompatible, match="squashed Gaussian needs finite action bounds"):
        Stochastic(BOX, spaces.Box(-np.inf, np.inf, (1,), np.float32), squash=True)
    with pytest.raises(Incompatible, match=r"got Dict\(a: Discrete\(2\)\)"):
        Stochastic(BOX, spaces.Dict(a=spaces.Discrete(2)))
    with pytest.raises(Incompatible, match="bounded Box"):
        Random(spaces.Box(-np.inf, np.inf, (1,), np.float32))


def test_normalizer_travels_with_the_policy():
    a, b = (Stochastic(BOX, ACTIONS["box"], normalize_observation=True) for _ in range(2))
    a.normalizer.merge(a.normalizer.moments(torch.randn(500, 4) * 5 + 3))
    b.load_state_dict(a.state_dict())
    x = {"observation": torch.randn(6, 4)}
    assert torch.equal(a.distribution(a.encode(x)).mode, b.distribution(b.encode(x)).mode)


@pytest.mark.parametrize("action", ACTIONS)
def test_random_policy_stays_in_the_space_and_obeys_masks(action):
    policy, space = Random(ACTIONS[action]), ACTIONS[action]
    noise = policy.noise((500,), torch.Generator().manual_seed(0))
    actions = policy.act(None, None, torch.zeros(500, dtype=torch.bool), noise)[0]["action"].numpy()
    assert all(space.contains(a.astype(space.dtype)) for a in actions)
    assert len(np.unique(actions)) > 1
    if action == "discrete":
        mask = torch.tensor([[False, True, False]]).repeat(500, 1)
        assert (policy.act(None, None, torch.zeros(500, dtype=torch.bool), noise, mask)[0]["action"] == 1).all()
