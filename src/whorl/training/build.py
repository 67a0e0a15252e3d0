"""The only place where environment, agent, buffer and collector meet. A feed names its buffer (buffers.py), its collector and its loop; the
tables here say what those names are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, NamedTuple

from whorl import batch, options
from whorl.agents import recall
from whorl.agents.agent import Agent
from whorl.batch import Buffer
from whorl.buffers.datasets import Dataset
from whorl.collectors.collector import Collector
from whorl.collectors.ledger import Ledger
from whorl.collectors.serial import SerialCollector
from whorl.collectors.stream import StreamCollector
from whorl.envs import native
from whorl.envs.env import Env, check_scalar_reward
from whorl.envs.make import EnvKind, EnvLike, kind_or_env
from whorl.envs.workers import refuse
from whorl.errors import BadInput
from whorl.feeds import Fed, Feed, Part
from whorl.nets.encoder import EncoderFactory
from whorl.training import devices, sizes
from whorl.training.bodies import choose
from whorl.training.buffers import named, new_buffer
from whorl.training.catalog import AgentLike, agent_name, check_config, find
from whorl.training.collecting import SERIAL, WAYS, Collecting
from whorl.training.hooks import Hook
from whorl.training.new_agent import new_agent
from whorl.training.same_spaces import check_spaces
from whorl.training.settings import Precision, Update


def anything(agent: Agent, collector: Collector | Ledger) -> None:
    """A loop that takes all parts."""


class Loop(NamedTuple):
    """How a run goes on. `train(agent, collector, buffer, total_steps, hooks)`: a ledger stands for a collector where there is none."""

    train: Callable[[Agent, Collector | Ledger, Buffer, int, Iterable[Hook]], None]
    # raises for parts that it cannot take
    check: Callable[[Agent, Collector | Ledger], None] = anything
    # what whoever starts it should know
    notice: str = ""
    # whether it steps environments itself, past the collector
    steps_itself: bool = False


@dataclass
class Parts:
    """Everything a training loop needs."""

    agent: Agent
    env: Env | None  # None: it learns from data, and nothing is stepped
    collector: Collector | None
    buffer: Buffer  # not there until `new_buffer` has made it, where `build` was told so
    progress: Ledger  # of the collector, or of the updates where there is none
    loop: Loop
    update: Update = "eager"  # how optimizer steps are computed
    why: str = ""  # "auto" chose that

    def check(self) -> None:
        """Raises BadInput or Incompatible for parts that the loop cannot take."""
        self.loop.check(self.agent, self.collector or self.progress)

    def train(self, total_steps: int, hooks: Iterable[Hook] = ()) -> None:
        """Run the loop until the progress is `total_steps`."""
        try:
            self.loop.train(self.agent, self.collector or self.progress, self.buffer, total_steps, hooks)
        finally:
            if self.collector is not None:
                self.collector.close()

    @property
    def notices(self) -> list[str]:
        """What whoever starts it should know."""
        said = (self.loop.notice, self.collector.notice if self.collector is not None else "", self.why)
        return [text for text in said if text]

    def report(self) -> dict[str, float]:
        """What collector and buffer add to a row of the log, by whole names; a buffer of the user's need not."""
        own = {} if self.collector is None else self.collector.report()
        return own | (self.buffer.report() if hasattr(self.buffer, "report") else {})

    def slack(self, checkpoint_every: int | None) -> int:
        """Rows of each environment that come between a checkpoint and the second one after it."""
        every, env = checkpoint_every, self.env
        return 2 * (every // env.num_envs + self.agent.config.feed.steps) if every and env is not None else 0


def build(
    agent: AgentLike,
    env: EnvLike | None,
    config: Fed | None = None,
    num_envs: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    update: Update = "auto",
    max_episode_steps: int | None = None,
    buffer: bool = True,
    data: Dataset | None = None,
    encoder: EncoderFactory | None = None,
    spaces_before: str = "",
    precision: Precision = "float32",
    collecting: Collecting = SERIAL,
) -> Parts:
    """Agent (or its class, or one that is built) and environment by name (or whatever else `whorl.train` takes), with the preset of the
    pair where `config` and `num_envs` are not given.

    data: what an agent with an Offline feed learns from; no environment is made then, and `env` only finds the preset.
    update, precision: how optimizer steps are computed (see `bodies.choose`); `Parts.update` says what "auto" chose.
    buffer: False leaves it out (None), for `new_buffer` to make. encoder: see `Agent.build`.
    collecting: what the run asks of how environments are collected.
    spaces_before: those that a run was started with, which they must be again (`same_spaces.noted`).
    Raises BadInput or Incompatible before anything is trained or written.
    """
    name = agent_name(agent)
    source = None if env is None else kind_or_env(env)
    preset = find(agent, "" if source is None else source.id)
    config = config if config is not None else preset.config
    check_config(agent, config)
    options.check(config)
    feed: Feed = config.feed
    if feed.one_by_one and device != "cpu":
        raise BadInput(f"{name} learns on the CPU, one step at a time; got device={device!r}")
    devices.check(device)
    if (data is None) != (feed.collector(on_cpu=True) is not None):
        came = "no data was given" if data is None else "data was given"
        raise BadInput(
            f"{type(feed).__name__} {'needs recorded data' if data is None else 'steps an environment'}, and {came}"
        )
    if isinstance(source, Env) and num_envs not in (None, source.num_envs):
        raise BadInput(f"num_envs = {num_envs}, but the environment object holds {source.num_envs}; leave num_envs out")
    made = None
    if data is None:
        if source is None:
            raise BadInput(f"{name} learns by stepping an environment: name one")
        asked = preset.num_envs if num_envs is None else num_envs
        made = _made(source, feed, asked, seed, device, max_episode_steps, collecting)
    else:
        collecting.check(feed, None, on_cpu=True)
    known = made or data  # whose spaces are known
    assert known is not None
    check_spaces(spaces_before, known)
    if made is not None:
        feed.check(made.num_envs)
        sizes.check_rollout(feed, made.num_envs, made.observation_space, made.action_space)
    learner = new_agent(agent, known, config, seed, encoder).to(device)
    body, why = choose(learner, update, precision)
    return replace(assemble(learner, made, seed, buffer, data, collecting), update=body, why=why)


def _made(
    env: EnvKind | Env, feed: Feed, num_envs: int, seed: int, device: str, limit: int | None, collecting: Collecting
) -> Env:
    place, processes = env.device if isinstance(env, Env) else devices.of_env(env.id, device), collecting.processes
    collecting.check(feed, env, place == "cpu", num_envs)
    if isinstance(env, Env):
        if processes is not None:
            refuse(env)
        return env
    if num_envs < 1:
        raise BadInput(f"num_envs must be at least 1, got {num_envs}")
    feed.check(num_envs)
    sizes.check_environments(num_envs, env.id in native.WORLDS)
    if processes is not None and feed.own_envs:
        raise BadInput(
            f"workers = {processes.workers}: whoever learns here steps environments of its own; leave workers out"
        )
    return collecting.made(env, num_envs, seed, place, limit)


def assemble(
    agent: Agent,
    env: Env | None,
    seed: int = 0,
    buffer: bool = True,
    data: Dataset | None = None,
    collecting: Collecting = SERIAL,
) -> Parts:
    """An agent put together by hand, with the buffer, the loop and, unless samplers are asked for, the collector that its feed asks for.

    Raises BadInput for a name that no table here has, and what the loop cannot take.
    """
    feed: Feed = agent.config.feed
    recall.check(agent)
    if env is None:
        assert data is not None
        feed.check(data.rows.batch_size[1])
        collector, progress = None, Ledger(unit=feed.progress)
        if feed.normalize_observation:
            normalizer = agent.policy.normalizer
            normalizer.merge(normalizer.moments(data.rows["observation"], batch.get(data.rows, "mask")))
    else:
        check_scalar_reward(env)
        feed.check(env.num_envs)
        if feed.replays:
            sizes.check_replay(env, feed)
        on_cpu = env.device == "cpu" == agent.env_steps.device.type
        if (own := WAYS.get(collecting.collector)) is not None:
            collector = own(agent, env, seed, collecting)
        else:
            collector = named(COLLECTORS, "collector", feed.collector(on_cpu), "agent", "env", "seed")(agent, env, seed)
        progress = collector.ledger
    rows: Any = new_buffer(agent, env, seed, data=data) if buffer else None
    return Parts(agent, env, collector, rows, progress, _loop(feed.loop(agent.compiled)))


def _serial(agent: Agent, env: Env, seed: int) -> SerialCollector:
    feed, policy = agent.config.feed, agent.policy
    if agent.step.plans:  # whose bits are not those of autograd anyway
        from whorl.collectors.native import fastest

        return fastest(env, policy, feed.steps, seed, feed.unit == "episode")
    return SerialCollector(env, policy, feed.steps, seed=seed, whole_episodes=feed.unit == "episode")


def _stream(agent: Agent, env: Env, seed: int) -> StreamCollector:
    return StreamCollector(env, agent.policy, seed, "next.action" in agent.reads)


def _loop(part: Part) -> Loop:
    if callable(part):
        return Loop(part)
    if part not in LOOPS:
        raise BadInput(f"a feed names its loop as one of {', '.join(LOOPS)}, or gives a function; it gave {part!r}")
    module = import_module(f"whorl.training.loops.{part}")
    check, notice = getattr(module, "check", anything), getattr(module, "NOTICE", "")
    return Loop(module.train, check, notice, getattr(module, "STEPS_ITSELF", False))


COLLECTORS: dict[str, Callable[[Agent, Env, int], Collector]] = {"serial": _serial, "stream": _stream}
LOOPS = ("plain", "offline", "hogwild", "compiled_td")  # modules of training/loops
