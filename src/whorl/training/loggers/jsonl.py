"""`metrics.jsonl`: one line {"step": ..., name: value, ...} per call."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from whorl.batch import Arrays, Numbers, State
from whorl.files import Lines
from whorl.training.loggers import Logger


class JsonLines(Logger):
    """Appends to a JSON Lines file. Numbers read back to the last bit; NaN and infinity, unknown to JSON, are null."""

    def __init__(self, path: str | Path):
        self._lines = Lines(path)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Raises OSError, leaving no half line, when the disk is full."""
        self._lines.append(
            json.dumps({"step": int(step)} | {name: _number(value) for name, value in metrics.items()}) + "\n"
        )

    def state(self) -> State:
        return {}, self._lines.position()

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        self._lines.rewind(numbers)
        return True

    def close(self) -> None:
        self._lines.close()


def _number(value: float) -> float | int | None:
    if isinstance(value, int):
        return int(value)
    value = float(value)
    return value if math.isfinite(value) else None
