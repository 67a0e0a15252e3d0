"""Progress for people: a live line on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, TextIO

from whorl.batch import Arrays, Numbers, State
from whorl.training.loggers import Logger

if TYPE_CHECKING:
    from rich.live import Live


def live(stream: TextIO, transient: bool = False) -> Live | None:
    """What is renewed in place, started; None where the stream is no terminal. transient: it is gone after `stop`."""
    if not stream.isatty() or os.environ.get("TERM") == "dumb":
        return None
    from rich.console import Console as Terminal
    from rich.live import Live

    begun = Live(
        console=Terminal(file=stream),
        auto_refresh=False,
        transient=transient,
        redirect_stdout=False,  # results, not progress
        redirect_stderr=stream is sys.stderr,  # warnings of others go above the live lines
    )
    begun.start()
    return begun


class Console(Logger):
    """Shows steps, steps/s, time left and mean return of recent episodes.

    On a terminal: one line that is renewed, at most ten times a second. Elsewhere (file, pipe): one line every
    `interval` seconds and one at the end. `quiet`: nothing but errors. `stream` is standard error unless given, so that
    standard output holds results only. `close`, also reached by leaving it as a context manager, gives the terminal
    back.
    """

    def __init__(self, total_steps: int, stream: TextIO | None = None, interval: float = 5.0, quiet: bool = False):
        self._total, self._quiet = total_steps, quiet
        self._stream = sys.stderr if stream is None else stream
        self._live = None if quiet else live(self._stream)
        self._interval = 0.1 if self._live else interval
        self._return = math.nan
        self._first, self._start, self._shown = 0, 0.0, 0.0
        self._waiting = ""  # a line that was not shown yet
        self._begin(0)
        if self._live:
            self._shown = -math.inf  # the first line at once

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Uses `rollout/ep_rew_mean` (the last one known) and `time/fps` (else the mean rate since the beginning)."""
        now = time.monotonic()
        self._step = step
        self._return = float(metrics.get("rollout/ep_rew_mean", self._return))
        mean_rate = (step - self._first) / max(now - self._start, 1e-9)
        left = (self._total - step) / mean_rate if mean_rate > 0 else math.inf
        self._waiting = (
            f"{step:,} / {self._total:,} steps ({min(100 * step / max(self._total, 1), 100):.0f}%)"
            f"  {float(metrics.get('time/fps', mean_rate)):,.0f} steps/s  left {duration(left)}"
            f"  return {'-' if math.isnan(self._return) else f'{self._return:,.2f}'}"
        )
        if now - self._shown >= self._interval:
            self._show()
            self._shown = now

    def message(self, text: str) -> None:
        """A line of its own, above the live one."""
        if not self._quiet:
            self.error(text)

    def error(self, text: str) -> bool:
        """As `message`, but quiet does not silence it."""
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)
        return True

    def state(self) -> State:
        return {}, {"step": self._step}

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        """Counts the mean rate from here on."""
        self._begin(numbers["step"])
        return True

    def close(self) -> None:
        """Shows the last line, and the cursor again."""
        try:
            if self._waiting:
                self._show()
        finally:
            if self._live is not None:
                self._live.stop()
                self._live = None

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, step: int) -> None:
        self._first = self._step = step
        self._start = self._shown = time.monotonic()

    def _show(self) -> None:
        line, self._waiting = self._waiting, ""
        if self._live is not None:
            from rich.text import Text

            self._live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)
        elif not self._quiet:
            print(line, file=self._stream, flush=True)


def duration(seconds: float) -> str:
    """None is left where the last rollout went past the end."""
    if not math.isfinite(seconds):
        return "?"
    minutes, seconds = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
