"""`Workers`: N environments in processes of their own (worker.py), stepped together through shared memory."""

from __future__ import annotations

import logging
import os
import select
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from whorl.envs.block import new_block
from whorl.envs.env import Env, Kind, Observation, Processes, Step
from whorl.envs.process import ANSWERED, BACK, BEGINNING, DIED, DOWN, READY, STARTING, Process
from whorl.envs.watchdog import SLOW, TURN
from whorl.envs.worker import (
    BESIDE,
    INVALID,
    MOVED,
    SECOND,
    STEP,
    STEP_ROWS,
    Asked,
    Field,
    Raised,
    Task,
    leaves_of,
    named,
    observed,
)
from whorl.errors import BadInput, EnvError, Incompatible

_log = logging.getLogger("whorl")
BACKOFF, MOST_BACKOFF = 0.1, 5.0  # seconds before a dead worker is started again, doubling
WINDOW = 600.0  # seconds in which `max_restarts` of one worker are the most
FOR_EVER = 1e6  # seconds
LEAVING = 2.0  # seconds that workers may take to close their environments
RAGGED = "actions"  # the array of a state that has `length` rows for each environment, one after another
ALIKE = (
    "id", "origin", "observation_space", "action_space", "max_episode_steps", "reward_threshold", "partial", "discounts", "scalar_reward",
    "goal", "told",
)  # fmt: skip


class Workers(Env):
    """As the environments of `kind` in one process, in `processes.workers` of them: the same rows play the same episodes.

    A worker that dies, or hangs, is started again; its rows are invented until then (`Step.valid` False), and the episodes that were under
    way are lost (`truncated`). Of `info` nothing crosses but what is `told`. restarts: of workers so far.

    Raises BadInput for more workers than environments, and for what cannot travel to another process; EnvError for an exception inside an
    environment, in the words that it has in one process, and for a worker that dies too often.
    """

    def __init__(
        self,
        kind: Kind,
        num_envs: int,
        processes: Processes,
        seed: int = 0,
        limit: int | None = None,
        pictures: bool = False,
    ) -> None:
        count = processes.workers
        if not 1 <= count <= num_envs:
            raise BadInput(
                f"workers = {count} for num_envs = {num_envs}: each worker steps one environment at least. Use 1 to {num_envs} workers, or "
                "0 to step them in this process"
            )
        self._like = kind.make(
            1, seed, max_episode_steps=limit, pictures=pictures
        )  # what all of them say of themselves
        self._like.reset(seed)
        for name in ALIKE:
            setattr(self, name, getattr(self._like, name))
        self.num_envs, self.processes, self.made_from, self.restarts = num_envs, processes, kind, 0
        self._seed, self._first, self._replay_steps = seed, 0, 0
        fields, self._memory = _fields(self._like), new_block("whorl-workers")
        self._block = block = named(fields, num_envs, count, self._memory)
        self._task = Task(
            0, count, kind, 0, 0, num_envs, 0, seed, limit, pictures, 0, fields, self._memory, -1, -1, -1
        )  # of each, but for its own rows and descriptors
        self._episode = np.zeros(num_envs, np.int64)  # numbers of the present ones
        self._over = np.ones(num_envs, bool)  # no episode is under way
        self._leaves = {name: leaves_of(block, name) for name in ("here", "other", "successor", "fresh")}
        self._trees = {name: _tree(self.observation_space, iter(leaves)) for name, leaves in self._leaves.items()}
        self._terminated, self._truncated = block["terminated"], block["truncated"]
        self._info = {name: block[f"info.{name}"] for name in self.told}
        self._beside = [(name, block[name]) for name in BESIDE if name in block]
        self._standing: list[np.ndarray] = []  # leaves of where all stand; empty: not begun
        self._second = False
        self._epoll = select.epoll()
        self._sources: dict[int, tuple[Process, int]] = {}
        sizes = [num_envs // count + (w < num_envs % count) for w in range(count)]
        ends = np.cumsum(sizes).tolist()
        self._workers = [
            Process(w, slice(end - n, end), block["command"])
            for w, (n, end) in enumerate(zip(sizes, ends, strict=True))
        ]
        try:
            for each in self._workers:
                self._start(each)
            for each in self._workers:
                self._until_there(each)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, in {self.processes.workers} processes)"

    # -- what environments do ----------------------------------------------------------------------------------------------------

    def reset(self, seed: int | None = None) -> Observation:
        if seed is not None:
            self._seed, self._episode[:] = seed, -1
        self._call("reset", seed)
        self._episode += 1
        return self._stand(np.ones(self.num_envs, bool))

    def restart(self, rows: np.ndarray) -> Observation:
        if "restart" not in self.partial:
            raise Incompatible(f"{self!r}: these environments cannot begin anew one by one")
        self._block["rows"][:] = rows
        asked = [each for each in self._workers if each.state == READY and rows[each.rows].any()]
        self._call("restart", None, asked)
        there = np.zeros(self.num_envs, bool)
        for each in asked:
            there[each.rows] = rows[each.rows]
        self._episode += there
        return self._stand(there)

    def _stand(self, rows: np.ndarray) -> Observation:
        """Where all stand after a call, these rows anew: in memory of its own, as the last step's lives on."""
        fresh, standing = self._leaves["fresh"], self._standing or self._leaves["fresh"]
        self._standing = [
            np.where(rows.reshape(-1, *[1] * (new.ndim - 1)), new, old)
            for new, old in zip(fresh, standing, strict=True)
        ]
        self._over[rows] = False
        for each in self._workers:
            each.state = READY if rows[each.rows].all() else each.state
        self._say_beside()
        return _tree(self.observation_space, iter(self._standing))

    def send(self, action: Any, rows: np.ndarray | None = None) -> None:
        """As `Env.send`: the processes step, and this one is free until `receive`."""
        if not self._standing:
            raise BadInput(f"{self!r}: call reset() once before the first step")
        self._block["action"][:] = action
        if rows is not None:
            self._block["rows"][:] = rows
        self._second = not self._second
        what = (STEP if rows is None else STEP_ROWS) | (SECOND if self._second else 0)
        for each in self._workers:
            if each.state == READY:
                each.wake(what)

    def receive(self) -> Step:
        TURN.place = None  # whoever hangs is found here
        self._wait({each for each in self._workers if each.state == READY})
        name = "other" if self._second else "here"
        here, answers = self._leaves[name], self._block["answer"].tolist()
        valid = self._invented(here, answers)
        tree = successor = self._trees[name]
        ends = self._terminated | self._truncated
        if ends.any():
            successor = self._trees["successor"]
            for each in self._workers:
                if each.state == READY and not answers[each.number] & MOVED:
                    for there, stands in zip(self._leaves["successor"], here, strict=True):
                        there[each.rows] = stands[each.rows]
            self._episode += ends if valid is None else ends & valid
        self._standing = here
        self._say_beside()
        if valid is not None:
            for each in self._workers:
                each.state = READY if each.state == BACK else each.state
        discount = self._block["discount"] if self.discounts else None
        flags = self._terminated, self._truncated
        return Step(tree, self._block["reward"], *flags, successor, valid, discount, self._info)

    def step(self, action: Any, rows: np.ndarray | None = None) -> Step:
        self.send(action, rows)
        return self.receive()

    def _invented(self, here: list[np.ndarray], answers: list[int]) -> np.ndarray | None:
        """Fill in the rows that nobody stepped: they stand where they stood, and where their worker is back they begin an episode. Which
        rows count, [N], None: all."""
        block = self._block
        if all(each.state == READY and not answers[each.number] & INVALID for each in self._workers):
            return None
        for each in self._workers:
            rows = each.rows
            if each.state == READY:
                if not answers[each.number] & INVALID:
                    block["valid"][rows] = True
                continue
            for new, old, there, fresh in zip(
                here, self._standing, self._leaves["successor"], self._leaves["fresh"], strict=True
            ):
                there[rows] = old[rows]
                new[rows] = fresh[rows] if each.state == BACK else old[rows]
                if each.state == BACK and self._over[rows].all():  # nothing is lost now
                    there[rows] = fresh[rows]
            block["truncated"][rows] = ~self._over[rows]
            block["terminated"][rows], block["reward"][rows], block["valid"][rows] = False, 0, False
            for name, value in (("discount", 1), ("raw_reward", 0), ("reward_vector", 0), ("cost", 0)):
                if name in block:
                    block[name][rows] = value
            self._over[rows] = each.state != BACK
        return block["valid"].copy()

    def _say_beside(self) -> None:
        for name, array in self._beside:
            setattr(self, name, array)

    def state(self) -> dict[str, np.ndarray] | None:
        """Those of all rows as one, as one process would give it, so that any number of workers goes on from it. None, too, where an
        episode was lost since the last step, which only the next one tells."""
        states = [state for state in self._call("state") if state is not None]
        told = all(each.state == READY for each in self._workers)
        return _joined(states) if told and len(states) == len(self._workers) else None

    def load_state(self, state: dict[str, np.ndarray]) -> Observation:
        parts = _split(state, [each.rows for each in self._workers])
        self._calls([(each, Asked("load_state", part)) for each, part in zip(self._workers, parts, strict=True)])
        self._episode[:] = state.get("episode", 0)
        return self._stand(np.ones(self.num_envs, bool))

    def render(self) -> np.ndarray | None:
        return self._call("render", None, self._workers[:1])[0]

    @property
    def first(self) -> int:
        return self._first

    @first.setter
    def first(self, row: int) -> None:
        self._first = row
        self._call("be_first", row)

    @property
    def replay_steps(self) -> int:
        return self._replay_steps

    @replay_steps.setter
    def replay_steps(self, steps: int) -> None:
        self._replay_steps = steps
        self._call("replay", steps)

    @property
    def own_observation_space(self) -> Any:
        return self._like.own_observation_space

    @property
    def own_action_space(self) -> Any:
        return self._like.own_action_space

    def encode(self, observation: Any) -> tuple[Observation, Any]:
        return self._like.encode(observation)

    def decode(self, action: Any) -> Any:
        return self._like.decode(action)

    def close(self) -> None:
        self._like.close()
        until = time.monotonic() + LEAVING
        for each in self._workers:
            each.leave()
        for each in self._workers:
            each.bury(until - time.monotonic())
        self._epoll.close()
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1

    def __del__(self) -> None:
        if "_workers" in self.__dict__ and not self._epoll.closed:
            self.close()

    def processes_of(self) -> list[Process]:
        """The workers, in the order of their rows."""
        return self._workers

    # -- the processes -----------------------------------------------------------------------------------------------------------

    def _start(self, each: Process) -> None:
        rows = each.rows
        task = self._task._replace(number=each.number, row=rows.start, size=rows.stop - rows.start)
        for fd, what in each.start(task._replace(first=self._first, replay_steps=self._replay_steps)):
            self._sources[fd] = each, what
            self._epoll.register(fd, select.EPOLLIN)

    def _call(self, method: str, value: Any = None, workers: Sequence[Process] | None = None) -> list[Any]:
        """Ask some, or all, for the same, and wait for all answers: see `_calls`."""
        asked = self._workers if workers is None else workers
        return self._calls([(each, Asked(method, value)) for each in asked])

    def _calls(self, asked: Sequence[tuple[Process, Asked]]) -> list[Any]:
        """All answers. Who is not there, or dies meanwhile, is started again and asked then."""
        while missing := [each for each, _ in asked if each.state not in (READY, BACK)]:  # another may die meanwhile
            self._until_there(missing[0])
        for each, what in asked:
            each.ask(what)
        return [self._answer(each, what) for each, what in asked]

    def _answer(self, each: Process, asked: Asked) -> Any:
        while True:
            if each.asked is not asked:  # another worker was waited for while this one died, and perhaps came back
                self._until_there(each)
                each.ask(asked)
            if not each.heard:
                self._wait({each}, SLOW)
            if each.heard:
                return each.heard.pop()

    def _until_there(self, each: Process) -> None:
        """Wait until a worker can be asked. One that is BACK stays so: its rows are those of another episode once a step has said so."""
        while each.state not in (READY, BACK):
            self._wait(set(), SLOW, missing=each)

    def _wait(self, waiting: set[Process], times: float = 1, missing: Process | None = None) -> None:
        """Until all of these have answered or died: and where none of all is there, until one is."""
        limit = self.processes.timeout * times or FOR_EVER
        until, begun = time.monotonic() + limit, False
        while waiting or not begun or not self._there(missing):
            begun, patience = True, limit
            if len(waiting) < len(self._workers) and not all(each.state == READY for each in self._workers):
                self._again()
                patience = BACKOFF
            for fd, _ in (events := self._epoll.poll(patience)):
                if fd in self._sources:  # else it was heard of already that it died
                    self._event(*self._sources[fd], waiting)
            if not events and time.monotonic() >= until:
                for each in waiting or {each for each in self._workers if each.state in (STARTING, BEGINNING)}:
                    self._hangs(each, limit)
                waiting.clear()
                until = time.monotonic() + limit

    def _there(self, missing: Process | None) -> bool:
        return any(each.state in (READY, BACK) for each in ([missing] if missing else self._workers))

    def _event(self, each: Process, what: int, waiting: set[Process]) -> None:
        if what == ANSWERED:
            each.answered()
            waiting.discard(each)
        elif what == DIED:
            self._died(each, each.ended())
            waiting.discard(each)
        else:
            each.hear()
            if each.heard:
                waiting.discard(each)
                self._said(each)

    def _said(self, each: Process) -> None:
        """What a worker says without being asked is taken here; answers wait for who asked."""
        said = each.heard[-1]
        if isinstance(said, Raised):
            each.heard.clear()
            self._raised(each, said)
        elif each.state == STARTING and self._standing:
            each.heard.clear()
            each.state = BEGINNING
            otherwise = int(np.random.SeedSequence((self._seed, each.number, self.restarts)).generate_state(1)[0])
            each.ask(Asked("begin", (self._seed, self._episode[each.rows].copy(), otherwise)))
        elif each.state in (STARTING, BEGINNING):
            each.heard.clear()
            self._episode[each.rows] += each.state == BEGINNING
            each.state = BACK if each.state == BEGINNING else READY

    def _raised(self, each: Process, said: Raised) -> None:
        """Raise what an environment raised, in the words that it has in one process; or lose its worker's episodes."""
        _log.error("whorl: in worker %d (process %d) of %r:\n%s", each.number, each.pid, self, said.trace)
        if self.processes.on_error == "restart" and each.state == READY:
            return self._died(each, f"raised {said.text}")
        error = said.error or EnvError(f"{self._like.made_from and self._like.made_from.name}: {said.text}")
        if isinstance(error, EnvError) and said.row is not None:
            error.row = each.rows.start + said.row
        error.add_note(said.trace)
        raise error

    def _hangs(self, each: Process, seconds: float) -> None:
        _log.error("whorl: worker %d (process %d) of %r hangs:\n%s", each.number, each.pid, self, each.stack())
        self._died(
            each,
            f"did not answer within {seconds:g} seconds (its stack is in the log; if it only takes long: --env-timeout)",
        )

    def _died(self, each: Process, how: str) -> None:
        for fd in each.bury():
            self._sources.pop(fd, None)
        now, recent = time.monotonic(), each.deaths
        recent.append(now)
        while recent[0] < now - WINDOW:
            recent.popleft()
        rows = f"environments {self._first + each.rows.start} to {self._first + each.rows.stop - 1}"
        if len(recent) > self.processes.max_restarts:
            raise EnvError(
                f"worker {each.number}, which steps {rows} of {self!r}, died {len(recent)} times within ten minutes, the last time it "
                f"{how}. More than max_restarts are not made good: look for the cause in the environment or the machine's memory"
            )
        self.restarts += 1
        each.again = now + min(BACKOFF * 2 ** (len(recent) - 1), MOST_BACKOFF)
        _log.warning("whorl: worker %d, which steps %s of %r, %s. Another one is started", each.number, rows, self, how)

    def _again(self) -> None:
        """Start those anew that have waited long enough."""
        for each in self._workers:
            if each.state == DOWN and each.again <= time.monotonic():
                self._start(each)


def _fields(env: Env) -> tuple[Field, ...]:
    """The arrays that cross, for environments as this one, which has begun."""
    seen, act = env.observation_space, env.action_space
    observations = [field for kind in ("here", "other", "successor", "fresh") for field in observed(seen, kind)]
    fields = [Field("action", str(act.dtype), tuple(act.shape or ())), Field("rows", "bool"), *observations]
    fields += [Field("reward", "float32"), *(Field(name, "bool") for name in ("terminated", "truncated", "valid"))]
    fields += [Field("discount", "float32")] if env.discounts else []
    fields += [Field(f"info.{name}", dtype) for name, dtype in env.told.items()]
    beside = {name: getattr(env, name) for name in BESIDE}
    return (*fields, *(Field(name, str(x.dtype), tuple(x.shape[1:])) for name, x in beside.items() if x is not None))


def _tree(space: Any, leaves: Iterator[np.ndarray]) -> Any:
    """Leaves as an observation of this space."""
    inner = getattr(space, "spaces", None)
    return {key: _tree(part, leaves) for key, part in inner.items()} if isinstance(inner, Mapping) else next(leaves)


def _joined(states: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    joined = {name: [state[name] for state in states] for name in states[0]}
    return {name: np.concatenate(arrays) if arrays[0].ndim else arrays[0] for name, arrays in joined.items()}


def _split(state: dict[str, np.ndarray], parts: list[slice]) -> list[dict[str, np.ndarray]]:
    """The inverse of `_joined`, for any parts."""
    lengths = np.concatenate([[0], np.cumsum(state["length"])]) if "length" in state else None
    found = []
    for rows in parts:
        ragged = rows if lengths is None else slice(int(lengths[rows.start]), int(lengths[rows.stop]))
        found.append({name: x[ragged if name == RAGGED else rows] if np.ndim(x) else x for name, x in state.items()})
    return found


def refuse(env: object) -> NoReturn:
    """Raises BadInput for an environment that is there already."""
    raise BadInput(
        f"an environment object ({type(env).__name__}) cannot travel to worker processes: pass its id, its class, or a function"
    )
