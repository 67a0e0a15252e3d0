"""The environments behind ids: a thread each, limits, idle time (`Instances`); one as the /v1 routes see it (`Session`)."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

import gymnasium

from whorl.apps.gym_server.monitor import Monitor
from whorl.apps.gym_server.wire import decoded, described, encoded, member, number, plain
from whorl.errors import BadInput, EnvError, WhorlError

logger = logging.getLogger("whorl")

LAST_CALL = 5.0  # seconds that environments have to close when the server stops


class Closes(Protocol):
    def close(self) -> None: ...


class Worker:
    """A thread that does the calls about one environment in order: the environment sees one call at a time, and one
    thread only, as graphics contexts need. It is a daemon, so an environment that hangs cannot keep the process alive.

    What an environment raises comes back as EnvError, whatever it was.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future] | None] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, call: Callable[[], Any]) -> Future:
        future: Future = Future()
        self._calls.put((call, future))
        return future

    def stop(self) -> None:
        """After the calls that wait already."""
        self._calls.put(None)

    def _run(self) -> None:
        while item := self._calls.get():
            call, future = item
            if not future.set_running_or_notify_cancel():  # from here on it cannot be cancelled
                continue
            try:
                future.set_result(call())
            except WhorlError as error:
                future.set_exception(error)
            except BaseException as error:  # SystemExit from an environment must not end the server
                wrapped = EnvError(f"{type(error).__name__}: {str(error)[:200]}")
                wrapped.__cause__ = error
                future.set_exception(wrapped)
            del item, call, future  # what was called may hold a closed environment


@dataclass
class Instance:
    """One entry of the table: what is behind an id, and when it was last used."""

    id: str
    env_id: str  # as it was asked for
    cost: int  # environments it holds
    worker: Worker
    client: str | None = None  # the process that made it, where it says so
    holds: Any = None  # Session or Vector
    patience: float | None = None  # seconds that a call may take
    used: float = field(default_factory=time.monotonic)
    pending: int = 0  # calls that have not come back
    late: bool = False  # one of them has been given up

    async def ask(self, call: Callable[[], Any]) -> Any:
        """`call` in the instance's thread. Raises what it raises, and EnvError after `patience` seconds; the call itself
        cannot be stopped, and until it is over further ones are refused."""
        if self.late:
            raise EnvError(f"{self.env_id} is still busy with an earlier call: wait, or close it")
        self.pending += 1
        answer = asyncio.wrap_future(self.worker.submit(call))
        answer.add_done_callback(self._back)
        try:
            async with asyncio.timeout(self.patience):
                return await asyncio.shield(answer)
        except TimeoutError as error:
            self.late = True
            raise EnvError(
                f"{self.env_id} has not answered for {self.patience:g} seconds; a server may wait longer (--patience)"
            ) from error

    def _back(self, answer: asyncio.Future) -> None:
        self.pending -= 1
        self.late &= self.pending > 0
        self.used = time.monotonic()
        if not answer.cancelled():
            answer.exception()  # seen, also where nobody waits any more


class Instances:
    """The table of all that is open. Used from the event loop only; the environments run in their own threads.

    max_envs: environments that may be open at a time; idle: seconds without a call after which one is closed; patience:
    seconds that a call may take; secret: ids of 128 bits instead of the original's 8 letters.
    """

    def __init__(self, max_envs: int, idle: float, patience: float, secret: bool) -> None:
        self.max_envs, self.idle, self.patience, self.secret = max_envs, idle, patience, secret
        self._table: dict[str, Instance] = {}
        self._taken = 0

    def listed(self, kind: type) -> dict[str, str]:
        """{id: environment id as it was asked for} of what holds a `kind`."""
        return {id: instance.env_id for id, instance in self._table.items() if isinstance(instance.holds, kind)}

    def seen(self, client: str | None) -> None:
        """A client asked for something: none of its environments is idle, such as those in training while others evaluate."""
        if client is not None:
            for instance in self._table.values():
                if instance.client == client:
                    instance.used = time.monotonic()

    async def open(
        self, env_id: str, make: Callable[[], Closes], client: str | None, cost: int = 1, secret: bool = False
    ) -> Instance:
        """A new instance that holds what `make` makes, in its own thread. Raises BadInput beyond `max_envs`."""
        if self._taken + cost > self.max_envs:
            raise BadInput(
                f"{self._taken} of {self.max_envs} environments are open and {cost} more were asked for: close some, or "
                "start the server with a larger --max-envs"
            )
        id = secrets.token_hex(16 if self.secret or secret else 4)
        if id in self._table:
            return await self.open(env_id, make, client, cost, secret)
        instance = Instance(id, env_id, cost, Worker(f"{env_id} {id}"), client)
        self._taken += cost
        try:
            instance.holds = await instance.ask(make)
        except BaseException:
            instance.worker.stop()
            self._taken -= cost
            raise
        instance.patience = self.patience  # making it may have compiled for minutes
        self._table[id] = instance
        return instance

    def find(self, id: str, kind: type) -> Instance | None:
        instance = self._table.get(id)
        return instance if instance and isinstance(instance.holds, kind) else None

    async def close(self, instance: Instance) -> None:
        """Forget the id, close what it holds after the calls that wait. Raises what closing raises. An environment that
        hangs is not waited for, but counts until it is closed."""
        closing = self._close(instance)
        if not instance.late:
            await asyncio.wait([closing], timeout=instance.patience)
        if closing.done():
            closing.result()

    def _close(self, instance: Instance) -> asyncio.Future:
        del self._table[instance.id]
        closing = asyncio.wrap_future(instance.worker.submit(instance.holds.close))
        instance.worker.stop()
        closing.add_done_callback(lambda done: self._closed(instance, done))
        return closing

    def _closed(self, instance: Instance, done: asyncio.Future) -> None:
        self._taken -= instance.cost
        if not done.cancelled() and (error := done.exception()):
            logger.error("%s %s: closing it failed", instance.env_id, instance.id, exc_info=error)

    async def reap(self) -> None:
        """Close what has been idle for too long, for ever."""
        while True:
            await asyncio.sleep(min(self.idle / 4, 5.0))
            now = time.monotonic()
            for instance in list(self._table.values()):
                if not instance.pending and now - instance.used > self.idle:
                    logger.info("%s %s: idle for %g s, closed", instance.env_id, instance.id, self.idle)
                    self._close(instance)

    async def close_all(self) -> None:
        """Close everything, and wait for it LAST_CALL seconds."""
        closing = [self._close(instance) for instance in list(self._table.values())]
        if closing:
            await asyncio.wait(closing, timeout=LAST_CALL)


class Session:
    """One environment as the /v1 routes see it: JSON values in and out, and what has to happen before what.

    seed: of the first episode and of the action space; bounds: see `wire.decoded`; lenient: a step after the end of an
    episode is handed on to the environment instead of refused.
    """

    def __init__(self, env_id: str, env: gymnasium.Env, seed: int | None, bounds: str, lenient: bool) -> None:
        self.env_id, self.env = env_id, env
        self._seed, self._bounds, self._lenient = seed, bounds, lenient
        self._standing = self._ended = False  # an episode is under way; it is over
        if seed is not None:
            env.action_space.seed(seed)

    def reset(self, seed: int | None = None) -> dict[str, Any]:
        if seed is not None:
            self.env.action_space.seed(seed)
        self._standing = False  # if the reset fails
        observation, info = self.env.reset(seed=self._seed if seed is None else seed)
        self._seed, self._standing, self._ended = None, True, False
        return {"observation": self._observed(observation), "info": plain(info)}

    def step(self, given: Any, render: bool) -> dict[str, Any]:
        if not self._standing:
            raise BadInput(f"{self.env_id}: no episode is under way: call reset")
        if self._ended and not self._lenient:
            raise BadInput(f"{self.env_id}: the episode is over: call reset")
        action = decoded(self.env.action_space, given, self._bounds)
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
        except WhorlError:
            raise
        except BaseException:
            self._standing = False  # it may be in any state
            raise
        terminated, truncated = bool(terminated), bool(truncated)
        self._ended = terminated or truncated
        info = plain(dict(info))
        if self._ended:
            info["TimeLimit.truncated"] = truncated and not terminated
        if render:
            info["render"] = "not shown: this server has no window"
        return {
            "observation": self._observed(observation),
            "reward": number(reward, f"{self.env_id}: the reward"),
            "done": self._ended,
            "terminated": terminated,
            "truncated": truncated,
            "info": info,
        }

    def _observed(self, observation: Any) -> Any:
        return encoded(self.env.observation_space, observation, f"{self.env_id}: the observation")

    def sample(self) -> dict[str, Any]:
        space = self.env.action_space
        return {"action": encoded(space, space.sample(), f"{self.env_id}: the action")}

    def action_member(self, text: str) -> dict[str, Any]:
        return {"member": member(self.env.action_space, text)}

    def action_space(self) -> dict[str, Any]:
        return {"info": described(self.env.action_space)}

    def observation_space(self) -> dict[str, Any]:
        return {"info": described(self.env.observation_space)}

    def observation_properties(self, given: dict[str, Any]) -> dict[str, Any]:
        """Whether the space's description has these properties: what the original called membership."""
        space = described(self.env.observation_space)
        return {"member": all(name in space and space[name] == value for name, value in given.items())}

    def monitor_start(self, directory: Path, force: bool, resume: bool, video_callable: Any) -> None:
        """A monitor that runs already is closed first. The next episode begins with a reset."""
        self.monitor_close()
        self.env = Monitor(self.env, directory, self.env_id, force, resume, video_callable)
        self._standing = False

    def monitor_close(self) -> None:
        """Harmless without a monitor. The environment stays usable."""
        if isinstance(self.env, Monitor):
            monitor, self.env = self.env, self.env.env
            monitor.finish()

    def close(self) -> None:
        try:
            self.monitor_close()
        finally:
            self.env.close()
