"""`episodes.csv`: one line per finished episode."""

from __future__ import annotations

from pathlib import Path

from whorl.collectors.ledger import Episode
from whorl.files import Lines

HEADER = "step,env,return,length\n"


class EpisodesCsv:
    """Appends finished episodes: steps of the run at its end, index of the environment, raw return, length in steps."""

    def __init__(self, path: str | Path):
        self._lines = Lines(path)
        self.position, self.close = self._lines.position, self._lines.close
        self._begin()

    def add(self, episodes: list[Episode]) -> None:
        """All in one write, or none. Raises OSError when the disk is full."""
        rows = [f"{int(step)},{int(env)},{float(total)!r},{int(length)}\n" for step, env, total, length in episodes]
        self._lines.append("".join(rows))

    def rewind(self, position: dict[str, int]) -> None:
        """Cuts off the episodes after `position`."""
        self._lines.rewind(position)
        self._begin()

    def _begin(self) -> None:
        if self._lines.empty:
            self._lines.append(HEADER)
