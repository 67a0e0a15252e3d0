"""The grid of a sweep: `FIELD=a,b,c` as typed values, and the settings that it spans."""

from __future__ import annotations

import dataclasses
import itertools
import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from whorl import options
from whorl.errors import BadInput
from whorl.options import Field, did_you_mean
from whorl.training.settings import NAMED, Settings

RUN_SETTINGS = {field.name: field for field in options.fields(Settings) if field.name not in (*NAMED, "seed")}
Setting = dict[str, Any]  # field, dotted for a nested one -> value
Values = list[Any]  # of one field, each of its type
Grid = Mapping[str, Sequence[Any]]  # field -> its values

_WORDS = {bool: "true or false", int: "a whole number", float: "a finite number"}


def parse(texts: Iterable[str], config: object) -> Grid:
    """`["learning_rate=1e-3,1e-2", "hidden=64x64,()"]` -> {"learning_rate": [.001, .01], "hidden": [(64, 64), ()]}.

    Fields are those of `config` (a dataclass; `feed.steps` for a nested one) and RUN_SETTINGS. Each value takes the type
    of its field; a tuple is written with x between its numbers, () if it is empty. Raises BadInput, with near matches, for
    a field that there is not or that comes twice, a value of another type, and what `check` refuses.
    """
    grid: dict[str, list[Any]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals:
            raise BadInput(f"--grid takes FIELD=a,b,c, got {text!r}")
        if name in grid:
            raise BadInput(f"{name} is in the grid twice: give all its values in one --grid {name}=a,b,c")
        grid[name] = read(name, values, config) if values else []
    check(grid, config)
    return grid


def read(name: str, words: str, config: object) -> Values:
    """The values of one field, "a,b,c", each in the type of the field. Raises BadInput as `parse` does."""
    return [_value(word, known(name, fields(config)), name) for word in words.split(",")]


def check(grid: Grid, config: object) -> None:
    """Raises BadInput for a field without values, an unknown field, and a value that comes twice. The values are held to their types
    and bounds by those who take them."""
    every = fields(config)
    for name, values in grid.items():
        known(name, every)
        if not values:
            raise BadInput(f"{name} has no values: --grid {name}=a,b,c")
        for value in values:
            if values.count(value) > 1:
                raise BadInput(f"{name} has the value {text(value)} twice: its runs would be the same")


def settings(grid: Grid) -> list[Setting]:
    """Every combination of the values; the last field varies fastest."""
    return [dict(zip(grid, values)) for values in itertools.product(*grid.values())]


def nested(setting: Mapping[str, object]) -> Setting:
    """{"feed.steps": 5} -> {"feed": {"steps": 5}}: what `override` takes. Raises BadInput for a group that is given whole, too."""
    tree: dict[str, Any] = {}
    for field, value in setting.items():
        *groups, name = field.split(".")
        inner: Any = tree
        for group in groups:
            inner = inner.setdefault(group, {})
            if not isinstance(inner, dict):
                raise BadInput(f"{field} is a field of {group}, which is given whole beside it: put it in there")
        if isinstance(value, Mapping):
            value = {**inner.get(name, {}), **value}
        elif name in inner:
            raise BadInput(f"{field} is given whole, and so are fields of it: put them in there")
        inner[name] = value
    return tree


def fields(config: object) -> dict[str, Field]:
    """Everything that a grid can vary. A nested dataclass gives its fields, dotted."""
    return {**_fields(config, ""), **RUN_SETTINGS}


def _fields(config: object, prefix: str) -> dict[str, Field]:
    found: dict[str, Field] = {}
    for field in options.fields(type(config)):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            found |= _fields(value, f"{prefix}{field.name}.")
        else:
            found[prefix + field.name] = field
    return found


def text(value: object) -> str:
    """A value as the grid writes it: `parse` gives it back."""
    if isinstance(value, tuple | list):
        return "x".join(map(text, value)) or "()"
    if isinstance(value, bool | None):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)


def describe(setting: Setting) -> str:
    return " ".join(f"{field}={text(value)}" for field, value in setting.items())


def known(name: str, every: dict[str, Field]) -> Field:
    """The field of this name. Raises BadInput, with near matches, where there is none."""
    if name in every:
        return every[name]
    inside = [other for other in every if other.startswith(f"{name}.")]
    if inside:
        raise BadInput(f"{name} is a group of fields; name one of them: {', '.join(inside)}")
    raise BadInput(f"there is no field {name!r} to vary{did_you_mean(name, every)}. Fields: {', '.join(sorted(every))}")


def _value(word: str, field: Field, name: str) -> Any:
    """One value from its text, by the type of its field."""
    if not word:
        raise BadInput(f"{name} has an empty value between its commas")
    choices = {str(choice): choice for choice in field.choices}
    if word in choices:
        return choices[word]
    if word == "none" and field.optional:
        return None
    if field.kind is None:
        raise BadInput(f"{name} must be one of {', '.join(choices)}, got {word!r}")
    if typing.get_origin(field.kind) is tuple:
        return (
            ()
            if word == "()"
            else tuple(_single(part, typing.get_args(field.kind)[0], name) for part in word.split("x"))
        )
    return _single(word, field.kind, name)


def _single(word: str, kind: type, name: str) -> Any:
    if not word:
        raise BadInput(f"{name} has an empty value between its numbers")
    if kind is str:
        return word
    if kind is bool and word.lower() in ("true", "false"):
        return word.lower() == "true"
    try:
        if kind is int and (number := options.read_whole(word)) is not None:
            return number
        if kind is float and math.isfinite(float(word)):
            return float(word)
    except ValueError:
        pass
    if kind in _WORDS:
        raise BadInput(f"{name} must be {_WORDS[kind]}, got {word!r}")
    raise BadInput(f"{name} cannot be varied by a grid: its type is {kind}")
