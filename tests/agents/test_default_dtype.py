"""whorl's numbers are float32 (and float64 where it says so), whatever torch's default dtype is."""

import pytest
import torch

from tests.cases import each
from whorl.options import override
from whorl.training.build import build
from whorl.training.catalog import AGENTS, default_config

ON_BOX = ("ddpg", "td3", "sac", "redq", "crossq", "tqc")
SMALL = {"hidden": (8,), "critic_hidden": (8,), "critics": 2, "policy_delay": 1}
REPLAY = {"warmup": 8, "capacity": 64, "batch_size": 8, "normalize_observation": True}
CASES = [(name, {}) for name in AGENTS if name != "a3c"]  # which is a2c
CASES += [("sac", {"sde": True}), ("td3", {"noise": "ou"}), ("ppo", {"normalize_observation": True})]


@pytest.fixture
def double():
    before = torch.get_default_dtype()
    yield lambda: torch.set_default_dtype(torch.float64)
    torch.set_default_dtype(before)


def learned(name, fields):
    config = default_config(name)
    own = {key: value for key, value in SMALL.items() if key in type(config).__dataclass_fields__}
    config = override(config, own | fields | ({"feed": REPLAY} if config.feed.replays else {}))
    env = "Pendulum-v1" if name in ON_BOX else "FrozenLake-v1" if name == "td" else "CartPole-v1"
    parts = build(name, env, config, num_envs=10 if name == "cem" else 2, seed=1)
    parts.train(20 if config.feed.replays else 64)
    return parts.agent.state_dict()


def test_every_agent_learns_the_same_bits_under_another_default_dtype(double):
    known = [learned(*case) for case in CASES]
    double()
    for case, expected in each(zip(CASES, known, strict=True)):
        came = learned(*case)
        assert [x.dtype for x in came.values()] == [x.dtype for x in expected.values()]
        assert all(torch.equal(x, expected[name]) for name, x in came.items())
