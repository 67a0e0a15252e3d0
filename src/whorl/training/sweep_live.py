"""What a sweep shows while it runs: a line for each run that ends and, on a terminal, a table of its slots."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from whorl.errors import Damaged
from whorl.training.loggers.console import duration, live
from whorl.training.sweep_table import last_episodes

INTERVAL = 0.5  # seconds between two tables
COLUMNS = ("slot", "run", "try", "time", "steps", "return")


class SweepLive:
    """A context manager. Goes to stderr, so that standard output holds results only."""

    def __init__(self) -> None:
        self._live, self._shown = live(sys.stderr, transient=True), 0.0

    def say(self, line: str) -> None:
        """A line that stays."""
        if self._live is not None:
            self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def show(self, rows: Callable[[], Iterable[Sequence[str]]], below: str) -> None:
        """The table, whose rows are asked for when it is time for it."""
        now = time.monotonic()
        if self._live is None or now - self._shown < INTERVAL:
            return
        from rich.table import Table
        from rich.text import Text

        table = Table(*COLUMNS, box=None, header_style="bold", caption=below, caption_justify="left")
        for row in rows():
            table.add_row(*map(Text, row))
        self._live.update(table, refresh=True)
        self._shown = now

    def __enter__(self) -> SweepLive:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()


def progress(run: Path | None, began: float) -> tuple[str, str, str]:
    """The time since `began`, a monotonic one, and by its newest episodes the steps and the mean return of a run under way."""
    steps = mean = "-"
    try:
        if run is not None and len(newest := last_episodes(run / "episodes.csv")):
            steps, mean = f"{newest[-1, 0]:,.0f}", f"{newest[:, 1].mean():,.1f}"
    except (OSError, Damaged):  # not there yet, or being written
        pass
    return duration(time.monotonic() - began), steps, mean
