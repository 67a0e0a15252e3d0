"""`check_env`: does an environment keep the contract of `Env`? Says in one sentence what to change."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.adapters.spaces import discrete_sizes
from whorl.envs.env import Env, Step
from whorl.errors import EnvError

logger = logging.getLogger("whorl")

NAMES = [*Step._fields[:7], "action_mask"]  # of what `record` keeps
PIXELS = 36  # an image has at least so many along both axes
DTYPES = {spaces.Discrete: "int64", spaces.MultiDiscrete: "int64", spaces.MultiBinary: "int8"}


def check_env(env: Env | gymnasium.Env | gymnasium.vector.VectorEnv, steps: int = 200, seed: int = 0) -> None:
    """Step `env` with random allowed actions and raise EnvError at the first breach of the contract; a Gymnasium object
    is wrapped first. Leaves `env` open, in the middle of an episode.

    Checked: spaces; shapes, dtypes, N rows, finite numbers, observations inside their space; flags; `next_observation`
    (the same object when none ended, else the true successor in memory of its own); invented steps; arrays that last
    until the next step; action masks; equal seeds give equal data; the N environments have streams of their own;
    `state` and `load_state`. The logger "whorl" warns of observations that look like images and are taken for vectors.

    steps: per run. What happens at an episode's end is seen only if one ends: the logger "whorl" warns when none did.
    """
    env = env if isinstance(env, Env) else Gymnasium(env)
    _Check(env, steps, seed).run()


class _Check:
    def __init__(self, env: Env, steps: int, seed: int) -> None:
        self.env, self.steps, self.seed = env, steps, seed
        self.rng = np.random.default_rng(seed)
        self.ended: list[tuple[bool, bool]] = []  # (terminated, truncated) of every episode end
        self.cut: list[bool] = []  # of every row truncated and reset: do the successor and the reset look the same?
        self.varied = False  # two different observations were seen
        self.last: Step | None = None

    def run(self) -> None:
        self.described()
        first, actions = self.record(self.reset(self.seed), self.steps), self.actions
        self.ends()
        replay = self.record(self.reset(self.seed), self.steps, actions)
        self.same(
            first,
            replay,
            "reset(seed) with the same seed and the same actions gave another {what} at step {step}: "
            "draw every random number from streams that reset(seed) starts anew",
        )
        self.streams()
        self.saved()

    # what one call gives

    def reset(self, seed: int | None) -> Any:
        observation = self.env.reset(seed)
        self.last = None
        self.had_mask = self.env.action_mask is not None
        self.observation(observation, "reset() gave an observation")
        self.mask()
        return observation

    def step(self, action: np.ndarray) -> Step:
        env, n, before = self.env, self.env.num_envs, action.copy()
        step = env.step(action)
        self.demand(np.array_equal(action, before), "step() changed the action array it was given: copy it first")
        self.demand(
            isinstance(step, Step), f"step() must return a whorl.envs.env.Step, it returned {type(step).__name__}"
        )
        self.array(step.reward, (n,), "float32", "step() gave a reward")
        for name in ("terminated", "truncated"):
            self.array(getattr(step, name), (n,), "bool", f"step() gave {name} flags")
        self.observation(step.observation, "step() gave an observation")
        self.observation(step.next_observation, "step() gave a next_observation")
        self.demand(isinstance(step.info, Mapping), f"info must be a dict, got {type(step.info).__name__}")
        valid = np.ones(n, bool)
        if step.valid is not None:
            self.array(step.valid, (n,), "bool", "step() gave valid flags")
            valid = _numpy(step.valid)
        self.successor(step, valid)
        self.mask()
        self.lasting(step)
        self.last = step
        return step

    def successor(self, step: Step, valid: np.ndarray) -> None:
        reward, terminated, truncated = _numpy(step.reward), _numpy(step.terminated), _numpy(step.truncated)
        ended = terminated | truncated
        self.demand(
            not (ended | (reward != 0))[~valid].any(),
            "a step that the engine invented (valid is False) must have reward 0 and no flag set",
        )
        if not ended.any():
            self.demand(
                step.next_observation is step.observation or self.env.device != "cpu",  # there, to know costs a wait
                "next_observation must be the same object as observation when no episode ended: return the array, not "
                "a copy",
            )
        rows = np.ones(self.env.num_envs, bool)
        for here, there in zip(_leaves(step.observation), _leaves(step.next_observation), strict=True):
            here, there = _numpy(here), _numpy(there)
            self.demand(
                step.next_observation is step.observation or not np.shares_memory(here, there),
                "next_observation shares memory with observation, so the reset overwrites the successor: copy the "
                "observation before the reset",
            )
            rows &= (here == there).reshape(len(here), -1).all(-1)
        wrong = np.flatnonzero(~rows & ~ended)
        self.demand(
            not len(wrong),
            f"next_observation differs from observation in rows {wrong.tolist()} whose episode did not end: they must "
            "be equal there",
        )
        self.ended += zip(terminated[ended].tolist(), truncated[ended].tolist(), strict=True)
        if step.next_observation is not step.observation:  # the same object: the engine resets in its next step
            self.cut += rows[truncated & ~terminated].tolist()

    def lasting(self, step: Step) -> None:
        if self.last is not None:  # once per run: drawing and saving can be slow
            return
        kept = _copy(step[:7])
        self.env.state()
        picture = self.env.render()
        self.demand(
            picture is None or (picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3),
            "render() must return uint8 [height, width, 3] of environment 0, or None",
        )
        message = "state() or render() changed {what} of the step before: its arrays must last until the next step"
        self.same([kept], [step], message)

    def mask(self) -> None:
        mask, sizes = self.env.action_mask, discrete_sizes(self.env.action_space)
        self.demand(
            (mask is not None) == self.had_mask,
            "action_mask must be there after reset() and after every step, or never; it came or went in between",
        )
        if mask is None:
            return
        if sizes is None:
            raise self.breach(f"action_mask needs discrete actions, the action space is {self.env.action_space}")
        self.array(mask, (self.env.num_envs, sum(sizes)), "bool", "there is an action_mask")
        for part in np.split(_numpy(mask), np.cumsum(sizes)[:-1], -1):
            self.demand(
                part.any(-1).all(), f"action_mask allows no action in rows {np.flatnonzero(~part.any(-1)).tolist()}"
            )

    # what many calls give

    def record(self, observation: Any, count: int, actions: list | None = None) -> list:
        """Copies of all that `count` steps give; the actions taken are kept in `self.actions`."""
        self.actions, data = [], [_copy((observation, self.env.action_mask))]
        for t in range(count):
            self.actions.append(self.sample() if actions is None else actions[t])
            step = self.step(self.actions[-1].copy())
            data.append(_copy((*step[:7], self.env.action_mask)))
            self.varied |= not _equal(data[0][0], step.observation)
        return data

    def ends(self) -> None:
        if not self.ended:
            logger.warning(
                "check_env: no episode ended in %d steps, so nothing is known about episode ends; give more steps",
                self.steps,
            )
        self.demand(
            len(self.ended) < 2 or not all(terminated and truncated for terminated, truncated in self.ended),
            "every episode ended with terminated and truncated both set: terminated means that there is no future, "
            "truncated that only a time limit was reached",
        )
        self.demand(
            len(self.cut) < 3 or not all(self.cut) or not self.varied,
            "next_observation is the reset observation where an episode was truncated: give the observation that the "
            "action led to",
        )

    def streams(self) -> None:
        """All rows equal for two seeds, though the seeds differ: the rows share one stream."""
        if self.env.num_envs == 1:
            return
        runs = [self.rows_equal(seed) for seed in (self.seed, self.seed + 1)]
        if None not in runs:
            self.demand(
                _equal(*runs),
                f"all {self.env.num_envs} environments give the same data from one seed: "
                "seed each from (seed, its index)",
            )

    def rows_equal(self, seed: int) -> list | None:
        """The data of row 0 if all rows stayed equal under equal actions, else None."""
        observation, rng, data = self.reset(seed), np.random.default_rng(self.seed), []
        for _ in range(min(self.steps, 100)):
            leaves = [_numpy(leaf) for leaf in _leaves(observation)]
            if any((leaf != leaf[:1]).any() for leaf in leaves):
                return None
            data.append([leaf[0].copy() for leaf in leaves])
            action = self.sample(rng)
            observation = self.step(np.repeat(action[:1], len(action), 0)).observation
        return data

    def saved(self) -> None:
        observation = self.reset(self.seed)
        self.record(observation, min(self.steps, 20))
        state, standing = self.env.state(), _copy(self.last.observation if self.last else observation)
        if state is None:
            return
        # more steps than an episode is likely to last: the streams of the resets belong to the state too
        data, actions = self.record(standing, self.steps), self.actions
        back = self.env.load_state(state)
        self.demand(
            _equal(back, standing), "load_state(state) must return where each environment stood when state() was called"
        )
        self.observation(back, "load_state() gave an observation")
        self.same(
            data[1:],
            self.record(back, self.steps, actions)[1:],
            "after load_state(state()) the same actions gave another {what} at step {step}: state() must hold copies "
            "of every array, counter and random stream",
        )

    # the rules

    def demand(self, holds: Any, message: str) -> None:
        if not holds:
            raise self.breach(message)

    def breach(self, message: str) -> EnvError:
        return EnvError(f"{self.env!r}: {message}")

    def same(self, first: list, second: list, message: str) -> None:
        for t, (one, other) in enumerate(zip(first, second, strict=True)):
            for name, a, b in zip(NAMES, one, other, strict=False):
                self.demand(_equal(a, b), message.format(what=name, step=t))

    def described(self) -> None:
        n = getattr(self.env, "num_envs", None)
        self.demand(isinstance(n, int) and n >= 1, f"num_envs must be an integer of at least 1, got {n!r}")
        for name in ("observation_space", "action_space"):
            space: Any = getattr(self.env, name, None)
            self.demand(
                isinstance(space, spaces.Space), f"{name} must be a gymnasium space (of ONE environment), got {space!r}"
            )
            for leaf in space.spaces if name == "action_space" and _is_mixed(space) else _leaves(space):
                self.demand(
                    isinstance(leaf, spaces.Box) or type(leaf) in DTYPES,
                    f"{name} holds {leaf}: only Box, Discrete, MultiDiscrete, MultiBinary and Dict are known, "
                    "and of actions Tuple((MultiDiscrete, Box of one axis))",
                )
                self.demand(not np.any(getattr(leaf, "start", 0)), f"{name} holds {leaf}: count from 0, without start")
                self.demand(
                    not isinstance(leaf, spaces.Box) or leaf.dtype in (np.float32, np.uint8),
                    f"{name} holds a Box of {leaf.dtype}: use float32, or uint8 for images",
                )
        for leaf in _leaves(self.env.observation_space):
            if _looks_like_an_image(leaf) and not _is_an_image(leaf):
                logger.warning(
                    "check_env: the observation %s of %s looks like an image, but agents take it for a plain vector of %d numbers: "
                    "the convolutions are for uint8 with two or three axes, height and width at least %d",
                    leaf.shape, leaf.dtype, np.prod(leaf.shape), PIXELS,
                )  # fmt: skip
        self.demand(
            not isinstance(self.env.action_space, spaces.Dict),
            "action_space must not be a Dict: lay its parts side by side",
        )

    def observation(self, observation: Any, what: str) -> None:
        self.fits(self.env.observation_space, observation, what)

    def fits(self, space: spaces.Space, value: Any, what: str) -> None:
        if isinstance(space, spaces.Dict):
            given = list(value) if isinstance(value, dict) else type(value).__name__
            self.demand(
                isinstance(value, dict) and set(value) == set(space.spaces),
                f"{what} that must be a dict with the keys {list(space.spaces)}, got {given}",
            )
            for key, inner in space.spaces.items():
                self.fits(inner, value[key], f"{what}[{key!r}]")
            return
        shape = (self.env.num_envs, *(space.shape or ()))
        self.array(value, shape, DTYPES.get(type(space)) or str(space.dtype), what)
        low, high = _bounds(space)
        array = _numpy(value)
        outside = np.argwhere((array < low) | (array > high))
        if len(outside):
            where = tuple(outside[0].tolist())
            raise self.breach(
                f"{what} outside of {space} in environment {where[0]} ({array[where]}): "
                "widen the space or mend the observation"
            )

    def array(self, value: Any, shape: tuple[int, ...], dtype: str, what: str) -> None:
        self.demand(
            hasattr(value, "shape") and hasattr(value, "dtype"),
            f"{what} that must be an array, got {type(value).__name__}",
        )
        self.demand(
            tuple(value.shape) == shape,
            f"{what} of shape {tuple(value.shape)}, expected {shape}: "
            f"one row for each of the {self.env.num_envs} environments",
        )
        given = str(value.dtype).removeprefix("torch.")
        self.demand(given == dtype, f"{what} of dtype {given}, expected {dtype}")
        rows = np.flatnonzero(~np.isfinite(_numpy(value)).reshape(shape[0], -1).all(-1))
        self.demand(
            not len(rows),
            f"{what} with NaN or infinity in environments {rows.tolist()}: end the episode before it comes to that",
        )

    def sample(self, rng: np.random.Generator | None = None) -> np.ndarray:
        """Random allowed actions [N, ...]."""
        space: Any = self.env.action_space
        rng = rng or self.rng
        if _is_mixed(space):
            return np.concatenate([self.of(part, rng) for part in space.spaces], -1).astype(np.float32)
        return self.of(space, rng)

    def of(self, space: Any, rng: np.random.Generator) -> np.ndarray:
        """Random allowed ones of a space without parts."""
        n, sizes = self.env.num_envs, discrete_sizes(space)
        if sizes is None:
            low, high = np.maximum(space.low, -1e3), np.minimum(space.high, 1e3)
            return rng.uniform(low, high, (n, *space.shape)).astype(np.float32)
        mask = np.ones((n, sum(sizes)), bool) if self.env.action_mask is None else _numpy(self.env.action_mask)
        chance = rng.random(mask.shape) * mask
        columns = [part.argmax(-1) for part in np.split(chance, np.cumsum(sizes)[:-1], -1)]
        dtype = np.int8 if isinstance(space, spaces.MultiBinary) else np.int64
        return np.stack(columns, -1).reshape(n, *space.shape).astype(dtype)


def _is_mixed(space: Any) -> bool:
    """Choices and numbers beside each other."""
    match space:
        case spaces.Tuple(spaces=(spaces.MultiDiscrete(), spaces.Box(shape=(_,)))):
            return True
    return False


def _looks_like_an_image(space: Any) -> bool:
    shape = sorted(space.shape)
    return isinstance(space, spaces.Box) and len(shape) in (2, 3) and shape[-2] >= 8


def _is_an_image(space: Any) -> bool:
    return space.dtype == np.uint8 and sorted(space.shape)[-2] >= PIXELS


def _bounds(space: Any) -> tuple[Any, Any]:
    if isinstance(space, spaces.Box):
        return space.low, space.high
    if isinstance(space, spaces.Discrete):
        return 0, int(space.n) - 1
    return 0, space.nvec - 1 if isinstance(space, spaces.MultiDiscrete) else 1


def _leaves(tree: Any) -> list:
    """The leaves of nested dicts, or of a Dict space."""
    inner = tree.spaces if isinstance(tree, spaces.Dict) else tree
    return [leaf for value in inner.values() for leaf in _leaves(value)] if isinstance(inner, dict) else [tree]


def _numpy(array: Any) -> np.ndarray:
    return array.cpu().numpy() if hasattr(array, "cpu") else np.asarray(array)


def _copy(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _copy(value) for key, value in tree.items()}
    if isinstance(tree, tuple | list):
        return tuple(_copy(value) for value in tree)
    return None if tree is None else _numpy(tree).copy()


def _equal(one: Any, other: Any) -> bool:
    """Equal to the bit, in nested dicts, tuples and lists; NaN equals NaN."""
    if isinstance(one, dict):
        return (
            isinstance(other, dict) and one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
        )
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if one is None or other is None:
        return one is other
    one, other = _numpy(one), _numpy(other)
    return one.shape == other.shape and one.tobytes() == other.tobytes()
