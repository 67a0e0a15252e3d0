"""`episodes.csv`: one line per finished episode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from whorl.batch import Arrays, Numbers, State
from whorl.collectors.ledger import Episode
from whorl.files import Lines
from whorl.training.loggers import Logger

HEADER = "step,env,return,length\n"


class EpisodesCsv(Logger):
    """Appends finished episodes: steps of the run at its end, index of the environment, raw return, length in steps."""

    def __init__(self, path: str | Path):
        self._lines = Lines(path)
        self._begin()

    def add(self, episodes: Sequence[Episode]) -> None:
        """All in one write, or none. Raises OSError when the disk is full."""
        rows = [f"{int(step)},{int(env)},{float(total)!r},{int(length)}\n" for step, env, total, length in episodes]
        self._lines.append("".join(rows))

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
            self._lines.append(HEADER)
