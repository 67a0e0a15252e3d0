"""JSON by the letter of the standard, as text: what is written reads back equal, and what is no JSON is one sentence."""

from __future__ import annotations

import json
import math
from typing import Any

from whorl.errors import BadInput, Damaged

JSON_BYTES = 64 << 20  # far above any JSON file that whorl writes: what is larger is not read


def json_bytes(data: Any, what: str) -> bytes:
    """`data` as JSON that reads back equal: floats to the last bit, key order kept.

    Raises BadInput, naming the place, for what JSON cannot keep: NaN and infinity, tuples, keys that are not strings,
    other types.
    """
    _check_json(data, what)
    return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()


def _check_json(value: Any, place: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise BadInput(f"{place} has the key {key!r}, a {type(key).__name__}: JSON keeps only strings as keys")
            _check_json(inner, f"{place}[{key!r}]")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_json(inner, f"{place}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise BadInput(f"{place} is {value}: JSON keeps only finite numbers. Write None, or a string")
    elif value is not None and not isinstance(value, (bool, int, float, str)):
        raise BadInput(
            f"{place} is a {type(value).__name__}, which JSON cannot give back as it was: "
            "use numbers, strings, lists and dicts (tensors go to the tensor groups of a checkpoint)"
        )


def parse_json(data: bytes | str, where: object) -> Any:
    """The value of a JSON text. Raises Damaged, beginning with `where`, when it is none."""
    try:
        return strict(data)
    except (ValueError, RecursionError) as error:
        raise Damaged(
            f"{where} is not valid JSON ({error}): it was cut off or changed. Restore it from a copy"
        ) from None


def strict(text: bytes | str) -> Any:
    """The value of a JSON text, by the letter of the standard. Raises ValueError for what is not JSON, NaN, Infinity and numbers that
    no float holds included, RecursionError for what is nested deeper than Python reads."""
    return json.loads(text, parse_constant=_refuse, parse_float=_float)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")


def _float(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def shown(value: Any, most: int = 100) -> str:
    """A value from outside for a message: in ASCII, cut behind `most` characters."""
    text = ascii(value)
    return text if len(text) <= most else text[:most] + "..."
