"""The grid of a sweep: `FIELD=a,b,c` as typed values, and the settings that it spans."""

from __future__ import annotations

import dataclasses
import itertools
import math
import typing
from collections.abc import Iterable
from typing import Any

from whorl.errors import BadInput
from whorl.training.catalog import did_you_mean

RUN_SETTINGS: dict[str, Any] = dict.fromkeys(
    ("num_envs", "total_steps", "total_episodes", "max_episode_steps"), int
)  # of `whorl.train`, beside the agent's config
Setting = dict[str, Any]  # field, dotted for a nested one -> value

_WORDS = {bool: "true or false", int: "a whole number", float: "a finite number"}


def parse(texts: Iterable[str], config: Any) -> dict[str, list]:
    """`["learning_rate=1e-3,1e-2", "hidden=64x64,()"]` -> {"learning_rate": [.001, .01], "hidden": [(64, 64), ()]}.

    Fields are those of `config` (a dataclass; `feed.steps` for a nested one) and RUN_SETTINGS. Each value takes the type
    of its field; a tuple is written with x between its numbers, () if it is empty. Raises BadInput, with near matches, for
    a field that there is not or that comes twice, a value of another type, and what `check` refuses.
    """
    hints = fields(config)
    grid: dict[str, list] = {}
    for text in texts:
        field, equals, values = text.partition("=")
        if not equals:
            raise BadInput(f"--grid takes FIELD=a,b,c, got {text!r}")
        if field in grid:
            raise BadInput(f"{field} is in the grid twice: give all its values in one --grid {field}=a,b,c")
        grid[field] = [_value(word, _hint(field, hints), field) for word in values.split(",")] if values else []
    check(grid, config)
    return grid


def check(grid: dict[str, list], config: Any) -> None:
    """Raises BadInput for an empty grid, a field without values, an unknown field, and a value that comes twice. The values
    of the agent's fields are held to their types by the agent's config."""
    hints = fields(config)
    if not grid:
        raise BadInput("the grid is empty: give at least one field with its values, --grid learning_rate=1e-3,1e-2")
    for field, values in grid.items():
        _hint(field, hints)
        if not values:
            raise BadInput(f"{field} has no values: --grid {field}=a,b,c")
        for value in values:
            if field in RUN_SETTINGS and type(value) is not int:
                raise BadInput(f"{field} must be a whole number, got {value!r}")
            if values.count(value) > 1:
                raise BadInput(f"{field} has the value {text(value)} twice: its runs would be the same")


def settings(grid: dict[str, list]) -> list[Setting]:
    """Every combination of the values; the last field varies fastest."""
    return [dict(zip(grid, values)) for values in itertools.product(*grid.values())]


def nested(setting: Setting) -> dict[str, Any]:
    """{"feed.steps": 5} -> {"feed": {"steps": 5}}: what `override` and `whorl.train` take."""
    tree: dict[str, Any] = {}
    for field, value in setting.items():
        *groups, name = field.split(".")
        inner = tree
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[name] = value
    return tree


def fields(config: Any) -> dict[str, Any]:
    """Everything that a grid can vary -> its type. A nested dataclass gives its fields, dotted."""
    return {**_fields(config, ""), **RUN_SETTINGS}


def _fields(config: Any, prefix: str) -> dict[str, Any]:
    hints = typing.get_type_hints(type(config))
    found: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            found |= _fields(value, f"{prefix}{f.name}.")
        else:
            found[prefix + f.name] = hints[f.name]
    return found


def text(value: Any) -> str:
    """A value as the grid writes it: `parse` gives it back."""
    if isinstance(value, tuple | list):
        return "x".join(map(text, value)) or "()"
    return str(value).lower() if isinstance(value, bool) else f"{value!r}" if isinstance(value, float) else str(value)


def describe(setting: Setting) -> str:
    return " ".join(f"{field}={text(value)}" for field, value in setting.items())


def _hint(field: str, hints: dict[str, Any]) -> Any:
    if field in hints:
        return hints[field]
    inside = [name for name in hints if name.startswith(f"{field}.")]
    if inside:
        raise BadInput(f"{field} is a group of fields; name one of them: {', '.join(inside)}")
    raise BadInput(
        f"there is no field {field!r} to vary{did_you_mean(field, hints)}. Fields: {', '.join(sorted(hints))}"
    )


def _value(word: str, hint: Any, field: str) -> Any:
    """One value from its text, by the type of its field."""
    if not word:
        raise BadInput(f"{field} has an empty value between its commas")
    if typing.get_origin(hint) is typing.Literal:
        choices = {str(choice): choice for choice in typing.get_args(hint)}
        if word not in choices:
            raise BadInput(f"{field} must be one of {', '.join(choices)}, got {word!r}")
        return choices[word]
    if typing.get_origin(hint) is tuple:
        return () if word == "()" else tuple(_value(part, typing.get_args(hint)[0], field) for part in word.split("x"))
    if hint is str:
        return word
    if hint is bool and word.lower() in ("true", "false"):
        return word.lower() == "true"
    try:
        if hint is int:
            return int(word)
        if hint is float and math.isfinite(number := float(word)):
            return number
    except ValueError:
        pass
    if hint in _WORDS:
        raise BadInput(f"{field} must be {_WORDS[hint]}, got {word!r}")
    raise BadInput(f"{field} cannot be varied by a grid: its type is {hint}")
