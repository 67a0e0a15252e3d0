"""The arguments of a transform, as they came from a command line or a run's folder, held to what its constructor says it takes."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from whorl.errors import BadInput
from whorl.options import MOST, shown
from whorl.transforms.transform import plain

WORDS = {bool: "true or false", int: "a whole number below 2**63", float: "a finite number", str: "a text"} | {
    types.NoneType: "null", Sequence: "a list", Mapping: "a table",
}  # fmt: skip


def check_arguments(name: str, cls: type, arguments: Mapping[str, object]) -> None:
    """Raises BadInput, naming transform and argument, for one that is not of the kind that the annotation in `cls.__init__` says. What it
    does not annotate, or annotates otherwise than by numbers, texts, lists, tables and choices, is left to the constructor."""
    try:
        hints = get_type_hints(cls.__init__)  # type: ignore[misc]
    except (NameError, TypeError):  # names of another module's
        return
    for key, value in arguments.items():
        try:
            given = plain(value)
        except RecursionError:
            raise BadInput(f"{name}: {key} is nested deeper than Python reads") from None
        if key in hints and not fits(given, hints[key]):
            raise BadInput(f"{name}: {key} must be {expected(hints[key])}, got {shown(value)}")


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of that kind."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if kind is Literal:
        return value in parts
    if kind not in WORDS:
        return True
    if kind is Sequence:
        return isinstance(value, list) and all(fits(each, parts[0]) for each in value)
    if kind is Mapping:
        return isinstance(value, dict) and all(fits(k, parts[0]) and fits(v, parts[1]) for k, v in value.items())
    if isinstance(value, bool) or kind in (bool, str, types.NoneType):
        return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    return (isinstance(value, int) and abs(value) < MOST) or (
        kind is float and isinstance(value, float) and isfinite(value)
    )


def expected(hint: Any) -> str:
    """The kind, in words."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, types.UnionType):
        return " or ".join(map(expected, parts))
    if kind is Literal:
        return " or ".join(map(repr, parts))
    inner = f" of which each is {expected(parts[-1])}" if parts and parts[-1] in WORDS else ""
    return WORDS.get(kind, str(kind)) + inner
