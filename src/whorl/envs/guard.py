"""What an environment gives back is checked here, once, as it enters: nobody behind this asks again."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from gymnasium import spaces

from whorl.envs.adapters.spaces import discrete_sizes
from whorl.envs.env import Array, Env, Observation, Step
from whorl.envs.watchdog import TURN
from whorl.errors import EnvError, NotFinite, WhorlError, in_words
from whorl.jit import jit

_log = logging.getLogger("whorl")
FLOAT, FLAG = np.dtype(np.float32), np.dtype(bool)


class Leaf(NamedTuple):
    """One array of an observation, and what it must be."""

    keys: tuple[str, ...]  # in the nested dicts
    shape: tuple[int, ...]  # [N, ...]
    dtype: Any
    sizes: np.ndarray | None  # of whole numbers that count: each is below its size; None: numbers to be finite


class Stands:
    """What an environment says beside its steps, of whatever steps it in its place."""

    env: Env
    raw_reward = property(lambda self: self.env.raw_reward)
    reward_vector = property(lambda self: self.env.reward_vector)
    cost = property(lambda self: self.env.cost)

    def send(self, action: Array) -> None:
        """As `Env.send`."""
        self._sent = action

    def receive(self) -> Step:
        """As `Env.receive`."""
        return self.step(self._sent)

    def step(self, action: Array, rows: np.ndarray | None = None) -> Step:
        """As `Env.step`."""
        raise NotImplementedError


class Guard(Stands):
    """Steps an environment whose word is not taken: `reset`, `restart`, `step`, `load_state` and `render` are the environment's own.

    Checked are shapes and dtypes of all arrays, finite observations and rewards, whole numbers inside their Discrete, MultiDiscrete or
    MultiBinary space, and that action masks allow something and neither come nor go. The bounds of a Box are no limit: many
    environments step beyond theirs.
    Raises EnvError or NotFinite, naming environment, seed, episode, step and last action, for the first breach and for whatever the
    environment raises itself (but KeyboardInterrupt). The watchdog is told of each call.
    """

    def __init__(self, env: Env):
        n = env.num_envs
        self.env = env
        self._leaves = list(_leaves(env.observation_space, n, ()))
        sizes = discrete_sizes(env.action_space)
        self._mask_shape, self._sizes = (n, sum(sizes or ())), np.array(sizes or (), np.int64)
        self._masked = False
        self._seed: int | None = None
        self._action: Array | None = None
        self._taken = 0  # steps of each environment
        self._episode, self._began = np.full(n, -1), np.zeros(n, np.int64)  # its number; its first step

    def __repr__(self) -> str:
        return repr(self.env)

    def reset(self, seed: int | None = None) -> Observation:
        """As `Env.reset`."""
        if seed is not None:
            self._seed, self._taken, self._episode[:] = seed, 0, -1
        self._action = None
        self._episode += 1
        self._began[:] = self._taken
        observation = self._ask("reset", seed)
        self._masked = self.env.action_mask is not None
        self._standing(observation)
        return observation

    def restart(self, rows: np.ndarray) -> Observation:
        """As `Env.restart`."""
        self._episode += rows
        self._began[rows] = self._taken
        observation = self._ask("restart", rows)
        self._standing(observation)
        return observation

    def load_state(self, state: dict[str, np.ndarray]) -> Observation:
        """As `Env.load_state`."""
        observation = self._ask("load_state", state)
        np.maximum(self._episode, 0, out=self._episode)
        self._masked = self.env.action_mask is not None
        self._standing(observation)
        return observation

    def step(self, action: Array, rows: np.ndarray | None = None) -> Step:
        """As `Env.step`."""
        self._action = action
        self._taken += 1
        if rows is None:
            return self._checked(self._ask("step", action))
        self._began += ~rows
        return self._checked(self._ask("step", action, rows))

    def send(self, action: Array) -> None:
        """As `Env.send`."""
        self._action = action
        self._taken += 1
        self._ask("send", action)

    def receive(self) -> Step:
        """As `Env.receive`."""
        return self._checked(self._ask("receive"))

    def _checked(self, step: Step) -> Step:
        if type(step) is not Step:
            raise self._breach(None, f"step must return a whorl.envs.env.Step, it returned {type(step).__name__}")
        n = (self.env.num_envs,)
        observation, reward, terminated, truncated, successor, valid, discount, _ = step
        self._standing(observation)
        if successor is not observation:
            self._look(successor, "next.observation")
        self._array(reward, n, FLOAT, "reward")
        self._array(terminated, n, FLAG, "terminated")
        self._array(truncated, n, FLAG, "truncated")
        if valid is not None:
            self._array(valid, n, FLAG, "valid")
        if not _finite(reward):
            raise self._not_finite(reward, "reward")
        if discount is not None:
            self._array(discount, n, FLOAT, "discount")
            if not ((discount >= 0) & (discount <= 1)).all():
                raise self._breach(None, f"discount must be from 0 to 1, got {_numpy(discount).tolist()}")
        _count(_numpy(terminated), _numpy(truncated), self._episode, self._began, self._taken)
        return step

    def render(self) -> np.ndarray | None:
        """As `Env.render`."""
        picture = self._ask("render")
        if picture is not None and not (np.ndim(picture) == 3 and picture.shape[2] == 3 and picture.size):
            raise self._breach(
                None, f"render must give a picture [height, width, 3], got the shape {np.shape(picture)}"
            )
        return picture

    def film(self) -> None:
        """As `Env.film`."""
        self._ask("film")

    def pictures(self, ended: bool = False) -> np.ndarray:
        """As `Env.pictures`."""
        pictures = self._ask("pictures", ended)
        shape = np.shape(pictures)
        if len(shape) != 4 or (shape[0], shape[3]) != (self.env.num_envs, 3):
            raise self._breach(None, f"pictures must give all, [N, height, width, 3], got the shape {shape}")
        return pictures

    def place(self, row: int | None) -> str:
        """Which environment, and how far it is. row: None where it is not known which of the N."""
        one = row is not None or self.env.num_envs == 1
        which = f"environment {self.env.first + (row or 0)}" if one else "one of the environments"
        return f"{which} ({self._so_far(row)}) of {self.env!r}"

    def _so_far(self, row: int | None) -> str:
        seed = "a loaded state" if self._seed is None else f"seed {self._seed}"
        if row is None and self.env.num_envs > 1:
            return f"{seed}, step {self._taken} of each"
        row = row or 0
        last = "none yet" if self._action is None else _numpy(self._action)[row].tolist()
        return f"{seed}, episode {self._episode[row]}, step {self._taken - self._began[row]}, last action {last}"

    def _ask(self, method: str, *argument: Any) -> Any:
        TURN.to(None, method)
        TURN.place = self.place
        try:
            return getattr(self.env, method)(*argument)
        except EnvError as error:
            if not error.placed:  # by the guard of an environment inside this one
                error.args = (f"{error} ({self._so_far(error.row)})",)
                error.placed = True
            raise
        except (WhorlError, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit too: an environment does not end a run
            raise self._breach(None, f"{method} raised {in_words(error)}") from error
        finally:
            TURN.place = None

    def _standing(self, observation: Observation) -> None:
        """Where the environments stand: observation and mask."""
        self._look(observation, "observation")
        mask = self.env.action_mask
        if (mask is not None) != self._masked:
            change = "has gone: reset gave one" if self._masked else "has come in mid-run: reset gave none"
            raise self._breach(None, f"the action mask {change}. Give it after reset and after every step, or never")
        if mask is None:
            return
        self._array(mask, self._mask_shape, FLAG, "action_mask")
        row = _stuck(_numpy(mask), self._sizes)
        if row >= 0:
            raise self._breach(row, f"action_mask allows no action: {_numpy(mask)[row].astype(int).tolist()}")

    def _look(self, observation: Observation, what: str) -> None:
        for keys, shape, dtype, sizes in self._leaves:
            x: Any = observation
            name = what
            for key in keys:
                name += f".{key}"
                if not isinstance(x, dict) or key not in x:
                    came = f"the keys {', '.join(x)}" if isinstance(x, dict) else f"a {type(x).__name__}"
                    raise self._breach(None, f"{name} is missing: expected a dict with the key {key!r}, got {came}")
                x = x[key]
            self._array(x, shape, dtype, name)
            if sizes is None:
                if not _finite(x):
                    raise self._not_finite(x, name)
            elif (row := _outside(_numpy(x).reshape(shape[0], -1).astype(np.int64, copy=False), sizes)) >= 0:
                span = " or ".join(f"{size - 1}" for size in np.unique(sizes).tolist())
                raise self._breach(row, f"{name} must be whole numbers from 0 to {span}, got {_numpy(x)[row].tolist()}")

    def _array(self, x: Any, shape: tuple[int, ...], dtype: Any, what: str) -> None:
        given = getattr(x, "dtype", None)
        if given is dtype and x.shape == shape:  # numpy has each of its dtypes once
            return
        if given is None:
            raise self._breach(None, f"{what} must be an array of shape {shape}, got {type(x).__name__}")
        if tuple(x.shape) != shape:
            raise self._breach(None, f"{what} must have shape {shape}, got {tuple(x.shape)}")
        given, expected = str(given).removeprefix("torch."), str(dtype)
        if given != expected and not (given in np.sctypeDict and np.can_cast(given, expected, "same_kind")):
            raise self._breach(None, f"{what} must be {expected}, got {given}")

    def _not_finite(self, x: Array, what: str) -> NotFinite:
        x = _numpy(x)
        row = int(np.argwhere(~np.isfinite(x))[0, 0])
        return NotFinite(
            f"{what} of {self.place(row)} became {x[row].tolist()}; nothing was learned from it. Mend the environment or clip its values"
        )

    def _breach(self, row: int | None, what: str) -> EnvError:
        error = EnvError(f"{self.place(row)}: {what}")
        error.placed = True
        return error


class InNumpy(Stands):
    """Steps a world in torch on the CPU as all others are stepped there: what it gives is numpy, in the same memory."""

    def __init__(self, env: Env):
        self.env = env

    def __repr__(self) -> str:
        return repr(self.env)

    def reset(self, seed: int | None = None) -> Observation:
        """As `Env.reset`."""
        return _numpy(self.env.reset(seed))

    def restart(self, rows: np.ndarray) -> Observation:
        """As `Env.restart`."""
        return _numpy(self.env.restart(rows))

    def load_state(self, state: dict[str, np.ndarray]) -> Observation:
        """As `Env.load_state`."""
        return _numpy(self.env.load_state(state))

    def step(self, action: Array, rows: np.ndarray | None = None) -> Step:
        """As `Env.step`."""
        step = self.env.step(action, rows)
        here, reward, terminated, truncated, there = map(_numpy, step[:5])
        if not (terminated | truncated).any():
            there = here
        return Step(here, reward, terminated, truncated, there, None if step.valid is None else _numpy(step.valid))

    def render(self) -> np.ndarray | None:
        """As `Env.render`."""
        return self.env.render()

    def film(self) -> None:
        """As `Env.film`."""
        self.env.film()

    def pictures(self, ended: bool = False) -> np.ndarray:
        """As `Env.pictures`."""
        return self.env.pictures(ended)


Stepper: TypeAlias = "Env | Guard | InNumpy"


def guarded(env: Env) -> Stepper:
    """What steps `env`: itself where its code is whorl's own, else its guard. On the CPU it gives numpy."""
    if env.origin == "torch":
        return InNumpy(env)
    return env if env.origin == "native" else Guard(env)


def close(env: Env) -> None:
    """Close it. Where that raises, it is said and no more: all that was wanted of it is there, and an error that comes first counts."""
    TURN.to(None, "close")
    TURN.place = lambda row: repr(env)
    try:
        env.close()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too
        _log.warning("whorl: %r: close raised %s", env, in_words(error))
    finally:
        TURN.place = None


def _leaves(space: Any, n: int, keys: tuple[str, ...]) -> Iterator[Leaf]:
    if isinstance(space, spaces.Dict):
        for key, inner in space.spaces.items():
            yield from _leaves(inner, n, (*keys, key))
        return
    shape, sizes = (n, *(space.shape or ())), discrete_sizes(space)
    if sizes is not None:
        dtype = np.int8 if isinstance(space, spaces.MultiBinary) else np.int64
        yield Leaf(keys, shape, np.dtype(dtype), np.array(sizes, np.int64))
    else:
        yield Leaf(keys, shape, space.dtype, None)


def _numpy(x: Any) -> np.ndarray:
    return x if type(x) is np.ndarray else x.cpu().numpy() if hasattr(x, "cpu") else np.asarray(x)


def _finite(x: Any) -> bool:
    if not isinstance(x, np.ndarray):
        return bool(x.isfinite().all())
    return all_finite(x.ravel()) if x.dtype is FLOAT else bool(np.isfinite(x).all())


@jit
def all_finite(x: np.ndarray) -> bool:
    """Whether all numbers of x [n] are finite."""
    finite = True
    for i in range(len(x)):
        finite &= np.isfinite(x[i])
    return finite


@jit
def _count(terminated: np.ndarray, truncated: np.ndarray, episode: np.ndarray, began: np.ndarray, taken: int) -> None:
    """Another episode begins after `taken` steps where one has ended; arrays [N]."""
    for i in range(len(episode)):
        if terminated[i] or truncated[i]:
            episode[i] += 1
            began[i] = taken


@jit
def _outside(x: np.ndarray, sizes: np.ndarray) -> int:
    """The first row of x [N, K] with a number that is not one of 0 .. sizes[k] - 1; -1: none has."""
    for i in range(len(x)):
        for k in range(len(sizes)):
            if not 0 <= x[i, k] < sizes[k]:
                return i
    return -1


@jit
def _stuck(mask: np.ndarray, sizes: np.ndarray) -> int:
    """The first row of mask [N, A] where a component of so many choices has none that is allowed; -1: there is none."""
    for i in range(len(mask)):
        begin = 0
        for size in sizes:
            allowed = False
            for k in range(begin, begin + size):
                allowed |= mask[i, k]
            if not allowed:
                return i
            begin += size
    return -1
