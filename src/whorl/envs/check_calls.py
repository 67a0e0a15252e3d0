"""Calls of an environment whose every answer is held to the contract, for `check_env`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from whorl.envs.adapters.spaces import discrete_sizes
from whorl.envs.check_spaces import DTYPES, bounds, check_described, leaves, random_actions
from whorl.envs.env import Env, Observation, Step
from whorl.errors import EnvError

NAMES = [*Step._fields[:7], "action_mask", "raw_reward"]  # of what `given` keeps
# attributes that are there after reset and after every step, or never
CONSTANT = ("action_mask", "raw_reward")


class Calls:
    """`reset`, `step` and `restart` of `env`, and what was seen of its episodes. All raise EnvError, in one sentence, for a breach.

    standing: where all stand.
    """

    def __init__(self, env: Env, seed: int) -> None:
        self.env, self.rng = env, np.random.default_rng(seed)
        self.ended: list[tuple[bool, bool]] = []  # (terminated, truncated) of every episode end
        self.cut: list[bool] = []  # of every row truncated and reset: do the successor and the reset look the same?
        self.cut_after: list[int] = []  # steps of every episode that was truncated and not terminated
        self.standing: Observation = None  # type: ignore[assignment]  # until the first reset
        try:
            check_described(env)
        except EnvError as error:
            raise self.breach(str(error)) from None
        self._length = np.zeros(env.num_envs, np.int64)
        self._had: dict[str, bool] = {}

    # the calls

    def reset(self, seed: int | None) -> Observation:
        self.standing = observation = self.env.reset(seed)
        self._length[:] = 0
        self._had = {name: getattr(self.env, name) is not None for name in CONSTANT}
        self.stands(observation, "reset()")
        return observation

    def step(self, action: np.ndarray, rows: np.ndarray | None = None) -> Step:
        n, before = self.env.num_envs, (action.copy(), None if rows is None else rows.copy())
        step = self.env.step(action) if rows is None else self.env.step(action, rows)
        self.demand(np.array_equal(action, before[0]), "step() changed the action array it was given: copy it first")
        self.demand(equal(rows, before[1]), "step() changed the rows it was given: copy them first")
        self.demand(
            isinstance(step, Step), f"step() must return a whorl.envs.env.Step, it returned {type(step).__name__}"
        )
        self._array(step.reward, (n,), "float32", "step() gave a reward")
        for name in ("terminated", "truncated"):
            self._array(getattr(step, name), (n,), "bool", f"step() gave {name} flags")
        self.stands(step.observation, "step()")
        self._fits(self.env.observation_space, step.next_observation, "step() gave a next_observation")
        self.demand(isinstance(step.info, Mapping), f"info must be a dict, got {type(step.info).__name__}")
        valid = np.ones(n, bool)
        if step.valid is not None:
            self._array(step.valid, (n,), "bool", "step() gave valid flags")
            valid = as_numpy(step.valid)
        self._discount(step)
        self._successor(step, valid)
        self._count(step, valid)
        self.standing = step.observation
        return step

    def restart(self, rows: np.ndarray) -> Observation:
        before = rows.copy()
        self.standing = observation = self.env.restart(rows)
        self.demand(equal(rows, before), "restart() changed the rows it was given: copy them first")
        self._length[rows] = 0
        self.stands(observation, "restart()")
        return observation

    def sample(self, rng: np.random.Generator | None = None) -> np.ndarray:
        """Random allowed actions [N, ...]."""
        mask = None if self.env.action_mask is None else as_numpy(self.env.action_mask)
        return random_actions(self.env.action_space, self.env.num_envs, mask, rng or self.rng)

    def begun(self, observation: Observation) -> tuple:
        """Copies of what there is before the first step, in the order of NAMES."""
        return copied((observation, *[None] * 6, self.env.action_mask, self.env.raw_reward))

    def given(self, step: Step) -> tuple:
        """Copies of all that a step gave, in the order of NAMES."""
        return copied((*step[:7], self.env.action_mask, self.env.raw_reward))

    # what must hold

    def demand(self, holds: Any, message: str) -> None:
        if not holds:
            raise self.breach(message)

    def breach(self, message: str) -> EnvError:
        return EnvError(f"{self.env!r}: {message}")

    def same(self, first: Sequence, second: Sequence, message: str) -> None:
        for t, (one, other) in enumerate(zip(first, second, strict=True)):
            for name, a, b in zip(NAMES, one, other, strict=False):
                self.demand(equal(a, b), message.format(what=name, step=t))

    def stands(self, observation: Any, call: str) -> None:
        """Where all stand after a call: observation, mask, and the raw reward of what was before."""
        self._fits(self.env.observation_space, observation, f"{call} gave an observation")
        for name in CONSTANT:
            self.demand(
                (getattr(self.env, name) is not None) == self._had[name],
                f"{name} must be there after reset() and after every step, or never; it came or went in between",
            )
        self._mask()
        if self.env.raw_reward is not None:
            self._array(self.env.raw_reward, (self.env.num_envs,), "float32", "there is a raw_reward")

    def _mask(self) -> None:
        mask, sizes = self.env.action_mask, discrete_sizes(self.env.action_space)
        if mask is None:
            return
        if sizes is None:
            raise self.breach(f"action_mask needs discrete actions, the action space is {self.env.action_space}")
        self._array(mask, (self.env.num_envs, sum(sizes)), "bool", "there is an action_mask")
        for part in np.split(as_numpy(mask), np.cumsum(sizes)[:-1], -1):
            self.demand(
                part.any(-1).all(), f"action_mask allows no action in rows {np.flatnonzero(~part.any(-1)).tolist()}"
            )

    def _discount(self, step: Step) -> None:
        self.demand(
            (step.discount is not None) == self.env.discounts,
            f"`discounts` is {self.env.discounts}, and step() gave {'no' if step.discount is None else 'a'} discount: "
            "set `discounts` to True and give one in every step, or to False and give none",
        )
        if step.discount is None:
            return
        self._array(step.discount, (self.env.num_envs,), "float32", "step() gave a discount")
        discount = as_numpy(step.discount)
        outside = discount[(discount < 0) | (discount > 1)]
        self.demand(
            not len(outside),
            f"step() gave a discount of {outside[:1].sum():g}: it weighs the reward after this one, from 0 to 1",
        )

    def _successor(self, step: Step, valid: np.ndarray) -> None:
        reward, terminated, truncated = as_numpy(step.reward), as_numpy(step.terminated), as_numpy(step.truncated)
        ended = terminated | truncated
        self.demand(
            not (terminated | (reward != 0))[~valid].any(),
            "where valid is False (the engine invented the step, or the row stands) reward must be 0, and no flag set but truncated, where "
            "an episode was lost",
        )
        if not ended.any():
            self.demand(
                step.next_observation is step.observation
                or not isinstance(step.reward, np.ndarray),  # to know costs a wait
                "next_observation must be the same object as observation when no episode ended: return the array, not "
                "a copy",
            )
        rows = np.ones(self.env.num_envs, bool)
        for here, there in zip(leaves(step.observation), leaves(step.next_observation), strict=True):
            here, there = as_numpy(here), as_numpy(there)
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
        ended &= valid  # the others were lost
        self.ended += zip(terminated[ended].tolist(), truncated[ended].tolist(), strict=True)
        if step.next_observation is not step.observation:  # the same object: the engine resets in its next step
            self.cut += rows[truncated & ~terminated & valid].tolist()

    def _count(self, step: Step, valid: np.ndarray) -> None:
        terminated, truncated = as_numpy(step.terminated), as_numpy(step.truncated)
        self._length += valid
        self.cut_after += self._length[truncated & ~terminated & valid].tolist()
        self._length[terminated | truncated] = 0

    def _fits(self, space: spaces.Space, value: Any, what: str) -> None:
        if isinstance(space, spaces.Dict):
            came = list(value) if isinstance(value, dict) else type(value).__name__
            self.demand(
                isinstance(value, dict) and set(value) == set(space.spaces),
                f"{what} that must be a dict with the keys {list(space.spaces)}, got {came}",
            )
            for key, inner in space.spaces.items():
                self._fits(inner, value[key], f"{what}[{key!r}]")
            return
        shape = (self.env.num_envs, *(space.shape or ()))
        self._array(value, shape, DTYPES.get(type(space)) or str(space.dtype), what)
        low, high = bounds(space)
        array = as_numpy(value)
        outside = np.argwhere((array < low) | (array > high))
        if len(outside):
            where = tuple(outside[0].tolist())
            raise self.breach(
                f"{what} outside of {space} in environment {where[0]} ({array[where]}): "
                "widen the space or mend the observation"
            )

    def _array(self, value: Any, shape: tuple[int, ...], dtype: str, what: str) -> None:
        self.demand(
            hasattr(value, "shape") and hasattr(value, "dtype"),
            f"{what} that must be an array, got {type(value).__name__}",
        )
        self.demand(
            tuple(value.shape) == shape,
            f"{what} of shape {tuple(value.shape)}, expected {shape}: "
            f"one row for each of the {self.env.num_envs} environments",
        )
        came = str(value.dtype).removeprefix("torch.")
        self.demand(came == dtype, f"{what} of dtype {came}, expected {dtype}")
        rows = np.flatnonzero(~np.isfinite(as_numpy(value)).reshape(shape[0], -1).all(-1))
        self.demand(
            not len(rows),
            f"{what} with NaN or infinity in environments {rows.tolist()}: end the episode before it comes to that",
        )


def as_numpy(array: Any) -> np.ndarray:
    return array.cpu().numpy() if hasattr(array, "cpu") else np.asarray(array)


def copied(tree: Any) -> Any:
    """Copies of all arrays in nested dicts, tuples and lists."""
    if isinstance(tree, dict):
        return {key: copied(value) for key, value in tree.items()}
    if isinstance(tree, tuple | list):
        return tuple(copied(value) for value in tree)
    return None if tree is None else as_numpy(tree).copy()


def equal(one: Any, other: Any) -> bool:
    """Equal to the bit, in nested dicts, tuples and lists; NaN equals NaN."""
    if isinstance(one, dict):
        return (
            isinstance(other, dict) and one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
        )
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(equal, one, other))
    if one is None or other is None:
        return one is other
    one, other = as_numpy(one), as_numpy(other)
    return one.shape == other.shape and one.tobytes() == other.tobytes()
