"""Images and Dicts with images for agents of observation and action; what a run says of bytes."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

import whorl
from tests.cases import each
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.options import override
from whorl.training.build import build
from whorl.training.catalog import default_config

EYE = spaces.Box(0, 255, (36, 36, 1), np.uint8)


class Lamp(gymnasium.Env):
    """One step: the best action is +1/2 where the lamp is on and -1/2 where it is off; the reward is -4 (action - best)^2."""

    action_space = spaces.Box(-1, 1, (1,))

    def __init__(self, nested=False):
        self.nested = nested
        self.observation_space = spaces.Dict(eye=EYE, speed=spaces.Box(-5, 5, (1,))) if nested else EYE

    def _seen(self):
        self.on = bool(self.np_random.integers(2))
        eye = np.full((36, 36, 1), 255 if self.on else 0, np.uint8)
        return {"eye": eye, "speed": self.np_random.uniform(-5, 5, 1).astype(np.float32)} if self.nested else eye

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return self._seen(), {}

    def step(self, action):
        reward = -4 * float((action[0] - (0.5 if self.on else -0.5)) ** 2)
        return self._seen(), reward, True, False, {}


class Ram(gymnasium.Env):
    observation_space, action_space = spaces.Box(0, 255, (128,), np.uint8), spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        return np.full(128, 255, np.uint8), {}

    def step(self, action):
        return np.full(128, 255, np.uint8), 1.0, False, True, {}


def parts(name, env, normalize=False, **fields):
    feed = {"warmup": 50, "capacity": 1000, "batch_size": 32, "replay_ratio": 0.5, "normalize_observation": normalize}
    small = {"hidden": (16,), "critic_hidden": (16,), "critics": 2, "quantiles": 5, **fields}
    config = default_config(name)
    small = {key: value for key, value in small.items() if key in type(config).__dataclass_fields__}
    return build(name, Gymnasium(env), override(config, {"feed": feed, **small}), seed=1)


@pytest.mark.learning
def test_sac_learns_from_images():
    rates = {"learning_rate": 1e-3, "critic_learning_rate": 1e-3, "target_rate": 0.05}
    sac = parts("sac", Lamp(), hidden=(64,), temperature=0.02, learn_temperature=False, **rates)
    sac.train(1600)
    lamps = torch.tensor([255, 0], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, *EYE.shape)
    with torch.no_grad():
        on, off = sac.agent.policy(lamps).flatten().tolist()
    assert on > 0.2 and off < -0.2  # blind, both would be one


def test_all_of_them_take_dicts_with_images_and_normalize_the_rest():
    for name in each(("ddpg", "td3", "sac", "redq", "crossq", "tqc")):
        made = parts(name, Lamp(nested=True), normalize=True, policy_delay=1)
        before = [p.clone() for p in made.agent.critic.parameters()]
        made.train(60)
        cnn = made.agent.critic.inputs.encoder.cnns[0]
        assert cnn is not made.agent.policy.encoder  # each looks by itself
        moved = [not torch.equal(a, b) for a, b in zip(before, made.agent.critic.parameters(), strict=True)]
        assert sum(moved) >= len(moved) - 1  # the CNN learns, too
        eye, speed = made.agent.policy.normalizer.parts
        assert not hasattr(eye, "mean") and float(speed.count) == 60


@pytest.mark.parametrize(
    "make, words", [(Ram, "uint8 Box(128) are no images"), (Lamp, "uint8 Box(36, 36, 1) go through a CNN")]
)
def test_a_run_says_what_it_does_with_bytes(make, words, tmp_path, capsys):
    whorl.train(
        "ppo", make(), total_steps=4, feed={"steps": 4, "epochs": 1, "minibatches": 1}, anneal_steps=0, runs=tmp_path
    )
    said = capsys.readouterr()
    assert (said.out + said.err).count(words) == 1
