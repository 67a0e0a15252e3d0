"""Transforms of when episodes begin and end."""

from __future__ import annotations

import operator
from collections import ChainMap
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box, Dict

from whorl.batch import Batch
from whorl.errors import BadInput, Incompatible, NotFinite
from whorl.spaces import like, tree_map
from whorl.transforms.draws import Drawing
from whorl.transforms.transform import (
    Array,
    Observation,
    Result,
    Spaces,
    Transform,
    copied,
    merged,
    observed,
    space_with_entry,
    with_entry,
    zeros,
)

NEVER = 2**62  # steps
OPERATORS = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip


class TimeLimit(Transform):
    """Truncates episodes after `steps` steps.

    `truncated` is set on a step that terminates, too, as native worlds and Gymnasium do.

    Gymnasium: TimeLimit; TorchRL: StepCounter(max_steps).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"restart"})

    def __init__(self, steps: int) -> None:
        super().__init__()
        if steps < 1:
            raise BadInput(f"TimeLimit needs at least 1 step, got {steps}")
        self.steps = steps

    def begin(self, n: int, device: str) -> None:
        self.memory = {"taken": zeros((n,), np.int64, device)}

    def step(self, result: Result) -> Result:
        taken = self.memory["taken"]
        taken += 1
        over = taken >= self.steps
        return result._replace(truncated=result.truncated | over)

    def reset(self, observation: Observation, rows: Array) -> Observation:
        self.memory["taken"][rows] = 0
        return observation

    def episode_steps(self, most: int | None) -> int | None:
        return self.steps if most is None else min(most, self.steps)


class TerminateWhen(Transform):
    """Terminates an episode in the step whose successor fulfils a condition: a number of it is `op` `value`, such as ">" 2.4.

    key: the entry of the observation, "a.b" of nested ones; "": the observation itself. index: which of its numbers; None: any.
    TorchRL: TerminateTransform.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"restart"})

    def __init__(self, op: str, value: float, key: str = "", index: int | None = None) -> None:
        super().__init__()
        if op not in OPERATORS:
            raise BadInput(f"TerminateWhen compares by {' '.join(OPERATORS)}, got {op!r:.20}")
        self.op, self.value, self.key, self.index = op, value, key, index

    def spaces(self, observation: Space, action: Space) -> Spaces:
        entry: Any = observation
        for key in self.key.split(".") if self.key else ():
            if not isinstance(entry, Dict) or key not in entry.spaces:
                raise Incompatible(f"it looks at the entry {self.key!r}, and the observation is {observation}")
            entry = entry[key]
        if isinstance(entry, Dict):
            raise Incompatible(
                f"it looks at one array, and here is a Dict of {', '.join(entry.spaces)}: say which by key"
            )
        if not 0 <= (self.index or 0) < int(np.prod(entry.shape)):
            raise Incompatible(f"it compares number {self.index} of an array, and what it looks at is {entry}")
        return observation, action

    def holds(self, observation: Observation, axes: int = 1) -> Array:
        """bool [...], one for each of the leading `axes`."""
        for key in self.key.split(".") if self.key else ():
            observation = observation[key]
        numbers = observation.reshape(*observation.shape[:axes], -1)
        return OPERATORS[self.op](numbers if self.index is None else numbers[..., [self.index]], self.value).any(-1)

    def step(self, result: Result) -> Result:
        return result._replace(terminated=result.terminated | self.holds(result.observation))

    def forward(self, batch: Batch) -> Batch:
        """`next.terminated`."""
        result = batch["next"]
        result["terminated"] = result["terminated"] | self.holds(result["observation"], len(batch.batch_size))
        return batch


class RandomTruncation(Drawing):
    """Truncates an episode after a number of steps drawn from least .. most, so that environments that began together part: with the
    probability `first` an environment's first one, with `later` each that follows. TorchRL: RandomTruncationTransform."""

    training_only = True
    needs: ClassVar[frozenset[str]] = frozenset({"restart"})

    def __init__(self, least: int, most: int, first: float = 1.0, later: float = 0.0) -> None:
        super().__init__()
        if not (1 <= least <= most and 0 <= first <= 1 and 0 <= later <= 1):
            raise BadInput(
                f"RandomTruncation needs 1 <= least <= most and probabilities from 0 to 1, got {least}, {most}, {first} and {later}"
            )
        self.least, self.most, self.first, self.later = least, most, first, later

    def begin(self, n: int, device: str) -> None:
        super().begin(n, device)
        self.memory["last"] = zeros((n,), np.int64, device)

    def step(self, result: Result) -> Result:
        self.memory["step"] += 1
        return result._replace(truncated=result.truncated | (self.memory["step"] >= self.memory["last"]))

    def reset(self, observation: Observation, rows: Array) -> Observation:
        super().reset(observation, rows)
        is_first = self.memory["episode"] == 0
        drawn = self.uniform() < is_first * self.first + ~is_first * self.later
        last = self.least + self.bits(1) % (self.most - self.least + 1)
        self.memory["last"] = merged(self.memory["last"], rows, last * drawn + NEVER * ~drawn)
        return observation


class StepCount(Transform):
    """The observation with an entry more: how many steps the episode has had [1], times `scale`.

    TorchRL: StepCounter; Gymnasium: TimeAwareObservation(flatten=False).
    """

    def __init__(self, entry: str = "step_count", scale: float = 1.0) -> None:
        super().__init__()
        self.entry, self.scale = entry, scale

    def spaces(self, observation: Space, action: Space) -> Spaces:
        return space_with_entry(observation, self.entry, Box(0, np.inf, (1,), np.float32)), action

    def begin(self, n: int, device: str) -> None:
        self.memory = {"taken": zeros((n, 1), np.float32, device)}

    def step(self, result: Result) -> Result:
        self.memory["taken"] = taken = self.memory["taken"] + 1
        return result._replace(observation=with_entry(result.observation, self.entry, taken * self.scale))

    def reset(self, observation: Observation, rows: Array) -> Observation:
        self.memory["taken"] = taken = self.memory["taken"] * ~rows[:, None]
        return with_entry(observation, self.entry, taken * self.scale)


class TrajectoryId(Transform):
    """A number for each episode, which goes into the batch as `trajectory`: neighbouring rows of a replay buffer that have the same one are
    of one episode. Environment i of N counts i, i + N, i + 2 N. TorchRL: TrajCounter."""

    def begin(self, n: int, device: str) -> None:
        ids = like(np.arange(-n, 0), zeros((n,), np.int64, device))
        self.memory, self._n = {"trajectory": ids}, n

    def reset(self, observation: Observation, rows: Array) -> Observation:
        self.memory["trajectory"] = self.memory["trajectory"] + self._n * rows
        return observation

    def trajectory(self, inside: Array | None) -> Array | None:
        return self.memory["trajectory"]


class NoopStart(Drawing):
    """Each episode begins with 1 .. most times the action `noop`, before the agent sees it. Mnih et al. 2015.

    Those are steps in which the row waits: `valid` is False, so that nobody learns from them, and what they pay is not counted, as where
    Gymnasium plays them in its reset. An episode that ends in them is not counted, either.
    TorchRL: NoopResetEnv. Gymnasium: AtariPreprocessing(noop_max).
    """

    def __init__(self, most: int = 30, noop: Any = 0) -> None:
        super().__init__()
        if most < 1:
            raise BadInput(f"NoopStart needs most of at least 1, got {most}")
        self.most, self.noop = most, noop

    def spaces(self, observation: Space, action: Space) -> Spaces:
        noop = np.full(action.shape or (), self.noop, action.dtype)
        if not action.contains(noop if noop.shape else noop[()]):
            raise Incompatible(f"{self.noop!r} is no action of {action}")
        self._noop = torch.as_tensor(noop)
        return observation, action

    def begin(self, n: int, device: str) -> None:
        super().begin(n, device)
        self.memory["left"] = zeros((n,), np.int64, device)
        self._noops = like(self._noop.expand(n, *self._noop.shape), self.memory["left"])

    def play(self, world: Any, action: Array, rows: np.ndarray | None) -> Any:
        waits = self.memory["left"] > 0
        if isinstance(action, np.ndarray) and not waits.any():
            return super().play(world, action, rows)
        step = super().play(world, merged(action, waits, self._noops), rows)
        valid = ~waits if step.valid is None else step.valid & ~waits
        self.memory["left"] -= 1 * (waits if step.valid is None else step.valid & waits)
        ended = (step.terminated | step.truncated) & waits
        self.reset(step.observation, ended)
        return step._replace(
            next_observation=merged(step.next_observation, ended, step.observation),  # nobody is told that it ended
            reward=step.reward * valid,
            terminated=step.terminated & valid,
            truncated=step.truncated & ~waits,
            valid=valid,
        )

    def reset(self, observation: Observation, rows: Array) -> Observation:
        super().reset(observation, rows)
        self.memory["left"] = merged(self.memory["left"], rows, 1 + self.bits() % self.most)
        return observation


class EndOfLife(Transform):
    """`terminated` where `info[entry]`, the number of lives, has become less; the game goes on, and the next life begins where it stands.

    Mnih et al. 2015. Episodes of statistics stay whole games. A life lost in the first step of a game is not seen.
    TorchRL: EndOfLifeTransform. Gymnasium: AtariPreprocessing(terminal_on_life_loss); its next reset begins a new game.
    """

    training_only = True

    def __init__(self, entry: str = "lives") -> None:
        super().__init__()
        self.entry = entry

    def begin(self, n: int, device: str) -> None:
        self.memory = {"lives": zeros((n,), np.int64, device)}
        self._lost = zeros((n,), bool, device)
        self._all = ~self._lost

    def play(self, world: Any, action: Array, rows: np.ndarray | None) -> Any:
        step = super().play(world, action, rows)
        if self.entry not in step.info:
            if step.valid is not None and not step.valid.any():
                return step
            raise BadInput(
                f"EndOfLife reads info[{self.entry!r}], and the info of {world!r} has {', '.join(step.info) or 'nothing'}"
            )
        lives = like(step.info[self.entry], step.reward)
        counts = like(step.info.get(f"_{self.entry}", self._all), step.reward)
        counts = counts if step.valid is None else counts & step.valid
        self._lost = (lives < self.memory["lives"]) & counts & ~(step.terminated | step.truncated)
        self.memory["lives"] = merged(self.memory["lives"], counts, lives)
        here = step.observation if step.observation is not step.next_observation else copied(step.observation)
        over = step.info.get("game_over", step.terminated | step.truncated)
        info = ChainMap({"game_over": over}, step.info)
        return step._replace(observation=here, terminated=step.terminated | self._lost, info=info)

    def reset(self, observation: Observation, rows: Array) -> Observation:
        self.memory["lives"] *= ~rows | self._lost  # unknown in a new game until its first step
        return observation


class Finite(Transform):
    """Raises NotFinite, naming what and where, for observations and rewards that are NaN or infinite here in the chain; with `replace`
    they are that number instead. An environment's own are found before any transform. TorchRL: FiniteTensorDictCheck."""

    def __init__(self, replace: float | None = None) -> None:
        super().__init__()
        self.replace = replace

    def step(self, result: Result) -> Result:
        observation = self.look(result.observation)
        return result._replace(observation=observation, reward=self.checked(result.reward, "reward"))

    def reset(self, observation: Observation, rows: Array) -> Observation:
        return self.look(observation)

    def forward(self, batch: Batch) -> Batch:
        """`observation`, `next.observation` and `next.reward`."""
        batch["next"]["reward"] = self.checked(batch["next"]["reward"], "reward")
        return observed(batch, self.look)

    def look(self, observation: Observation) -> Observation:
        """The observation as it is, or with `replace`."""
        return tree_map(lambda leaf: self.checked(leaf, "observation"), observation)

    def checked(self, x: Array, what: str) -> Array:
        """The same for one array."""
        if "float" not in str(x.dtype):
            return x
        if self.replace is not None:
            mend: Any = np.nan_to_num if isinstance(x, np.ndarray) else torch.nan_to_num
            return mend(x, nan=self.replace, posinf=self.replace, neginf=self.replace)
        finite: Any = abs(x) < np.inf  # type: ignore[operator]
        if not finite.all():
            row = int(np.argwhere(~like(finite, np.zeros(0)))[0, 0])
            raise NotFinite(
                f"a transform within Finite made {what} of row {row} {x[row].tolist()}: mend it, or replace such numbers"
            )
        return x
