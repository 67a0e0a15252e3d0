"""The only place where environment, agent, buffer and collector meet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from whorl import batch, spaces
from whorl.agents.agent import Agent
from whorl.buffers.buffer import ReplayBuffer
from whorl.buffers.layout import Layout, check_disk, check_room
from whorl.buffers.rollout import RolloutBuffer
from whorl.buffers.sample_uniform import Uniform
from whorl.buffers.storage_memory import Memory
from whorl.buffers.stream import StreamBuffer
from whorl.collectors.serial import SerialCollector
from whorl.collectors.stream import StreamCollector
from whorl.envs.env import Env
from whorl.envs.make import make_env
from whorl.errors import BadInput, Incompatible
from whorl.feeds import Replay, Stream
from whorl.functional.streams import stream
from whorl.training.catalog import agent_class, find
from whorl.training.config import check


@dataclass
class Parts:
    """Everything a training loop needs."""

    env: Env
    agent: Agent
    buffer: Any  # RolloutBuffer, StreamBuffer or ReplayBuffer
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
    buffer: bool = True,
) -> Parts:
    """Agent and environment by name (or an `Env`), with the preset of the pair where `config` and `num_envs` are not given.

    buffer: False leaves it out (None), for `new_buffer` to make.
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
    if isinstance(config.feed, Replay):
        check_replay(env, config.feed)
    return assemble(learner, env, seed, buffer)


def environment(id: str, num_envs: int, seed: int, device: str = "cpu", max_episode_steps: int | None = None) -> Env:
    """`make_env`, with episodes of at most `max_episode_steps`: a longer limit is replaced, a shorter one stays."""
    env = make_env(id, num_envs, seed=seed, device=device)
    if max_episode_steps is None or (env.max_episode_steps or math.inf) <= max_episode_steps:
        return env
    env.close()
    return make_env(id, num_envs, seed=seed, device=device, max_episode_steps=max_episode_steps)


def assemble(agent: Agent, env: Env, seed: int = 0, buffer: bool = True) -> Parts:
    """An agent put together by hand, with the buffer and the collector that its feed asks for."""
    feed = agent.config.feed
    feed.check(env.num_envs)
    collector: SerialCollector
    if isinstance(feed, Stream):
        collector = StreamCollector(env, agent.policy, seed, "next.action" in agent.reads)
    elif isinstance(feed, Replay) and feed.steps == 1 and env.device == "cpu" == agent.env_steps.device.type:
        collector = StreamCollector(env, agent.policy, seed)
    else:
        collector = SerialCollector(env, agent.policy, feed.steps, seed=seed, whole_episodes=feed.unit == "episode")
    return Parts(env, agent, new_buffer(agent, env, seed) if buffer else None, collector)


def new_buffer(agent: Agent, env: Env, seed: int = 0, folder: Path | None = None, slack: int = 0) -> Any:
    """The buffer that the agent's feed asks for. folder, slack: see `replay_buffer`."""
    feed = agent.config.feed
    if isinstance(feed, Stream):
        return StreamBuffer()
    if isinstance(feed, Replay):
        return replay_buffer(agent, env, seed, folder, slack)
    return RolloutBuffer(feed, seed=seed)


def replay_buffer(agent: Agent, env: Env, seed: int = 0, folder: Path | None = None, slack: int = 0) -> ReplayBuffer:
    """The buffer of an off-policy agent's feed: one lane for each environment. It takes its memory at the first write.

    folder: where the rows are kept beside checkpoints (None: they are lost with the process). slack: rows of each lane that stay
    behind those that can be drawn, at least as many as come between two checkpoints.
    Raises BadInput for a memmap without a folder; what else can be wrong, `check_replay` has found.
    """
    feed: Replay = agent.config.feed
    size: Any = {"capacity": feed.capacity, "lanes": env.num_envs, "slack": slack, "folder": folder}
    if feed.storage == "frames":
        from whorl.buffers.storage_frames import Frames

        storage: Any = Frames(**size, stack=env.observation_space.shape[0])  # type: ignore[index]
    elif feed.storage == "memmap":
        from whorl.buffers.storage_memmap import Memmap

        if folder is None:
            raise BadInput("storage='memmap' keeps its rows in a folder: train a run, or pass `folder` to new_buffer")
        storage = Memmap(**size)
    else:
        storage = Memory(**size)
    if feed.prioritized:
        from whorl.buffers.sample_prioritized import Prioritized

        sampler: Any = Prioritized(seed, feed.alpha, feed.beta, feed.beta_steps)
    else:
        sampler = Uniform(seed)
    transforms: list[Any] = []
    if feed.n_step > 1:
        from whorl.buffers.lookup.n_step import NStep

        transforms.append(NStep(feed.n_step, agent.config.discount))
    if feed.relabel != "none":
        from whorl.buffers.lookup.relabel import Hindsight

        goal: Any = env.goal
        transforms.append(Hindsight(goal.reward, feed.relabel, feed.relabel_fraction, seed, terminated=goal.terminated))
    return ReplayBuffer(
        storage, sampler, transforms, feed.batch_size, feed.replay_ratio, feed.warmup, feed.prefetch, agent.env_steps.device
    )  # fmt: skip


def check_replay(env: Env, feed: Replay, slack: int = 0, folder: Path | None = None) -> int:
    """The bytes that a feed's rows will take, `slack` rows of each environment included; folder: where they are kept on disk.

    Raises BadInput when memory or disk is too small for them, Incompatible for frames of anything but stacked images, and for
    hindsight where the environment does not say how its goals are rewarded. Nothing is allocated or written.
    """
    if feed.relabel != "none" and getattr(env, "goal", None) is None:
        raise Incompatible(
            f"feed.relabel = {feed.relabel!r} gives transitions other goals, but {env!r} does not say how a goal is rewarded "
            "(an attribute `goal` with `reward` and `terminated`); use relabel='none'"
        )
    one = (1, env.num_envs)
    size: Any = {"capacity": feed.capacity, "lanes": env.num_envs, "slack": slack}
    flags = {name: torch.zeros(one, dtype=torch.bool) for name in ("terminated", "truncated")}
    rows: Any = {"is_first": flags["truncated"], "action": spaces.zeros(env.action_space, one)}
    rows["next"] = {"reward": torch.zeros(one), **flags}
    if feed.storage == "frames":
        from whorl.buffers.storage_frames import Frames

        space: Any = env.observation_space
        if space.dtype != "uint8" or len(space.shape or ()) != 3:
            raise Incompatible(
                f"feed.storage = 'frames' keeps each image of a stack once: observations must be uint8 [stack, height, width], those "
                f"of {env!r} are {spaces.describe(space)}; use storage='memory'"
            )
        stack, height, width = space.shape
        wanted = Frames(**size, stack=stack).needs(height, width, Layout.of(batch.make(rows, one)))
    else:
        seen = {"observation": spaces.zeros(env.observation_space, one)}
        layout = Layout.of(batch.make({**seen, **rows, "next": {**seen, **rows["next"]}}, one))
        wanted = Memory(**size).needs(layout)
    if feed.storage != "memmap":
        check_room(wanted, torch.device("cpu"))
    if folder is not None or feed.storage == "memmap":
        check_disk(wanted, folder or Path())
    return wanted


def new_agent(agent: str, env: Env, config: Any, seed: int) -> Agent:
    """Fresh weights from the initialisation stream; the global torch stream is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(stream(seed, "initialisation"))
        learner = agent_class(agent).build(env.observation_space, env.action_space, config)
    learner.seed = seed
    return learner


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
