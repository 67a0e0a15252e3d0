"""Hindsight relabelling at sample time: what was reached by chance becomes the goal that was wanted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from whorl.batch import Arrays, Batch, Numbers, State
from whorl.buffers.lookup.lookup import Lookup
from whorl.buffers.parts import Storage
from whorl.buffers.sample_uniform import Uniforms
from whorl.errors import BadInput, BatchError

STRATEGIES = ("future", "final", "episode", "random")
GOALS = ("observation.desired_goal", "next.observation.desired_goal", "next.observation.achieved_goal")
LOOK = 1 << 16  # rows whose flags are looked at together
Judge = Callable[[Tensor, Tensor], Tensor]


class Hindsight(Lookup):
    """Gives rows other goals, in environments whose observation is a Dict with `achieved_goal` and `desired_goal`.

    Each row is relabelled with probability `fraction`. Its desired_goal, in observation and next.observation, becomes the
    next.observation.achieved_goal of another live row, uniform among
        future   the row itself and those after it in its episode, as far as they are stored
        final    the last of these only
        episode  all of its episode
        random   all
    and next.reward becomes reward(achieved_goal, desired_goal), with achieved_goal of next.observation, both [B, *goal].
    `terminated`, if given, is the same for next.terminated: for environments that end on success. `relabelled` [B] bool
    tells which rows. No episode is followed across its end, the write cursor or into another lane.

    Andrychowicz et al. 2017, section 4.5; "future" with k goals for each real one is fraction = k / (k + 1).
    Random numbers: the stream (seed, "relabel", block).
    Raises BadInput for an unknown strategy, a fraction outside of [0, 1], sequences, n-step returns with n > 1, and
    functions that do not give [B]; BatchError naming the goal keys that are missing.
    """

    def __init__(
        self,
        reward: Judge,
        strategy: str = "future",
        fraction: float = 0.8,
        seed: int = 0,
        terminated: Judge | None = None,
    ):
        if strategy not in STRATEGIES:
            raise BadInput(f"strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}")
        if not 0 <= fraction <= 1:
            raise BadInput(f"fraction must lie in [0, 1], got {fraction}")
        self.reward, self.strategy, self.fraction, self.terminated = reward, strategy, fraction, terminated
        self._uniforms = Uniforms(seed, "relabel")
        self._episodes: Episodes | None = None

    def __call__(self, storage: Storage, index: Tensor, batch: Batch) -> Batch:
        if self._episodes is None or self._episodes.storage is not storage:
            self._episodes = Episodes(storage)
        self._check(storage, index, batch)
        k, lane = np.divmod(index.cpu().numpy(), storage.lanes)
        numbers = self._uniforms.take(2 * len(k))
        # others may write over the rows that give the goals, too
        self.touched = torch.from_numpy(self._choose(storage, k, lane, numbers[len(k) :]))
        goal = storage.slot(self.touched.to(storage.device))
        goals = storage.column("next.observation.achieved_goal")[goal]
        storage.looked_at(len(k))
        chosen = torch.from_numpy(numbers[: len(k)] < self.fraction).to(storage.device)
        rows = chosen.view(-1, *(1,) * (goals.ndim - 1))
        here, after = batch["observation"], batch["next"]
        there = after["observation"]
        here["desired_goal"] = torch.where(rows, goals, here["desired_goal"])
        there["desired_goal"] = torch.where(rows, goals, there["desired_goal"])
        reward = self._judged("reward", self.reward, there).float()
        after["reward"] = torch.where(chosen, reward, after["reward"])
        if self.terminated is not None:
            terminated = self._judged("terminated", self.terminated, there).bool()
            after["terminated"] = torch.where(chosen, terminated, after["terminated"])
        batch["relabelled"] = chosen
        return batch

    def _choose(self, storage: Storage, k: np.ndarray, lane: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Absolute indexes of the rows that give the goals, for rows (k, lane) and numbers uniform in [0, 1)."""
        low, high = storage.live()
        if self.strategy == "random":
            ends = np.cumsum(high - low)
            j = (numbers * ends[-1]).astype(np.int64)
            lane = np.searchsorted(ends, j, side="right")
            return (high[lane] - (ends[lane] - j)) * storage.lanes + lane
        assert self._episodes is not None
        first, last = self._episodes.of(k, lane)
        if self.strategy == "final":
            return last * storage.lanes + lane
        start = k if self.strategy == "future" else np.maximum(first, low[lane])
        return (start + (numbers * (last - start + 1)).astype(np.int64)) * storage.lanes + lane

    def _judged(self, name: str, judge: Judge, there: Batch) -> Tensor:
        result = judge(there["achieved_goal"], there["desired_goal"])
        expected = there.batch_size
        if tuple(result.shape) != tuple(expected):
            raise BadInput(
                f"the {name} function of hindsight relabelling gave shape {list(result.shape)}, expected {list(expected)}: "
                "one number for each row of goals"
            )
        return result

    def _check(self, storage: Storage, index: Tensor, batch: Batch) -> None:
        names = storage.names()
        missing = [name for name in GOALS if name not in names]
        if missing:
            raise BatchError(
                f"hindsight relabelling needs goals, and the buffer has no {', '.join(missing)}: it takes an environment "
                "whose observation is a Dict with achieved_goal and desired_goal"
            )
        if index.ndim != 1:
            raise BadInput(
                "hindsight relabelling takes single rows: a sequence [T, B] would need one goal for all of its rows"
            )
        if "discount" in batch["next"].keys() and "next.discount" not in names:  # noqa: SIM118
            raise BadInput(
                "hindsight relabelling recomputes the reward of one row, an n-step return sums those of several under the "
                "old goal: use n_step = 1"
            )

    def state(self) -> State:
        """Where the stream of random numbers stands; episodes are found again from the stored flags."""
        return self._uniforms.state()

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        self._episodes = None
        return self._uniforms.load_state(arrays, numbers)


class Episodes:
    """The first and last row of each stored row's episode, from the flags in the storage.

    Rows are looked at once, when they are new: `of` costs the rows written since it was asked before.
    """

    def __init__(self, storage: Storage):
        from whorl.buffers.episode_kernel import extend  # compiles

        self.storage, self._extend = storage, extend
        self._first, self._last = np.zeros((2, storage.ring * storage.lanes), np.int64)
        self._begin = np.full(storage.lanes, -1, np.int64)  # where the episode under way began; -1: none is
        self._seen = np.zeros(storage.lanes, np.int64)

    def of(self, k: np.ndarray, lane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(first, last) as counts within the lane, as k is. A first row may be older than the storage; the last row of an
        episode under way is the newest of its lane."""
        self._look()
        storage = self.storage
        slot = (k % storage.ring) * storage.lanes + lane
        last = self._last[slot]
        return self._first[slot], np.where(last < 0, self._seen[lane] - 1, last)

    def _look(self) -> None:
        """Takes in the rows that are new."""
        storage, count = self.storage, self.storage.count.copy()
        if np.array_equal(count, self._seen):
            return
        gone = (count < self._seen) | (count - self._seen > storage.ring)  # rolled back, or more than the ring holds
        self._seen[gone] = np.maximum(count - storage.ring, 0)[gone]
        self._begin[gone] = -1
        while (self._seen < count).any():
            self._take_in(np.minimum(self._seen + max(1, LOOK // storage.lanes), count))

    def _take_in(self, count: np.ndarray) -> None:
        storage, new = self.storage, count - self._seen
        lane = np.repeat(np.arange(storage.lanes), new)
        k = np.arange(len(lane)) - np.repeat(np.cumsum(new) - new - self._seen, new)
        slot = storage.slot(torch.from_numpy(k * storage.lanes + lane).to(storage.device))
        ended = storage.column("next.terminated")[slot] | storage.column("next.truncated")[slot]
        storage.looked_at(len(lane))
        starts = storage.column("is_first")[slot] if "is_first" in storage.names() else torch.zeros_like(ended)
        flags = ended.cpu().numpy(), starts.cpu().numpy()
        self._extend(self._first, self._last, self._begin, k, lane, *flags, storage.ring)
        self._seen = count
