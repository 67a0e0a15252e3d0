"""N remote environments as N instances of gym-http-api (`/v1`), which every such server has, over N connections.

All N requests are sent before the first answer is read, so a step takes about one round trip. The server's step knows
`done` only: `terminated` and `truncated` where it says them (whorl's does), else `info["TimeLimit.truncated"]`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import numpy as np
from gymnasium import spaces

from whorl.envs.adapters.gym_client import GONE, MAKING, NO_SERVER, Connection, from_json, said, to_json
from whorl.envs.adapters.http_vector import REFUSED
from whorl.envs.adapters.spaces import actions, discrete_sizes, observations
from whorl.envs.env import Observation, Step
from whorl.errors import BadInput, EnvError, Incompatible

ROUTE = "/v1/envs/"
LARGE = 1e100  # stands for infinity


class Instances:
    """N instances of one environment on a gym HTTP server.

    connect: makes a connection. seeds_at_reset: whether the server takes a seed with a reset (whorl's does, the original does
    not); elsewhere a seeded reset makes new instances, since every server takes a seed with those. max_episode_steps: counted
    here, because the protocol has no time limits.
    """

    pictures = saves_state = False
    reward_threshold = None

    def __init__(
        self,
        name: str,
        connect: Callable[[], Connection],
        wanted: dict[str, Any],
        seed: int,
        seeds_at_reset: bool,
    ) -> None:
        self._name, self.num_envs, self._env_id = name, wanted["num_envs"], wanted["env_id"]
        self.max_episode_steps = wanted.get("max_episode_steps")
        self._seeds_at_reset = seeds_at_reset
        self._connections = [connect() for _ in range(self.num_envs)]
        self._at: list[str] = []  # the route of each instance
        self._elapsed = np.zeros(self.num_envs, np.int64)
        self._mask: np.ndarray | None = None
        self._spaces: tuple[spaces.Space, spaces.Space] | None = None  # of observations and of actions on the server
        self._create(seed)

    def _create(self, seed: int) -> None:
        self._free()
        self._new_seed: int | None = seed  # with which the instances were made, until they are reset
        wanted = [{"env_id": self._env_id, "seed": each} for each in self._seeds(seed)]
        answers = self._post([(i, ROUTE, each) for i, each in enumerate(wanted)], MAKING)
        for (status, data), connection in zip(answers, self._connections, strict=True):
            if status == 200:
                instance = self._entry(from_json(data, connection.asked), "instance_id", connection)
                self._at.append(f"{ROUTE}{quote(str(instance), safe='')}/")
        if len(self._at) < self.num_envs:
            error = next(self._error(i, *answer) for i, answer in enumerate(answers) if answer[0] != 200)
            self._free()
            raise error
        try:
            self._describe()
        except BaseException:
            self._free()
            raise

    def _describe(self) -> None:
        """The spaces. Raises EnvError for others than there were before."""
        there = self._space("observation_space"), self._space("action_space")
        if self._spaces not in (None, there):
            raise EnvError(
                f"{self._name} came back with other spaces than it had: make a new environment, start a new run"
            )
        self._spaces, self._observed = there, there[0]
        self.observation_space, self._convert = observations(self._observed, "the observation space")
        self.action_space, self._decode = actions(there[1])
        self._sizes = discrete_sizes(self.action_space)

    def reset(self, seed: int | None) -> tuple[Observation, np.ndarray | None]:
        if not self._at and seed is None:  # making them again failed
            raise EnvError(f"{self._name} is gone. {GONE}")
        if seed is not None and (not self._at or (seed != self._new_seed and not self._seeds_at_reset)):
            self._create(seed)
        answers = self._reset(seed)
        if seed is not None and any(map(_lost, answers)):  # freed while they were idle: a seed begins everything anew
            self._create(seed)
            answers = self._reset(seed)
        self._new_seed, self._mask, self._elapsed[:] = None, None, 0
        replies = [self._reply(i, *answer) for i, answer in enumerate(answers)]
        observation = self._observation(replies, range(self.num_envs))
        self._mask = self._masks(replies)
        return observation, self._mask

    def step(self, action: np.ndarray) -> tuple[Step, np.ndarray | None]:
        n = self.num_envs
        raw = self._decode(action.reshape(n, -1)).tolist()
        answers = self._post([(i, f"{self._at[i]}step/", {"action": each}) for i, each in enumerate(raw)])
        replies = [self._reply(i, *answer) for i, answer in enumerate(answers)]
        successor = observation = self._observation(replies, range(n))
        reward, terminated, truncated = (np.array(part) for part in zip(*map(self._outcome, range(n), replies)))
        self._elapsed += 1
        if self.max_episode_steps is not None:
            truncated |= self._elapsed >= self.max_episode_steps
        self._mask = self._masks(replies)
        rows = np.flatnonzero(terminated | truncated)
        if len(rows):
            observation = self._restart(successor, rows)
        return Step(observation, reward.astype(np.float32), terminated, truncated, successor), self._mask

    def close(self) -> None:
        for connection in self._connections:
            connection.hurry()
        self._free()

    def _free(self) -> None:
        with suppress(EnvError):  # a server that cannot be reached frees them after its idle time, or never
            self._post([(i, f"{at}close/", {}) for i, at in enumerate(self._at)])
        self._at = []
        self._disconnect()

    def _disconnect(self) -> None:
        for connection in self._connections:
            connection.close()

    def _reset(self, seed: int | None) -> list[tuple[int, bytes]]:
        bodies = [{}] * self.num_envs if seed is None else [{"seed": each} for each in self._seeds(seed)]
        return self._post([(i, f"{self._at[i]}reset/", body) for i, body in enumerate(bodies)])

    def _restart(self, successor: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Resets the ended rows; where every row stands then."""
        answers = self._post([(i, f"{self._at[i]}reset/", {}) for i in rows])
        replies = [self._reply(i, *answer) for i, answer in zip(rows, answers, strict=True)]
        observation = successor.copy()
        observation[rows] = self._observation(replies, rows)
        self._elapsed[rows] = 0
        if (fresh := self._masks(replies)) is not None:
            self._mask = np.ones((self.num_envs, fresh.shape[1]), bool) if self._mask is None else self._mask
            self._mask[rows] = fresh
        return observation

    def _seeds(self, seed: int) -> list[int]:
        """Those that the Gymnasium adapter gives its environments."""
        if seed < 0:
            raise BadInput(f"seed must be 0 or more, got {seed}")
        return [int(np.random.SeedSequence((seed, i)).generate_state(1)[0]) for i in range(self.num_envs)]

    # requests

    def _post(self, requests: list[tuple[int, str, dict[str, Any]]], timeout: float = 0) -> list[tuple[int, bytes]]:
        """The answers to requests, each (whose connection, path, JSON). All are sent, then all are read."""
        try:
            for i, path, data in requests:
                self._connections[i].send("POST", path, to_json(data))
            return [self._connections[i].receive(timeout=timeout) for i, _, _ in requests]
        except BaseException:
            self._disconnect()  # answers that nobody reads would be taken for those to later requests
            raise

    def _reply(self, i: int, status: int, data: bytes) -> dict[str, Any]:
        if status != 200:
            raise self._error(i, status, data)
        return from_json(data, self._connections[i].asked)

    def _error(self, i: int, status: int, data: bytes) -> Exception:
        text = self._connections[i].refusal(status, data)
        if _lost((status, data)):
            return EnvError(f"environment {i} of {self._name} is gone. {text}. {GONE}")
        return (BadInput if status in REFUSED else EnvError)(f"environment {i} of {self._name}: {text}")

    def _entry(self, reply: dict[str, Any], key: str, connection: Connection) -> Any:
        if key not in reply:
            raise self._malformed(connection, f"it has no {key!r}")
        return reply[key]

    def _malformed(self, connection: Connection, what: str) -> EnvError:
        return EnvError(f"{connection.asked}: the answer is malformed: {what}. {NO_SERVER}")

    # what the answers hold

    def _observation(self, replies: list[dict[str, Any]], rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """whorl's observations [len(rows), ...]."""
        own = [self._connections[i] for i in rows]
        values = [self._entry(reply, "observation", connection) for reply, connection in zip(replies, own, strict=True)]
        space, shape = self._observed, (len(values), *(self._observed.shape or ()))
        try:
            raw = np.asarray(values)
        except (ValueError, OverflowError):  # rows of different lengths
            raw = np.empty(0, object)
        kinds = "iub" if np.issubdtype(space.dtype, np.integer) else "iubf"
        if raw.dtype.kind not in kinds or raw.shape != shape:
            got = "something else" if raw.dtype == object else f"{raw.dtype} of shape {raw.shape}"
            raise self._malformed(
                own[0], f"expected observations of {space}, {space.dtype} of shape {shape}, got {got}"
            )
        if space.dtype == np.uint8 and raw.size and not 0 <= raw.min() <= raw.max() <= 255:
            raise self._malformed(own[0], f"expected observations from 0 to 255, got {raw.min()} to {raw.max()}")
        with np.errstate(over="ignore"):  # 1e100 is infinity
            return self._convert(raw)

    def _outcome(self, i: int, reply: dict[str, Any]) -> tuple[float, bool, bool]:
        """(reward, terminated, truncated) of environment i."""
        connection = self._connections[i]
        reward, done = self._entry(reply, "reward", connection), self._entry(reply, "done", connection)
        if not isinstance(reward, int | float) or not isinstance(done, bool):
            raise self._malformed(
                connection, f"expected a number as reward and a bool as done, got {reward!r} and {done!r}"
            )
        terminated, truncated = reply.get("terminated"), reply.get("truncated")
        if isinstance(terminated, bool) and isinstance(truncated, bool):
            return float(reward), terminated, truncated
        cut = done and _info(reply).get("TimeLimit.truncated") is True
        return float(reward), done and not cut, cut

    def _masks(self, replies: list[dict[str, Any]]) -> np.ndarray | None:
        """[len(replies), A] from `info["action_mask"]`; a row without one allows all. None: no row ever had one."""
        given = [_info(reply).get("action_mask") for reply in replies] if self._sizes is not None else []
        if self._mask is None and not any(mask is not None for mask in given):
            return None
        size = sum(self._sizes or ())
        masks = np.ones((len(replies), size), bool)
        for row, mask in zip(masks, given, strict=True):
            if mask is None:
                continue
            try:
                flat = np.concatenate([np.ravel(part) for part in mask]) != 0
            except (TypeError, ValueError):
                flat = np.empty(0, bool)
            if flat.shape != (size,):
                raise EnvError(f"{self._name}: expected an action mask of {size} entries, got {str(mask)[:80]}")
            row[:] = flat
        return masks

    def _space(self, which: str) -> spaces.Space:
        """The space that the first instance reports. Raises Incompatible for what gym-http-api describes by its name only."""
        connection = self._connections[0]
        reply = self._reply(0, *connection.ask("GET", f"{self._at[0]}{which}/"))
        info = self._entry(reply, "info", connection)
        name = info.get("name") if isinstance(info, dict) else None
        if isinstance(name, str) and name not in ("Box", "Discrete"):
            raise Incompatible(
                f"the {which.replace('_', ' ')} of {self._name} is a {name} space, which gym-http-api (/v1) does not carry, "
                "only Box and Discrete: serve it with `whorl serve-gym` and leave protocol='v1' out, or put a wrapper around "
                "the environment"
            )
        try:  # a Discrete counts from 0 on the wire, whatever its start
            return _box(info) if name == "Box" else spaces.Discrete(int(info["n"]))
        except (KeyError, TypeError, ValueError, OverflowError, AssertionError) as error:
            raise self._malformed(connection, f"{info!r:.200} does not describe a space ({error})") from error


def _box(info: dict[str, Any]) -> spaces.Box:
    dtype, shape = np.dtype(info.get("dtype", "float32")), tuple(map(int, info["shape"]))
    ends = [np.asarray(info[end]) for end in ("low", "high")]
    if dtype.kind not in "fiu" or any(end.dtype.kind not in "iuf" or end.size != math.prod(shape) for end in ends):
        raise ValueError(f"expected {math.prod(shape)} numbers for low and for high")
    if dtype.kind == "f":
        ends = [np.where(np.abs(end) >= LARGE, np.copysign(np.inf, end), end) for end in ends]
    low, high = (end.reshape(shape).astype(dtype) for end in ends)
    return spaces.Box(low, high, dtype=dtype.type)


def _info(reply: dict[str, Any]) -> dict[str, Any]:
    info = reply.get("info")
    return info if isinstance(info, dict) else {}


def _lost(answer: tuple[int, bytes]) -> bool:
    """Whether the server does not know the instance (any more)."""
    status, data = answer
    return status in (400, 404) and "Instance_id" in said(data)
