"""The ledger: how far a run has come, and its episodes, those under way and those that have ended."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from whorl.batch import Arrays, Numbers, State
from whorl.jit import jit
from whorl.spaces import restored, to_tensors

Array = np.ndarray
EVERY = slice(None)  # environment


class Episode(NamedTuple):
    """A finished episode."""

    step: int  # environment steps taken by all environments when the rollout in which it ended was complete
    env: int
    ret: float  # sum of raw rewards
    length: int  # steps
    info: tuple[float, ...] = ()  # what the run asked of info, see tally.py


class Ledger:
    """Counts the progress of a run in `unit`, and the episodes of `num_envs` environments.

    count: progress so far. finished: episodes so far. lost: those that were given up where a row was invented (`truncated` where `mask`
    is False), which are in no statistics. most_episodes: after how many `done` says so. episodes: those that ended in the
    last rollout. returns, lengths [N]: of the episodes under way.
    """

    def __init__(self, num_envs: int = 0, unit: str = "environment steps"):
        self.unit = unit
        self.count = self.finished = self.lost = 0
        self.most_episodes = math.inf
        self.episodes: list[Episode] = []
        self.returns = np.zeros(num_envs)
        self.lengths = np.zeros(num_envs, np.int64)

    def done(self, total: int) -> bool:
        """Whether a progress of `total`, or `most_episodes` episodes, are over."""
        return self.count >= total or self.finished >= self.most_episodes

    def add(self, reward: Array, terminated: Array, truncated: Array, mask: Array) -> None:
        """Count a rollout, arrays [T, N]; `mask` False: no step."""
        found = np.empty((reward.size, 3))
        steps, ended, lost = _add(reward, terminated, truncated, mask, self.returns, self.lengths, found)
        self.lost += lost
        step = self.count + steps
        self.advance(steps, [Episode(step, int(i), ret, int(n)) for i, ret, n in found[:ended].tolist()])

    def add_step(
        self,
        reward: Array,
        terminated: Array,
        truncated: Array,
        mask: Array,
        is_first: Array,
        games: Array | None = None,
    ) -> bool:
        """Count one step, arrays [N], and set `is_first` where another episode begins; `games`: `terminated`, or where else a counted one
        ends. False, and nothing is counted: a reward is not finite."""
        games = terminated if games is None else games
        before = games, self.returns, self.lengths
        steps, ended, lost, finite = _add_step(reward, terminated, truncated, mask, is_first, *before)
        if finite:
            self.count, self.lost = self.count + steps, self.lost + lost
            self.episodes = self._ended((games | truncated) & mask) if ended else []
        return finite

    def _ended(self, where: Array) -> list[Episode]:
        """The episodes that end now; what is added up begins anew."""
        rows = np.flatnonzero(where)
        episodes = [Episode(self.count, int(i), float(self.returns[i]), int(self.lengths[i])) for i in rows]
        self.returns[rows], self.lengths[rows] = 0.0, 0
        self.finished += len(episodes)
        return episodes

    def advance(self, steps: int, episodes: list[Episode]) -> None:
        """Take over what was counted elsewhere: progress, and the episodes that ended on the way."""
        self.count += steps
        self.finished += len(episodes)
        self.episodes = episodes

    def forget(self, rows: slice = EVERY) -> None:
        """The episodes under way were given up."""
        self.returns[rows], self.lengths[rows] = 0, 0

    def state(self) -> State:
        arrays = to_tensors({"return": self.returns, "length": self.lengths})
        return arrays, {"count": self.count, "finished": self.finished, "lost": self.lost}

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        self.count, self.finished = numbers["count"], numbers["finished"]
        self.lost = numbers.get("lost", 0)  # in folders of before it was counted
        self.returns[:], self.lengths[:] = (
            restored(arrays, "return", self.returns),
            restored(arrays, "length", self.lengths),
        )
        return True


@jit
def _add(
    reward: Array, terminated: Array, truncated: Array, mask: Array, returns: Array, lengths: Array, found: Array
) -> tuple[int, int, int]:
    """Adds rows [T, N] to what is under way, and moves what ended to `found` (environment, return, length). (steps, how many ended, how
    many were lost)."""
    steps, ended, lost = 0, 0, 0
    for t in range(len(reward)):
        for i in range(len(returns)):
            if mask[t, i]:
                steps += 1
                returns[i] += reward[t, i]
                lengths[i] += 1
                if terminated[t, i] or truncated[t, i]:
                    found[ended, 0], found[ended, 1], found[ended, 2] = i, returns[i], lengths[i]
                    returns[i], lengths[i] = 0, 0
                    ended += 1
            elif truncated[t, i] and lengths[i] > 0:  # else the row waits for others, and what ends there is nobody's
                returns[i], lengths[i] = 0, 0
                lost += 1
    return steps, ended, lost


@jit
def _add_step(
    reward: Array, terminated: Array, truncated: Array, mask: Array, is_first: Array, games: Array, returns: Array,
    lengths: Array,
) -> tuple[int, int, int, bool]:  # fmt: skip
    """Adds one step up where `mask` is set. (steps, how many episodes ended, how many were lost, whether all rewards are finite)."""
    steps, ended, lost, finite = 0, 0, 0, True
    for i in range(len(mask)):
        is_first[i] = terminated[i] or truncated[i] or not mask[i]
        finite &= np.isfinite(reward[i])
        if mask[i]:
            steps += 1
            returns[i] += reward[i]
            lengths[i] += 1
            ended += games[i] or truncated[i]
        elif truncated[i] and lengths[i] > 0:
            returns[i], lengths[i] = 0, 0
            lost += 1
    return steps, ended, lost, finite
