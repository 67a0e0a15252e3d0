"""JSON from strangers, by the letter of the standard."""

from __future__ import annotations

import json
from typing import Any


def strict(text: bytes | str) -> Any:
    """The value of a JSON text. Raises ValueError for what is not JSON, NaN and Infinity included, RecursionError for what is nested
    deeper than Python reads."""
    return json.loads(text, parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")
