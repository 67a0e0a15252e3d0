"""The base of the native worlds: N environments of one kind, stepped together by one compiled call.

A world is two small functions of one environment's state, `dynamics` and `observe`, and the box its episodes start in.
The loop around them (time limit, auto-reset, random streams) is written and compiled here.

Randomness is counted, not kept: the k-th uniform number of an episode is a function of (seed, environment index,
episode number, k), so the state of a stream is the episode number, and neither the order of resets nor the number of
environments changes anything.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from zlib import crc32

import gymnasium
import numpy as np
from numba.extending import register_jitable

from whorl.envs.env import Env, Observation, Step
from whorl.errors import BadInput
from whorl.jit import jit

STEP, RESET, LOOK, STEP_ROWS, RESTART = 0, 1, 2, 3, 4  # what the compiled loop is asked to do
EPISODE, ELAPSED = 0, 1  # columns of the clock
SEED, LIMIT, FIRST = 0, 1, 2  # entries of the settings
NOT_BEGUN = (
    -1
)  # the loop's answer before the first reset; -2 - i: environment i was given an action that does not exist
NO_LIMIT = np.iinfo(np.int64).max

# splitmix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators")
GAMMA, MIX_1, MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@register_jitable(forceinline=True)
def mix(z: np.uint64) -> np.uint64:
    """One output of splitmix64 from the state `z` (uint64)."""
    z = z + GAMMA
    z = (z ^ (z >> np.uint64(30))) * MIX_1
    z = (z ^ (z >> np.uint64(27))) * MIX_2
    return z ^ (z >> np.uint64(31))


@register_jitable(forceinline=True)
def stream(seed: np.int64, index: int, episode: np.int64) -> np.uint64:
    """The key (uint64) of one episode's random numbers: mix(mix(mix(seed) ^ index) ^ episode)."""
    return mix(mix(mix(np.uint64(seed)) ^ np.uint64(index)) ^ np.uint64(episode))


@register_jitable(forceinline=True)
def uniform(key: np.uint64, k: int) -> float:
    """The k-th number of a stream, uniform in [0, 1), 53 bits: (mix(key + k * GAMMA) >> 11) / 2**53."""
    return np.float64(mix(key + np.uint64(k) * GAMMA) >> np.uint64(11)) * 2.0**-53


@register_jitable(forceinline=True)
def clip(x: Any, low: Any, high: Any) -> Any:
    """x within [low, high], in its own precision; NaN stays NaN, so that it is found."""
    return low if x < low else high if x > high else x


@register_jitable(forceinline=True)
def advance(
    dynamics: Callable, state: np.ndarray, action: Any, i: int, clock: np.ndarray, settings: np.ndarray
) -> tuple[np.float32, bool, bool]:
    """One step of environment i, whose state is the row `state`: (reward float32, terminated, truncated)."""
    chance = uniform(stream(settings[SEED], settings[FIRST] + i, clock[i, EPISODE]), len(state) + clock[i, ELAPSED])
    clock[i, ELAPSED] += 1
    reward, terminated = dynamics(state, action, chance)
    return np.float32(reward), terminated, clock[i, ELAPSED] >= settings[LIMIT]


@register_jitable(forceinline=True)
def begin(state: np.ndarray, i: int, clock: np.ndarray, settings: np.ndarray, start: np.ndarray) -> None:
    """The next episode of environment i, whose state is the row `state`."""
    clock[i, EPISODE] += 1
    clock[i, ELAPSED] = 0
    key = stream(settings[SEED], settings[FIRST] + i, clock[i, EPISODE])
    for k in range(len(state)):
        state[k] = start[0, k] + (start[1, k] - start[0, k]) * uniform(key, k)


@cache
def compiled(dynamics: Callable, observe: Callable) -> Callable:
    """The loop over N environments, compiled around one world's functions (see `World`)."""

    def run(
        task: int, choices: int, action: np.ndarray, state: np.ndarray, clock: np.ndarray, settings: np.ndarray,
        start: np.ndarray, observation: np.ndarray, successor: np.ndarray, reward: np.ndarray, flags: np.ndarray, rows: np.ndarray,
    ) -> int:  # fmt: skip
        stepped = task in (STEP, STEP_ROWS)
        if stepped:
            for i in range(len(state)):
                if clock[i, EPISODE] < 0:
                    return NOT_BEGUN
                if action.ndim == 1 and (task == STEP or rows[i]) and not 0 <= action[i] < choices:
                    return -2 - i
        any_ended = 0
        for i in range(len(state)):
            ended = task == RESET or (task == RESTART and rows[i])
            if task == STEP or (task == STEP_ROWS and rows[i]):
                reward[i], flags[0, i], flags[1, i] = advance(dynamics, state[i], action[i], i, clock, settings)
                ended = flags[0, i] or flags[1, i]
                observe(state[i], successor[i])
            elif task == STEP_ROWS:
                reward[i], flags[0, i], flags[1, i] = 0.0, False, False
                observe(state[i], successor[i])
            if ended:
                any_ended = 1
                begin(state[i], i, clock, settings, start)
            observe(state[i], observation[i])
        return any_ended

    # numba's cache on disk watches this file only: the name tells worlds, and versions of a world's file, apart
    source = Path(dynamics.__code__.co_filename).read_bytes()
    run.__qualname__ = f"{dynamics.__module__}.{dynamics.__name__}_{crc32(source):08x}"
    return jit(error_model="numpy", nogil=True)(run)


class Arrays(NamedTuple):
    """What a world's loop reads and writes, S numbers a state and D an observation."""

    state: np.ndarray  # [N, S] float64
    clock: np.ndarray  # [N, 2] int64: episode, steps of it
    settings: np.ndarray  # [3] int64: seed, time limit, index of row 0
    start: np.ndarray  # [2, S] float64: low, high
    observation: np.ndarray  # [N, D]
    successor: np.ndarray  # [N, D]
    reward: np.ndarray  # [N] float32
    flags: np.ndarray  # [2, N] bool: terminated, truncated
    rows: np.ndarray  # [N] bool: those that step or restart, where not all do


class World(Env):
    """N environments stepped by one compiled call. A subclass sets the class attributes.

    dynamics(state, action, chance) -> (reward, terminated): moves one state [S] float64 in place; `action` is an int
    (Discrete) or a row [D] float32 (Box), `chance` a number uniform in [0, 1), new at each step.
    observe(state, out): writes the observation of one state into the row `out` (one entry for Discrete; for a Dict of
        Boxes [D] its parts side by side, in the order of the space).
    low, high: every episode starts at a state uniform in [low, high).
    least, most: every state of an episode lies within them; `load_state` takes none beyond.

    `step` takes int64 [N] or float32 [N, D], converts integers to integers and numbers to floats, and refuses other
    kinds, wrong shapes and discrete actions that do not exist. Box actions out of range are clipped by the dynamics, as
    Gymnasium's do. A time limit sets `truncated` also on a step that terminated, as Gymnasium's does. The arrays of
    `Step` are written again by the next step. Streams are counted, so the k-th episode of an environment is the same however it was begun.
    """

    origin = "native"
    compiled = True
    partial = frozenset({"restart", "rows"})
    dynamics: ClassVar[Callable]
    observe: ClassVar[Callable]
    low: ClassVar[tuple[float, ...]]
    high: ClassVar[tuple[float, ...]]
    least: ClassVar[tuple[float, ...]]
    most: ClassVar[tuple[float, ...]]

    def __init__(self, num_envs: int = 1, seed: int = 0, max_episode_steps: int | None = None):
        self.num_envs = positive("num_envs", num_envs)
        if max_episode_steps is not None:
            self.max_episode_steps = positive("max_episode_steps", max_episode_steps)
        self.observation_space, self.action_space = deepcopy(self.observation_space), deepcopy(self.action_space)
        parts = list(getattr(self.observation_space, "spaces", {None: self.observation_space}).values())
        size, dtype = sum((part.shape or (1,))[0] for part in parts), parts[0].dtype
        self._state = np.zeros((num_envs, len(self.low)))
        self._clock = np.full((num_envs, 2), -1, np.int64)
        self._settings = np.array([wrapped(seed), self.max_episode_steps or NO_LIMIT, 0], np.int64)
        start = np.array([self.low, self.high], np.float64)
        observation, successor = np.zeros((num_envs, size), dtype), np.zeros((num_envs, size), dtype)
        reward, flags, rows = np.zeros(num_envs, np.float32), np.zeros((2, num_envs), bool), np.zeros(num_envs, bool)
        self.arrays = Arrays(
            self._state, self._clock, self._settings, start, observation, successor, reward, flags, rows
        )
        self._choices = int(getattr(self.action_space, "n", 0))
        self._action = np.zeros((num_envs, *(self.action_space.shape or ())), self.action_space.dtype)
        self._films = False
        self._before: tuple[np.ndarray, ...] | None = None  # state, clock and action of the last step, for pictures
        self._run = compiled(type(self).dynamics, type(self).observe)
        self._steps()

    def _steps(self) -> None:
        """What a step gives, as views of the memory that it writes."""
        _, _, _, _, observation, successor, reward, flags, _ = self.arrays
        here, there = (views(self.observation_space, rows) for rows in (observation, successor))
        self._went_on = Step(here, reward, flags[0], flags[1], here)
        self._some_ended = Step(here, reward, flags[0], flags[1], there)

    @property
    def first(self) -> int:  # which the compiled loop reads
        return int(self._settings[FIRST])

    @first.setter
    def first(self, row: int) -> None:
        self._settings[FIRST] = row

    @property
    def episode(self) -> np.ndarray | None:  # which the compiled loop reads
        return self._clock[:, EPISODE]

    @episode.setter
    def episode(self, numbers: np.ndarray | None) -> None:
        assert numbers is not None
        self._clock[:, EPISODE] = numbers

    def reset(self, seed: int | None = None) -> Observation:
        """Begin the next episode everywhere; with a seed, episode 0 of that seed's streams. Returns [N, *obs]."""
        if seed is not None:
            self._settings[SEED] = wrapped(seed)
            self._clock[:, EPISODE] = -1
        self._run(RESET, self._choices, self._action, *self.arrays)
        return self._went_on.observation

    def restart(self, rows: np.ndarray) -> Observation:
        # new memory: the observation may be the true successor of the last step, the rows its `valid`
        fresh = {name: np.empty_like(getattr(self.arrays, name)) for name in ("observation", "rows")}
        fresh["rows"][:] = rows
        self.arrays = self.arrays._replace(**fresh)
        self._steps()
        self._run(RESTART, self._choices, self._action, *self.arrays)
        return self._went_on.observation

    def step(self, action: Any, rows: np.ndarray | None = None) -> Step:
        action = np.ascontiguousarray(action)
        if action.dtype != self._action.dtype:
            action = self._converted(action)
        if action.shape != self._action.shape:
            raise BadInput(f"{self.id}: expected actions of shape {self._action.shape}, got {action.shape}")
        if rows is not None:
            self.arrays.rows[:] = rows
        if self._films:
            self._before = self._state.copy(), self._clock.copy(), action.copy()
        ended = self._run(STEP if rows is None else STEP_ROWS, self._choices, action, *self.arrays)
        if ended < 0:
            raise BadInput(self._refusal(ended, action))
        step = self._some_ended if ended else self._went_on
        return step if rows is None else step._replace(valid=self.arrays.rows)

    def _converted(self, action: np.ndarray) -> np.ndarray:
        if not np.can_cast(action.dtype, self._action.dtype, "same_kind"):
            raise BadInput(f"{self.id}: expected actions of dtype {self._action.dtype}, got {action.dtype}")
        return action.astype(self._action.dtype)

    def _refusal(self, code: int, action: np.ndarray) -> str:
        if code == NOT_BEGUN:
            return f"{self.id}: step before the first reset; call reset() once after making the environment"
        index = -2 - code
        return f"{self.id}: expected actions 0 to {self._choices - 1}, got {action[index]} for environment {index}"

    def draw(self, state: np.ndarray) -> np.ndarray | None:
        """Picture of one state [S], uint8 [height, width, 3]; None: there is none."""
        return None

    def render(self) -> np.ndarray | None:
        return self.draw(self._state[0])

    def film(self) -> None:
        if type(self).draw is World.draw:
            super().film()
        self._films = True

    def pictures(self, ended: bool = False) -> np.ndarray:
        states = self._state
        if ended and self._before is not None and (rows := np.flatnonzero(self.arrays.flags.any(0))).size:
            before, clock, action = (x.copy() for x in self._before)
            states = states.copy()
            with np.errstate(over="ignore"):  # of random streams, which compiled code does not mention
                for i in rows:  # the loop went on to the next episode: the last step once more, without
                    advance(type(self).dynamics, before[i], action[i], int(i), clock, self._settings)
                    states[i] = before[i]
        return np.stack([np.asarray(self.draw(state)) for state in states])

    def state(self) -> dict[str, np.ndarray]:
        """{state [N, S] float64, episode [N], elapsed [N], seed []}, all int64 but the first."""
        episode, elapsed = self._clock.T
        parts = {"state": self._state, "episode": episode, "elapsed": elapsed, "seed": self._settings[SEED]}
        return {name: np.array(part) for name, part in parts.items()}

    def load_state(self, state: dict[str, np.ndarray]) -> Observation:
        """As `Env.load_state`. Raises BadInput for what `state` does not give: other arrays, or a state that no episode comes to."""
        state = checked(type(self), self.num_envs, state)
        self._state[:] = state["state"]
        self._clock[:, EPISODE], self._clock[:, ELAPSED] = state["episode"], state["elapsed"]
        self._settings[SEED] = state["seed"]
        self._run(LOOK, self._choices, self._action, *self.arrays)
        return self._went_on.observation


def checked(world: type[World], num_envs: int, state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A saved state of a world, whose arrays index and loop in compiled code. Raises BadInput for one that is none."""
    n, size = num_envs, len(world.low)
    expected = {"state": (n, size), "episode": (n,), "elapsed": (n,), "seed": ()}
    if state.keys() != expected.keys():
        raise BadInput(
            f"{world.id}: a state has the arrays {', '.join(expected)}, got {', '.join(map(str, state)) or 'none'}"
        )
    arrays = {name: np.asarray(array) for name, array in state.items()}
    for name, array in arrays.items():
        if array.shape != expected[name]:
            raise BadInput(f"{world.id}: expected a {name} of shape {expected[name]}, got {array.shape}")
        dtype = np.dtype(np.float64 if name == "state" else np.int64)
        if not np.can_cast(array.dtype, dtype):
            raise BadInput(f"{world.id}: expected a {name} of {dtype}, got {array.dtype}")
    slack = 1e-6  # of single precision
    least, most = np.array(world.least) - slack, np.array(world.most) + slack
    states = arrays["state"]
    good = np.isfinite(states) & (states >= least) & (states <= most)
    if not good.all():
        row, column = np.argwhere(~good)[0].tolist()
        raise BadInput(
            f"{world.id}: entry {column} of a state lies from {world.least[column]:g} to {world.most[column]:g}, got "
            f"{states[row, column]:g} for environment {row}"
        )
    if (arrays["episode"] < -1).any() or (arrays["elapsed"] < -1).any():
        raise BadInput(f"{world.id}: episodes and steps are counted from 0, got a state with a negative number of them")
    return arrays


def views(space: Any, rows: np.ndarray) -> Observation:
    """The rows [N, D] that `observe` writes, as observations: [N] for Discrete, columns side by side for a Dict of Boxes."""
    if not isinstance(space, gymnasium.spaces.Dict):
        return rows if space.shape else rows[:, 0]
    ends = np.cumsum([part.shape[0] for part in space.spaces.values()])[:-1]  # type: ignore[index]
    return dict(zip(space.spaces, np.split(rows, ends, 1), strict=True))


class Classic(World):
    """A world that Gymnasium has too: it lends its picture."""

    def draw(self, state: np.ndarray) -> np.ndarray:
        return picture(self.id, state)


@cache
def painter(id: str) -> Any:
    """Gymnasium's environment, kept to draw with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a world is out of date is no news here
        env = gymnasium.make(id, render_mode="rgb_array").unwrapped
    env.reset()  # what its renderer looks at besides the state
    return env


def picture(id: str, state: np.ndarray) -> np.ndarray:
    """Gymnasium's picture of one classic-control state, uint8 [height, width, 3]."""
    painter(id).state = state.copy()
    return painter(id).render()


def positive(name: str, number: int) -> int:
    if number < 1:
        raise BadInput(f"{name} must be at least 1, got {number}")
    return number


def wrapped(seed: int) -> int:
    """Any integer as the int64 with the same lowest 64 bits."""
    return (int(seed) + 2**63) % 2**64 - 2**63
