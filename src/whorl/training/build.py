"""The only place where environment, agent, buffer and collector meet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from whorl.agents.agent import Agent
from whorl.buffers.rollout import RolloutBuffer
from whorl.buffers.stream import StreamBuffer
from whorl.collectors.serial import SerialCollector
from whorl.collectors.stream import StreamCollector
from whorl.envs.env import Env
from whorl.envs.make import make_env
from whorl.errors import BadInput
from whorl.feeds import Stream
from whorl.functional.streams import stream
from whorl.training.catalog import agent_class, find
from whorl.training.config import check


@dataclass
class Parts:
    """Everything a training loop needs."""

    env: Env
    agent: Agent
    buffer: RolloutBuffer | StreamBuffer
    collector: SerialCollector


def build(
    agent: str,
    env: str | Env,
    config: Any = None,
    num_envs: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    compile: bool = False,
    max_episode_steps: int | None = None,
) -> Parts:
    """Agent and environment by name (or an `Env`), with the preset of the pair where `config` and `num_envs` are not given.

    Raises BadInput or Incompatible before anything is trained or written.
    """
    cls: Any = agent_class(agent)
    preset = find(agent, env if isinstance(env, str) else env.id)
    config = config if config is not None else preset.config
    if not isinstance(config, cls.Config):
        raise BadInput(f"{agent} takes a {cls.Config.__name__}, got {type(config).__name__}")
    check(config)
    if compile and cls.uncompiled:
        raise BadInput(f"{cls.uncompiled}. Leave compile=True out")
    if isinstance(config.feed, Stream) and device != "cpu":
        raise BadInput(f"{agent} learns on the CPU, one step at a time; got device={device!r}")
    _check_device(device)
    if isinstance(env, Env) and num_envs not in (None, env.num_envs):
        raise BadInput(f"num_envs = {num_envs}, but the environment object holds {env.num_envs}; leave num_envs out")
    num_envs = preset.num_envs if num_envs is None else num_envs
    if isinstance(env, str):
        if num_envs < 1:
            raise BadInput(f"num_envs must be at least 1, got {num_envs}")
        config.feed.check(num_envs)
        env = environment(env, num_envs, seed, _env_device(env, device), max_episode_steps)
    config.feed.check(env.num_envs)
    learner = new_agent(agent, env, config, seed).to(device)
    learner.compiled = compile
    return assemble(learner, env, seed)


def environment(id: str, num_envs: int, seed: int, device: str = "cpu", max_episode_steps: int | None = None) -> Env:
    """`make_env`, with episodes of at most `max_episode_steps`: a longer limit is replaced, a shorter one stays."""
    env = make_env(id, num_envs, seed=seed, device=device)
    if max_episode_steps is None or (env.max_episode_steps or math.inf) <= max_episode_steps:
        return env
    env.close()
    return make_env(id, num_envs, seed=seed, device=device, max_episode_steps=max_episode_steps)


def assemble(agent: Agent, env: Env, seed: int = 0) -> Parts:
    """An agent put together by hand, with the buffer and the collector that its feed asks for."""
    feed = agent.config.feed
    feed.check(env.num_envs)
    if isinstance(feed, Stream):
        collector: SerialCollector = StreamCollector(env, agent.policy, seed, "next.action" in agent.reads)
        return Parts(env, agent, StreamBuffer(), collector)
    whole = feed.unit == "episode"
    collector = SerialCollector(env, agent.policy, feed.steps, seed=seed, whole_episodes=whole)
    return Parts(env, agent, RolloutBuffer(feed, seed=seed), collector)


def new_agent(agent: str, env: Env, config: Any, seed: int) -> Agent:
    """Fresh weights from the initialisation stream; the global torch stream is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(stream(seed, "initialisation"))
        return agent_class(agent).build(env.observation_space, env.action_space, config)


def _check_device(device: str) -> None:
    if device == "meta":
        raise BadInput("device 'meta' holds no numbers, so nothing can be learned on it")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises either
        reason = str(error).splitlines()[0]
        raise BadInput(
            f"device {device!r} cannot be used here ({reason}); `whorl doctor` lists those that can"
        ) from error


def _env_device(env: str, device: str) -> str:
    """Native worlds with a device version step where the agent learns; every other environment steps on the CPU."""
    if device == "cpu":
        return device
    from whorl.envs.native.device import WORLDS

    return device if env in WORLDS else "cpu"
