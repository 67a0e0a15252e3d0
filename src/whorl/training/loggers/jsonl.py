"""`metrics.jsonl`: one line {"step": ..., name: value, ...} per call."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from whorl.files import Lines


class JsonLines:
    """Appends to a JSON Lines file. Numbers read back to the last bit; NaN and infinity, unknown to JSON, are null."""

    def __init__(self, path: str | Path):
        self._lines = Lines(path)
        self.position, self.rewind, self.close = self._lines.position, self._lines.rewind, self._lines.close

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Raises OSError, leaving no half line, when the disk is full."""
        self._lines.append(
            json.dumps({"step": int(step)} | {name: _number(value) for name, value in metrics.items()}) + "\n"
        )


def _number(value: float) -> float | int | None:
    if isinstance(value, int):
        return int(value)
    value = float(value)
    return value if math.isfinite(value) else None
