"""What a run asks of how its environments are collected, and what cannot be: said before anything is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from whorl.agents.agent import Agent
from whorl.collectors.alternating import AlternatingCollector
from whorl.collectors.async_ import AsyncCollector
from whorl.collectors.collector import Collector
from whorl.collectors.halves import Halves
from whorl.envs.env import Env, Kind, Processes
from whorl.errors import BadInput, Incompatible
from whorl.feeds import Feed
from whorl.training.settings import Settings

LEAST_ROWS = 16  # of a rollout that samplers hand over to replay: what that costs is theirs together


class Collecting(NamedTuple):
    """What the settings say of it. collector: "serial" is the feed's own. processes: that step the environments; None: the collector's."""

    collector: str = "serial"
    samplers: int = 1
    synchronous: bool = False
    max_episode_steps: int | None = None
    processes: Processes | None = None

    @classmethod
    def of(cls, settings: Settings) -> Collecting:
        s = settings
        processes = Processes(s.workers, s.env_timeout, on_error=s.on_env_error) if s.workers else None
        return cls(s.collector, s.samplers, s.synchronous, s.max_episode_steps, processes)

    def made(self, kind: Kind, num_envs: int, seed: int, device: str, limit: int | None) -> Env:
        """The environments that are stepped: in two halves where they take turns, in processes where these are asked for."""
        options: dict[str, Any] = {"max_episode_steps": limit, "training": True, "processes": self.processes}
        if self.collector != "alternating":
            return kind.make(num_envs, seed, device, **options)
        halves: list[Env] = []
        try:
            for n in (num_envs - num_envs // 2, num_envs // 2):
                halves.append(kind.make(n, seed, device, **options))
            return Halves(*halves)
        except BaseException:
            for half in halves:
                half.close()
            raise

    def check(self, feed: Feed, source: Kind | Env | None, on_cpu: bool, num_envs: int = 1) -> None:
        """Raises BadInput or Incompatible for a collector that is not the feed's own, "serial", and cannot do what that does. source: what
        is stepped; None: nothing is."""
        way = f"collector = {self.collector!r}"
        if self.collector == "serial":
            self._check_idle(way)
            return
        own = source is None or feed.one_by_one or feed.own_envs or feed.unit == "episode"
        if own or feed.collector(on_cpu=True) not in ("serial", "stream"):
            raise Incompatible(
                f"{way} collects rollouts of so many rows, and feed = {type(feed).__name__} with unit {feed.unit!r} is fed otherwise: "
                "leave collector out"
            )
        if isinstance(source, Env):
            raise Incompatible(
                f"{way} makes environments of its own, so an environment object will not do: pass an id, a class or a function"
            )
        if not on_cpu:
            raise Incompatible(
                f"{way} is for environments that step on the CPU, and these are on a device: leave collector out"
            )
        if self.collector == "alternating":
            self._check_idle(way)
            self._check_halves(way, feed, num_envs)
            return
        if self.processes is not None:
            raise Incompatible(
                f"{way} steps environments in processes already: leave workers = {self.processes.workers} out, and use more samplers"
            )
        if feed.replays and feed.steps < LEAST_ROWS:
            raise Incompatible(
                f"{way} hands over whole rollouts, and feed.steps = {feed.steps} makes short ones: use feed.steps = {LEAST_ROWS} or more "
                "(as many updates follow, those of a rollout at once), or leave collector out"
            )

    def _check_halves(self, way: str, feed: Feed, num_envs: int) -> None:
        if num_envs < 2:
            raise BadInput(f"{way} needs environments for both halves, got num_envs = {num_envs}: use 2 or more")
        if feed.steps < 2:
            raise BadInput(
                f"{way} waits for both halves at the end of every rollout: use feed.steps of 2 or more, got {feed.steps}"
            )
        if self.processes is not None and self.processes.workers > num_envs // 2:
            raise BadInput(
                f"workers = {self.processes.workers} is of each half, and one has {num_envs // 2} environments: use fewer workers"
            )

    def _check_idle(self, way: str) -> None:
        for name, given in (("samplers", self.samplers > 1), ("synchronous", self.synchronous)):
            if given:
                raise BadInput(
                    f"{name} = {getattr(self, name)} does nothing with {way}: use collector = 'async', or leave it out"
                )


SERIAL = Collecting()


def asynchronous(agent: Agent, env: Env, seed: int, how: Collecting) -> AsyncCollector:
    """The samplers of an agent. Raises what `AsyncCollector` does."""
    feed: Feed = agent.config.feed
    return AsyncCollector(
        env, agent.policy, feed.steps, seed, how.samplers, how.synchronous, feed.max_lag, bool(agent.step.plans),
        max_episode_steps=how.max_episode_steps,
    )  # fmt: skip


def alternating(agent: Agent, env: Env, seed: int, how: Collecting) -> AlternatingCollector:
    """The collector of two halves."""
    assert isinstance(env, Halves)
    return AlternatingCollector(env, agent.policy, agent.config.feed.steps, seed)


WAYS: dict[str, Callable[[Agent, Env, int, Collecting], Collector]] = {  # that are not the feed's own
    "async": asynchronous,
    "alternating": alternating,
}
