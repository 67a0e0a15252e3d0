"""`episodes.csv`: one line per finished episode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from whorl.batch import Arrays, Numbers, State
from whorl.collectors.ledger import Episode
from whorl.files import Lines
from whorl.training.loggers import Logger

HEADER = ("step", "env", "return", "length")


class EpisodesCsv(Logger):
    """Appends finished episodes: steps of the run at its end, index of the environment, raw return, length in steps, and the
    numbers `named` of their info."""

    def __init__(self, path: str | Path, named: Sequence[str] = ()):
        self._named = tuple(named)
        self._lines = Lines(path)
        self._begin()

    def add(self, episodes: Sequence[Episode]) -> None:
        """All in one write, or none. Raises OSError when the disk is full."""
        self._lines.append("".join(map(self._row, episodes)))

    def _row(self, episode: Episode) -> str:
        step, env, total, length, info = episode
        numbers = "".join(f",{'' if math.isnan(number) else repr(number)}" for number in info)
        return f"{int(step)},{int(env)},{float(total)!r},{int(length)}{numbers}\n"

    def state(self) -> State:
        return {}, self._lines.position()

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        """Cuts off the episodes that came later."""
        self._lines.rewind(numbers)
        self._begin()
        return True

    def close(self) -> None:
        self._lines.close()

    def _begin(self) -> None:
        if self._lines.empty:
            self._lines.append(",".join(HEADER + self._named) + "\n")
