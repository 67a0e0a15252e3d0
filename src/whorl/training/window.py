"""Sliding statistics of training episodes: the newest `size` of them, in bounded memory."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from whorl.batch import Arrays, Numbers, State
from whorl.errors import BadInput, NotFinite


class Window:
    """Statistics of the newest `size` episodes, or of all while there are fewer. `len` is how many those are.

    The window slides by one episode with every `add`; nothing older than `size` episodes is kept. Sums are exact
    (`math.fsum`), so a long run does not drift and `load_state` goes on to the same bits. Before the first episode the
    statistics raise BadInput: ask `len` first.
    """

    def __init__(self, size: int):
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise BadInput(f"a window holds at least 1 episode, got {size!r}")
        self.size = size
        self.count = 0  # episodes so far, those that left the window too
        self.best_mean: float | None = (
            None  # highest mean of `size` consecutive episodes; None before there were as many
        )
        self._returns: deque[float] = deque(maxlen=size)
        self._lengths: deque[int] = deque(maxlen=size)

    def add(self, ret: float, length: int) -> None:
        """One finished episode: its raw return and its length in steps. O(size). Raises NotFinite for a return that is
        NaN or infinite; the window stays as it was."""
        ret = float(ret)
        if not math.isfinite(ret):
            raise NotFinite(f"episode {self.count + 1} has the return {ret}: the environment gave such a reward")
        self._returns.append(ret)
        self._lengths.append(int(length))
        self.count += 1
        mean = self.last_mean
        if mean is not None and (self.best_mean is None or mean > self.best_mean):
            self.best_mean = mean

    def __len__(self) -> int:
        return len(self._returns)

    @property
    def last_mean(self) -> float | None:
        """Mean return of the newest `size` episodes; None before there were as many."""
        return self.mean if len(self) == self.size else None

    @property
    def mean(self) -> float:
        """Mean return."""
        return math.fsum(self._some()) / len(self)

    @property
    def std(self) -> float:
        """Population standard deviation of the returns, sqrt(mean((R - mean(R))^2)): 0.0 for a single episode."""
        return float(np.std(self._some()))

    @property
    def min(self) -> float:
        return min(self._some())

    @property
    def max(self) -> float:
        return max(self._some())

    @property
    def median(self) -> float:
        """Median return; of an even number, the mean of the middle two."""
        return float(np.median(self._some()))

    @property
    def mean_length(self) -> float:
        """Mean length in steps."""
        self._some()
        return sum(self._lengths) / len(self)

    def _some(self) -> deque[float]:
        if not self._returns:
            raise BadInput("no episode has finished yet, so the window has no statistics")
        return self._returns

    def state(self) -> State:
        """Everything `load_state` needs, as plain JSON data."""
        episodes = [[ret, length] for ret, length in zip(self._returns, self._lengths)]
        return {}, {"size": self.size, "count": self.count, "best_mean": self.best_mean, "episodes": episodes}

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        """Go on from `state()`. Raises BadInput when that window had another size."""
        if numbers["size"] != self.size:
            raise BadInput(
                f"the saved window holds {numbers['size']} episodes, this one {self.size}: use the same size"
            )
        best = numbers["best_mean"]
        self.count, self.best_mean = numbers["count"], None if best is None else float(best)
        self._returns = deque((float(ret) for ret, _ in numbers["episodes"]), self.size)
        self._lengths = deque((int(length) for _, length in numbers["episodes"]), self.size)
        return True
