"""Settings to JSON and back: frozen dataclasses only, so nothing on disk can name code to run."""

from __future__ import annotations

import dataclasses
import json
import typing
from typing import Any

from whorl.errors import BadInput
from whorl.training.catalog import did_you_mean


def to_json(config: Any) -> dict[str, Any]:
    """A (nested) dataclass as plain dicts and lists."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_json(cls: type, data: dict[str, Any]) -> Any:
    """The dataclass `cls` from what `to_json` gave. Raises BadInput for a field that it does not have."""
    return override(cls(), data)


def override(config: Any, fields: dict[str, Any]) -> Any:
    """`config` with some fields replaced; a nested dataclass takes a dict. Raises BadInput for unknown fields, with near matches."""
    hints = typing.get_type_hints(type(config))
    known = {f.name for f in dataclasses.fields(config)}
    values = {}
    for name, value in fields.items():
        if name not in known:
            raise BadInput(
                f"{type(config).__name__} has no option {name!r}{did_you_mean(name, known)}. It has {', '.join(sorted(known))}"
            )
        old = getattr(config, name)
        if dataclasses.is_dataclass(old) and isinstance(value, dict):
            value = override(old, value)
        choices = typing.get_args(hints[name]) if typing.get_origin(hints[name]) is typing.Literal else ()
        if choices and value not in choices:
            raise BadInput(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
        values[name] = tuple(value) if isinstance(value, list) else value
    return dataclasses.replace(config, **values)
