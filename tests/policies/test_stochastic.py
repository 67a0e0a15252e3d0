"""The stochastic policy: every space, masks, heads and their densities, saving."""

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from whorl.errors import BadInput, Incompatible
from whorl.nets.encoder import Encoder
from whorl.nets.heads import Critic
from whorl.nets.mlp import MLP
from whorl.policies.mixed import stochastic_for
from whorl.policies.random import Random
from whorl.policies.stochastic import Stochastic

BOX = spaces.Box(-1, 1, (4,), np.float32)
ACTIONS = {
    "discrete": spaces.Discrete(3),
    "multi": spaces.MultiDiscrete([2, 3]),
    "binary": spaces.MultiBinary(3),
    "box": spaces.Box(np.float32([-1, 2]), np.float32([3, 4])),
}
ACTIONS["mixed"] = spaces.Tuple((ACTIONS["multi"], ACTIONS["box"]))


def make(observation_space, action_space, **fields):
    return stochastic_for(action_space).build(observation_space, action_space, **fields)


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


@pytest.mark.parametrize("action", ["discrete", "multi"])
def test_masked_actions_are_never_taken(action):
    policy = make(BOX, ACTIONS[action])
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

    policy = make(SPACES[kind], ACTIONS["discrete"], normalize=normalize)
    for shape in ((3,), (2, 3)):
        features = policy.encode({"observation": zeros(SPACES[kind], shape)})
        assert features.shape[:-1] == shape
        assert policy.distribution(features).log_prob(torch.zeros(shape, dtype=torch.int64)).shape == shape
    one = to_tensors(zeros(SPACES[kind], (3,)))
    decided, _ = policy.actor(3)(one, None, torch.zeros(3, dtype=torch.bool), None)
    assert decided["action"].shape == (3,)


def test_refuses_what_it_cannot_do():
    unbounded = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    with pytest.raises(Incompatible, match="squashed Gaussian needs finite action bounds.*use squash=False"):
        make(BOX, unbounded, squash=True)
    with pytest.raises(Incompatible, match="scaled Gaussian needs finite action bounds.*use scale=False"):
        make(BOX, unbounded, scale=True)
    with pytest.raises(Incompatible, match=r"got Dict\(a: Discrete\(2\)\)"):
        make(BOX, spaces.Dict(a=spaces.Discrete(2)))
    with pytest.raises(Incompatible, match="bounded Box"):
        Random(spaces.Box(-np.inf, np.inf, (1,), np.float32))


def test_normalizer_travels_with_the_policy():
    a, b = (make(BOX, ACTIONS["box"], normalize=True) for _ in range(2))
    a.normalizer.merge(a.normalizer.moments(torch.randn(500, 4) * 5 + 3))
    b.load_state_dict(a.state_dict())
    x = {"observation": torch.randn(6, 4)}
    assert torch.equal(a.distribution(a.encode(x)).mode, b.distribution(b.encode(x)).mode)


@pytest.mark.parametrize("action", [name for name in ACTIONS if name != "mixed"])
def test_random_policy_stays_in_the_space_and_obeys_masks(action):
    policy, space = Random(ACTIONS[action]), ACTIONS[action]
    noise = policy.noise((500,), torch.Generator().manual_seed(0))
    actions = policy.act(None, None, torch.zeros(500, dtype=torch.bool), noise)[0]["action"].numpy()
    assert all(space.contains(a.astype(space.dtype)) for a in actions)
    assert len(np.unique(actions)) > 1
    if action == "discrete":
        mask = torch.tensor([[False, True, False]]).repeat(500, 1)
        assert (policy.act(None, None, torch.zeros(500, dtype=torch.bool), noise, mask)[0]["action"] == 1).all()


def test_composed_by_hand_is_what_build_makes():
    head = {"std": "fixed", "fixed_std": 0.5, "mean": "tanh", "scale": True}
    torch.manual_seed(3)
    built = Stochastic.build(BOX, ACTIONS["box"], hidden=(10,), activation="relu", **head)
    torch.manual_seed(3)
    model = Encoder(BOX, (10,), "relu")
    composed = Stochastic(model, ACTIONS["box"], **head)
    assert composed.encoder is model
    for (key, a), (other, b) in zip(built.state_dict().items(), composed.state_dict().items(), strict=True):
        assert key == other and torch.equal(a, b)


def test_any_module_with_a_width_is_a_model():
    policy = Stochastic(MLP(4, (10,)), ACTIONS["discrete"])
    slow, fast = act_both(policy)
    assert torch.equal(slow["action"], fast["action"])
    with pytest.raises(
        BadInput, match="the model of a policy says in `width` how many features it gives; Linear does not"
    ):
        Stochastic(torch.nn.Linear(4, 10), ACTIONS["discrete"])


def test_options_that_nothing_would_read_are_refused():
    for fields, text in (
        ({"std": "learned"}, "std must be one of 'independent', 'dependent', 'fixed', got 'learned'"),
        ({"mean": "softmax"}, "mean must be one of 'linear', 'tanh', got 'softmax'"),
        ({"initialization": "xavier"}, "initialization must be 'orthogonal' or 'uniform', got 'xavier'"),
        ({"std": "fixed", "fixed_std": 0.0}, "fixed_std .* must be above 0, got 0.0"),
        ({"scale": True, "squash": True}, "scale and squash both map .*: choose one"),
    ):
        with pytest.raises(BadInput, match=text):
            make(BOX, ACTIONS["box"], **fields)


def test_uniform_initialization_is_torch_s():
    """Every layer, encoder, head and critic, weights and biases: U(-1/sqrt(inputs), 1/sqrt(inputs))."""
    space = spaces.Dict(camera=SPACES["image"], body=BOX)
    torch.manual_seed(0)
    fields = {"hidden": (200, 100), "initialization": "uniform"}
    for module in (make(space, ACTIONS["box"], **fields), Critic(space, **fields)):
        for layer in module.modules():
            if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
                bound = 1 / math.sqrt(layer.weight[0].numel())
                assert 0.7 * bound < layer.weight.abs().max() <= bound and layer.bias.abs().max() <= bound
                if layer.weight.numel() > 1000:
                    assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_a_fixed_std_is_not_learned():
    policy = make(BOX, ACTIONS["box"], std="fixed", fixed_std=0.25)
    assert "log_std" not in dict(policy.named_parameters())
    assert policy.distribution(torch.zeros(1, 64)).log_std.exp().flatten().tolist() == pytest.approx([0.25, 0.25])


def test_no_centre_offset():
    """torch-twrl multiplied by half the range and forgot the centre: right for symmetric bounds only."""
    policy = make(BOX, spaces.Box(np.float32([0, -3]), np.float32([10, 1])), scale=True, std="fixed", fixed_std=0.5)
    with torch.no_grad():
        policy.head.weight.zero_()
        policy.head.bias.copy_(torch.tensor([0.0, 0.5]))
    d = policy.distribution(torch.zeros(1, 64))
    assert d.mode.tolist() == [[5.0, 0.0]]  # -1 + 2 * 0.5
    assert d.sample(torch.ones(1, 2)).tolist() == [[7.5, 1.0]]  # 5 + 5 * (0 + 0.5), -1 + 2 * (0.5 + 0.5)


def test_the_head_is_not_always_a_softmax():
    """torch-twrl: a softmax over the one output of a one-dimensional Box is the constant 1, with no gradient."""
    policy = make(BOX, spaces.Box(-2, 2, (1,), np.float32), scale=True, mean="tanh", initialization="uniform")
    d = policy.distribution(policy.encode({"observation": torch.randn(200, 4)}))
    assert d.mode.std() > 0 and (d.mode < 0).any() and (d.mode.abs() < 2).all()
    d.log_prob(torch.ones(200, 1)).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in policy.parameters())


HEADS = {
    "categorical": ("discrete", {}),
    "multi-categorical": ("multi", {}),
    "masked": ("discrete", {}),
    "gaussian, independent": ("box", {}),
    "gaussian, dependent": ("box", {"std": "dependent"}),
    "gaussian, fixed": ("box", {"std": "fixed", "fixed_std": 0.4}),
    "gaussian, tanh mean": ("box", {"mean": "tanh"}),
    "gaussian, scaled": ("box", {"scale": True}),
    "gaussian, all of torch-twrl's": ("box", {"scale": True, "mean": "tanh", "std": "fixed", "fixed_std": 0.5}),
    "squashed": ("box", {"squash": True}),
    "squashed, dependent": ("box", {"squash": True, "std": "dependent"}),
    "mixed": ("mixed", {}),
    "mixed, all": ("mixed", {"squash": True, "std": "dependent"}),
}


@pytest.mark.parametrize("head", HEADS)
def test_gradients_by_finite_differences(head):
    """log_prob and entropy of every head, with respect to every parameter, in float64."""
    action, fields = HEADS[head]
    torch.manual_seed(0)
    policy = make(BOX, ACTIONS[action], hidden=(5,), initialization="uniform", **fields).double()
    g = torch.Generator().manual_seed(1)
    observation = torch.randn(3, 4, dtype=torch.float64, generator=g)
    mask = torch.tensor([[True, False, True]]).repeat(3, 1) if head == "masked" else None
    first = torch.zeros(3, dtype=torch.bool)
    with torch.no_grad():
        taken = policy.act(observation, None, first, policy.noise((3,), g).double(), mask)[0]["action"]
    names = [name for name, _ in policy.named_parameters()]

    def of(what):
        def f(*weights):
            door = dict(zip(names, weights, strict=True))
            return torch.func.functional_call(Door(policy, what), {f"policy.{k}": v for k, v in door.items()}, ())

        return f

    def log_prob():
        return policy.distribution(policy.encode({"observation": observation}), mask).log_prob(taken)

    def entropy():
        return policy.distribution(policy.encode({"observation": observation}), mask).entropy()

    weights = tuple(p.detach().clone().requires_grad_() for p in policy.parameters())
    assert torch.autograd.gradcheck(of(log_prob), weights, eps=1e-6, atol=1e-6)
    if fields.get("std") == "fixed":
        assert not entropy().requires_grad  # a constant
    else:
        assert torch.autograd.gradcheck(of(entropy), weights, eps=1e-6, atol=1e-6)


class Door(torch.nn.Module):
    """functional_call enters a module through its forward."""

    def __init__(self, policy, f):
        super().__init__()
        self.policy, self.f = policy, f

    def forward(self):
        return self.f()


@pytest.mark.parametrize("head", [name for name, (action, _) in HEADS.items() if action == "box"])
def test_log_prob_is_a_density_of_the_action(head):
    """Monte Carlo: E[exp(-log_prob) inside a box of actions] is the size of that box, so no Jacobian is missing."""
    torch.manual_seed(0)
    policy = make(BOX, ACTIONS["box"], **HEADS[head][1])
    n = 200_000
    noise = policy.noise((n,), torch.Generator().manual_seed(0))
    with torch.no_grad():
        decided = policy.act(torch.zeros(n, 4), None, torch.zeros(n, dtype=torch.bool), noise)[0]
    centre = torch.tensor([1.0, 3.0] if HEADS[head][1].get("scale") or "squash" in HEADS[head][1] else [0.0, 0.0])
    inside = ((decided["action"] - centre).abs() < 0.25).all(-1)
    size = (decided["log_prob"].neg().exp() * inside).mean().item()
    assert size == pytest.approx(0.25, rel=0.03)
