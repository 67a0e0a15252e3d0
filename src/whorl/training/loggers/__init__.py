"""Where the numbers of a run go. A logger has some of: `log(step, metrics)`, `add(episodes)`, `message(text)`,
`error(text)`, `position()`, `rewind(position)`, `close()`. `Loggers` calls each on those that have it, and keeps their
failures away from training."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from whorl.collectors.ledger import Episode


class Loggers:
    """Several loggers as one. One that fails is reported once, counted in `failures`, tried again at the next call, and
    never stops training. A context manager: leaving it closes all of them."""

    def __init__(self, loggers: Iterable[Any]):
        self.failures: dict[str, int] = {}
        self._loggers: dict[str, Any] = {}
        for logger in loggers:
            kind = type(logger).__name__
            same = sum(name.split()[0] == kind for name in self._loggers)
            self._loggers[f"{kind} {same + 1}" if same else kind] = logger

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """`metrics` at `step` environment steps."""
        self._each("log", step, metrics)

    def add(self, episodes: Sequence[Episode]) -> None:
        """Finished episodes, raw returns."""
        self._each("add", episodes)

    def message(self, text: str) -> None:
        self._each("message", text)

    def position(self) -> dict[str, dict[str, int]]:
        """Where each logger stands, for the checkpoint (JSON). What was logged so far is on disk when it returns."""
        return {name: position for name, position in self._each("position").items() if position is not None}

    def rewind(self, position: Mapping[str, dict[str, int]]) -> None:
        """Takes back all that was logged after `position`. A logger that is not in it is left as it is."""
        for name in position.keys() & self._loggers.keys():
            self._call(name, "rewind", position[name])

    def close(self) -> None:
        self._each("close")

    def __enter__(self) -> Loggers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _each(self, method: str, *args: Any) -> dict[str, Any]:
        return {
            name: self._call(name, method, *args) for name, logger in self._loggers.items() if hasattr(logger, method)
        }

    def _call(self, name: str, method: str, *args: Any) -> Any:
        try:
            return getattr(self._loggers[name], method)(*args)
        except Exception as error:  # whatever a logger dies of, the training that it watches goes on
            self.failures[name] = self.failures.get(name, 0) + 1
            if self.failures[name] == 1:
                self._report(
                    f"logger {name} failed in {method} ({type(error).__name__}: {error}). "
                    "Training goes on, and it is tried again"
                )
            return None

    def _report(self, text: str) -> None:
        for name, logger in self._loggers.items():
            if name not in self.failures and hasattr(logger, "error"):
                return logger.error(text)
        with suppress(OSError):  # standard error is gone too: `failures` still has it
            print(text, file=sys.stderr, flush=True)
