"""Encoders of the user's: what they see, what they must give, and that every agent that has a place for one trains with it."""

import re

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from tests.cases import each
from whorl.agents.ppo import PPO
from whorl.envs.adapters.spaces import observations
from whorl.errors import BadInput, Incompatible
from whorl.nets.encoder import Encoder, Torso, encoder_for, notices, torso
from whorl.nets.heads import Critic
from whorl.nets.normalizer import observation_normalizer
from whorl.options import override
from whorl.policies.stochastic import Stochastic
from whorl.spaces import flatten, zeros
from whorl.training.catalog import AGENTS, agent_class
from whorl.training.new_agent import new_agent

SPACE = spaces.Dict(eye=spaces.Box(0, 255, (6, 6, 3), np.uint8), speed=spaces.Box(-1, 1, (2,)))
BOX, DISCRETE = spaces.Box(-2, 2, (2,)), spaces.Discrete(3)
ON_BOX = ("ddpg", "td3", "sac", "redq", "crossq", "tqc")


class Both(nn.Module):
    """A convolution for the eye, the speed as it is."""

    def __init__(self, space):
        super().__init__()
        self.look = nn.Conv2d(space["eye"].shape[-1], 4, 3)
        self.width = 4 + space["speed"].shape[0]

    def forward(self, observation):
        pixels = observation["eye"].permute(0, 3, 1, 2) / 255  # one axis of rows: Conv2d takes no more
        return torch.cat([self.look(pixels).relu().mean((2, 3)), observation["speed"]], -1)


class Lazy(nn.Module):
    width = 5

    def __init__(self, space):
        super().__init__()
        self.layer = nn.LazyLinear(5)

    def forward(self, observation):
        return self.layer(observation)


def test_any_leading_axes_are_one_axis_of_rows_for_the_users_module():
    torso = Torso(SPACE, Both(SPACE))
    for rows in ((), (5,), (2, 3), (2, 0, 3)):
        assert torso(zeros(SPACE, rows)).shape == (*rows, 6)
    frames = {"eye": torch.randint(256, (2, 3, 6, 6, 3), dtype=torch.uint8), "speed": torch.randn(2, 3, 2)}
    torch.testing.assert_close(torso(frames)[1, 2], torso({key: x[1, 2] for key, x in frames.items()}))
    assert notices(torso) == [
        "Both looks at observations, in the place of the policy's hidden layers and their activation"
    ]
    turned = dict(reversed(frames.items()))  # keys in the order of an environment's, not of its space
    torch.testing.assert_close(torso(turned), torso(frames))
    assert Torso(BOX, Lazy(BOX))(torch.zeros(4, 2)).shape == (4, 5)


class Narrow(nn.Linear):
    width = 4

    def __init__(self):
        super().__init__(3, 4)


class Numpy(nn.Linear):
    width = np.int64(3)


class Squeezed(nn.Linear):
    width = 1

    def forward(self, observation):
        return super().forward(observation).squeeze(0)


class Wrong(nn.Module):
    def __init__(self, width=None, gives=None):
        super().__init__()
        self.gives = gives
        if width is not None:
            self.width = width

    def forward(self, observation):
        return self.gives


def test_a_module_that_is_no_encoder_is_named():
    cases = [
        (nn.Linear(2, 3), "Linear does not"),
        (lambda x: x, "says in `width` how many features it gives; function is no module"),
        (Wrong("3", torch.zeros(2, 3)), r"Wrong does not \(it says '3'\)"),
        (Wrong(3, torch.zeros(2, 4)), r"must give float32 \[rows, width\] = \(2, 3\) for 2 rows of .*got float32 \(2, 4\)"),
        (Wrong(3, torch.zeros(3)), r"got float32 \(3,\)"),
        (Wrong(3, torch.zeros(2, 3, dtype=torch.float64)), r"got float64 \(2, 3\)"),
        (Squeezed(2, 1), r"= \(1, 1\) for 1 row of Box\(2\), got float32 \(1,\)"),
        (Wrong(3, (1, 2)), "must give one tensor, got a tuple"),
    ]  # fmt: skip
    for module, words in each(cases):
        with pytest.raises(BadInput, match=words):
            Torso(BOX, module)


def test_what_makes_no_network_for_a_space_is_named():
    for factory, words in each([
        (Both(SPACE), "got a finished Both"),
        ("Both", "a class or a function, observation space -> nn.Module, .* got 'Both'"),
        (lambda: Both(SPACE), "called with one argument, the observation space; .*<lambda> does not take that"),
    ]):  # fmt: skip
        with pytest.raises(BadInput, match=words):
            encoder_for(SPACE, factory, (8,), "tanh")
    with pytest.raises(RuntimeError) as raised:
        encoder_for(BOX, lambda space: Torso(space, Narrow()), (8,), "tanh")
    assert raised.value.__notes__ == ["the encoder Narrow was tried on zeros, rows of Box(2)"]
    made = Torso(SPACE, Both(SPACE))
    assert type(Torso(BOX, Numpy(2, 3)).width) is int
    assert torso(lambda space: made, SPACE) is made  # once around the user's


def test_every_agent_takes_an_encoder_for_policy_and_critic_or_says_why_not():
    takes = set()
    for name in each(AGENTS):
        cls, space = agent_class(name), BOX if name in ON_BOX else DISCRETE
        config = small(name, cls)
        try:
            agent = cls.build(SPACE, space, config, encoder=Both)
        except Incompatible as reason:
            assert "has no place for an encoder: leave `encoder` out" in str(reason)
            continue
        takes.add(name)
        own = [module for module in agent.modules() if isinstance(module, Both)]
        critics = [c for c in ("critic", "target", "target_policy") if getattr(agent, c, None) is not None]
        assert len(own) == 1 + len(critics)
        weights = [module.look.weight for module in own]
        assert len({id(weight) for weight in weights}) == len(own)
        assert agent.policy.act(zeros(SPACE, (4,)), agent.policy.initial(4), torch.ones(4, dtype=torch.bool), None)
        assert agent.value(zeros(SPACE, (4,))).shape == (4,)
    assert set(AGENTS) - takes == {"cem", "random", "td"}


def small(name, cls):
    sizes = {"hidden": (8,), "critic_hidden": (8,), "critics": 2}
    return override(
        cls.Config(), {key: value for key, value in sizes.items() if key in cls.Config.__dataclass_fields__}
    )


class LazyEye(nn.Module):
    """Layers by their outputs alone: what comes in is seen when the part is built."""

    width = 7

    def __init__(self, space):
        super().__init__()
        self.look = nn.Sequential(nn.LazyConv2d(4, 3), nn.Tanh(), nn.Flatten(), nn.LazyLinear(7))

    def forward(self, observation):
        return self.look(observation["eye"].permute(0, 3, 1, 2) / 255)


@pytest.mark.parametrize("name", ["ppo", "dqn"])
def test_lazy_layers_have_their_sizes_when_the_agent_is_built(name):
    cls = agent_class(name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        agent = cls.build(SPACE, DISCRETE, small(name, cls), encoder=LazyEye)
    shapes = [module.look[0].weight.shape for module in agent.modules() if isinstance(module, LazyEye)]
    assert shapes == [(4, 3, 3, 3)] * 2
    assert not any(p.is_inference() for p in agent.parameters())
    held = {id(p) for optimizer in agent.optimizers().values() for p in optimizer.param_groups[0]["params"]}
    assert {id(p) for p in agent.policy.parameters()} <= held


def test_lazy_layers_that_have_seen_nothing_are_named_before_anybody_acts():
    lazy = nn.Sequential(nn.LazyLinear(8), nn.Tanh())
    lazy.width = 8
    with pytest.raises(
        BadInput,
        match=r"lazy layers that have no size yet: whorl.nets.encoder.Torso\(observation_space, module\) shows",
    ):
        PPO(Stochastic(lazy, DISCRETE), Critic(BOX))
    torso = Torso(BOX, lazy)
    agent = PPO(Stochastic(torso, DISCRETE), Critic(BOX))
    assert agent.policy.encoder.module[0].weight.shape == (8, 2)
    agent.extra = nn.LazyLinear(2)  # of an agent of the user's, which has optimizers of its own
    with pytest.raises(BadInput, match="lazy layers that have no size yet"):
        new_agent(agent, None, agent.config, 0)


def test_bytes_that_are_no_image_are_scaled_and_frames_of_two_axes_go_through_a_cnn():
    ram = spaces.Box(0, 255, (128,), np.uint8)
    full = torch.full((3, 128), 255, dtype=torch.uint8)
    assert torch.equal(flatten(ram, full), torch.ones(3, 128))
    for space, size, words in each(
        [
            (ram, 128, [r"uint8 Box\(128\) are no images for the CNN"]),
            (spaces.Box(0, 255, (7, 7, 3), np.uint8), 147, ["scaled by 1/255"]),
            (spaces.Box(0, 255, (30, 30, 3), np.uint8), 2700, ["scaled by 1/255"]),
            (spaces.Box(0, 255, (84, 84), np.uint8), None, [r"uint8 Box\(84, 84\) go through a CNN"]),
            (spaces.Box(-1, 1, (4,)), 4, []),
            (spaces.Box(-1, 1, (4, 6)), 24, []),
            (
                spaces.Box(0, 1, (32, 32, 3)),
                3072,
                [r"float32 Box\(32, 32, 3\) look like images, .* plain vectors of 3,072"],
            ),
        ]
    ):
        encoder = Encoder(space, (8,))
        features = encoder(torch.from_numpy(np.stack([space.sample() for _ in range(64)])))
        assert features.shape == (64, encoder.width)
        assert len(encoder.notices) == len(words) and all(map(re.search, words, encoder.notices))
        if size is None:
            assert len(encoder.cnns) == 1 and encoder.cnns[0].convolutions[0].in_channels == 1
        elif size < 2000:
            assert (features.abs() < 0.99).float().mean() > 0.9  # of raw bytes 99% of tanh were saturated


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32])
def test_normalized_bytes_and_integers(dtype):
    space = spaces.Box(0, 255, (8,), dtype)
    normalizer = observation_normalizer(observations(space)[0])
    rows = torch.from_numpy(np.stack([observations(space)[1](space.sample()) for _ in range(200)]))
    normalizer.merge(normalizer.moments(rows))
    seen = normalizer(rows)
    torch.testing.assert_close(seen.mean(0), torch.zeros(8), rtol=0, atol=1e-4)
    torch.testing.assert_close(seen.std(0, correction=0), torch.ones(8), rtol=0, atol=1e-4)
    assert Encoder(space, (8,))(seen).shape == (200, 8)
