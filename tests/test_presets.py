"""Every preset builds, fits its environment and takes a learning step; each has a source."""

import pytest

from whorl.envs.ids import known_envs
from whorl.feeds import Replay, Rollouts, Sequences, Stream
from whorl.presets.atari import GAMES
from whorl.training.build import build
from whorl.training.catalog import AGENTS, config_from_json, config_to_json, find, presets

PAIRS = [(agent, env) for agent in AGENTS for env in presets(agent) if env not in GAMES[1:]]  # all games have one


def test_the_on_policy_agents_have_one_for_every_classic_world_and_the_others_have_some():
    classic = ["CartPole-v0", "CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Acrobot-v1", "Pendulum-v1"]
    for agent in ("reinforce", "a2c", "ppo"):
        assert set(presets(agent)) >= {*classic, "LunarLander-v3"}
    assert all(presets(agent) for agent in AGENTS if agent != "random")


@pytest.mark.parametrize(("agent", "env"), PAIRS)
def test_preset(agent, env, request):
    if env.startswith("LunarLander"):
        pytest.importorskip("Box2D", reason="needs the extra box2d: pip install 'whorl[box2d]'")
    if env in ("InvertedPendulum-v5", "Hopper-v5", "HalfCheetah-v5"):
        pytest.importorskip("mujoco", reason="needs the extra mujoco: pip install 'whorl[mujoco]'")
    if env.startswith("ALE/"):
        pytest.importorskip("ale_py", reason="needs the extra atari: pip install 'whorl[atari]'")
    preset = find(agent, env)
    assert env in known_envs() and preset.source and preset.total_steps > 0
    assert isinstance(preset.config.feed, Rollouts | Stream | Replay | Sequences)
    assert config_from_json(agent, config_to_json(agent, preset.config)) == preset.config
    parts = build(agent, env)
    assert parts.env.num_envs == preset.num_envs
    parts.buffer.add(parts.agent.prepare(parts.collector.collect()))
    assert all(value.isfinite() for value in parts.agent.learn(parts.buffer).values())
