"""Where the numbers of a run go. `Loggers` calls each logger and keeps their failures away from training."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from whorl.batch import Arrays, Numbers, State
from whorl.collectors.ledger import Episode
from whorl.errors import BadInput, StopTraining
from whorl.json_text import json_bytes

T = TypeVar("T")


class Logger:
    """A place for the numbers of a run. Each of these does nothing: override those that yours can do."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take `metrics` at `step` of the run's progress."""

    def add(self, episodes: Sequence[Episode]) -> None:
        """Take finished episodes, with raw returns."""

    def message(self, text: str) -> None:
        """Say something about the run."""

    def error(self, text: str) -> bool:
        """Say what went wrong, even where messages are silenced. Whether anybody could see it."""
        return False

    def state(self) -> State:
        """({}, where it stands as plain JSON), for the checkpoint. What was logged so far is on disk when this returns."""
        return {}, {}

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        """Take back all that was logged after `state()`."""
        return True

    def close(self) -> None:
        """Nothing more will come."""


def known(logger: Logger) -> Logger:
    """The logger itself. Raises BadInput for anything else."""
    if not isinstance(logger, Logger):
        raise BadInput(f"a logger is a whorl.Logger that overrides what it can do; {type(logger).__name__} is not")
    return logger


def _plain(logger: Logger) -> Numbers:
    """Its state, which is JSON for sure."""
    _, numbers = logger.state()
    json_bytes(numbers, f"the state of {type(logger).__name__}")
    return numbers


def _trace(error: Exception) -> str:
    """Where the logger went wrong; nothing of a disk that is full, which is no fault of its code."""
    return "" if isinstance(error, OSError) else ":\n" + "".join(traceback.format_exception(error)).rstrip()


def _go_on(numbers: Numbers, logger: Logger) -> bool:
    return logger.load_state({}, numbers)


class Loggers(Logger):
    """Several loggers as one. One that fails is reported once, counted in `failures`, tried again at the next call, and
    never stops training. A context manager: leaving it closes all of them."""

    def __init__(self, loggers: Iterable[Logger]):
        self.failures: dict[str, int] = {}
        self._loggers: dict[str, Logger] = {}
        for logger in loggers:
            kind = type(known(logger)).__name__
            same = sum(name.split()[0] == kind for name in self._loggers)
            self._loggers[f"{kind} {same + 1}" if same else kind] = logger

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._each(lambda logger: logger.log(step, metrics), f"log at step {step}")

    def add(self, episodes: Sequence[Episode]) -> None:
        self._each(lambda logger: logger.add(episodes), "add")

    def message(self, text: str) -> None:
        self._each(lambda logger: logger.message(text), "message")

    def messages(self, texts: Iterable[str]) -> None:
        for text in texts:
            self.message(text)

    def state(self) -> State:
        """By the loggers' names. A logger whose state cannot be had is left out."""
        return {}, self._each(_plain, "state")

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        """A logger that is not among the saved ones is left as it is."""
        names = [name for name in self._loggers if name in numbers]
        answers = [
            self._call(name, partial(_go_on, numbers[name]), "load_state") for name in names
        ]  # each, whoever fails
        return all(answer == (True,) for answer in answers)

    def close(self) -> None:
        self._each(lambda logger: logger.close(), "close")

    def __enter__(self) -> Loggers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _each(self, call: Callable[[Logger], T], what: str) -> dict[str, T]:
        answers = {name: self._call(name, call, what) for name in self._loggers}
        return {name: answer[0] for name, answer in answers.items() if answer}

    def _call(self, name: str, call: Callable[[Logger], T], what: str) -> tuple[T] | None:
        """Its answer, or None where it failed."""
        try:
            return (call(self._loggers[name]),)
        except StopTraining:
            raise
        except Exception as error:  # whatever a logger dies of, the training that it watches goes on
            self.failures[name] = self.failures.get(name, 0) + 1
            if self.failures[name] == 1:
                self.error(
                    f"logger {name} failed in {what} ({type(error).__name__}: {error}). "
                    f"Training goes on, and it is tried again{_trace(error)}"
                )
            return None

    def error(self, text: str) -> bool:
        """To each that has not failed itself; to standard error where none of them could show it."""
        if any(logger.error(text) for name, logger in self._loggers.items() if name not in self.failures):
            return True
        with suppress(OSError):  # standard error is gone too: `failures` still has it
            print(text, file=sys.stderr, flush=True)
            return True
        return False
