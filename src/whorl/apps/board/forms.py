"""What each field of an entry may be. Entries come from strangers: types, sizes and characters are held to a form before they are used."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from whorl.errors import Damaged
from whorl.folders import NAME

FORMAT = 1  # of entries; rises when an older whorl could not read what is written
EPISODES, HELD_OUT = 100, 20_170_901  # the seed is no run's own, and no evaluation's during training
PROTOCOL = {"episodes": EPISODES, "seed": HELD_OUT, "greedy": True}
GIFS = ("best", "typical")

Form = tuple[Callable[[Any], bool], str]  # whether a value has it, and its name


def check(data: dict[str, Any], forms: dict[str, Form], where: Path, prefix: str = "", more: bool = False) -> None:
    """Raises Damaged, naming file and field, unless `data` has exactly these fields, each of its form.

    more: others may be there, each null, a switch, a number or a short line.
    """
    for name in [*forms, *data]:
        if name not in data:
            raise Damaged(f"{where}: {prefix}{name} is missing")
        if name not in forms and not more:
            raise Damaged(f"{where}: {short(prefix + name)} is no field of an entry")
        fits, expected = forms.get(name, SCALAR)
        if not fits(data[name]) or (name not in forms and not NAME.fullmatch(name)):
            raise Damaged(f"{where}: {short(prefix + name)} should be {expected}, got {short(data[name])}")


def short(value: Any) -> str:
    """A value as a message shows it: ASCII, at most 60 characters."""
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", value)
    text = value if plain else ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def printable(text: str) -> str:
    """A message for a terminal: what would move its cursor or turn its text (a folder can be called so) is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_id(value: Any) -> bool:
    """Whether it is the id of an entry: 16 hex digits."""
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{16}", value) is not None


def _line(value: Any, most: int = 200) -> bool:
    """One line of text as it is read: no control characters, and none that turn the direction of what follows."""
    if not isinstance(value, str) or len(value) > most:
        return False
    return value.isascii() and value.isprintable() or not any(_unreadable(character) for character in value)


def _unreadable(character: str) -> bool:
    turns = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(character) in turns


def _number(value: Any, low: float = -1e12, high: float = 1e12) -> bool:
    return type(value) in (int, float) and low <= value <= high  # NaN is not


def _whole(value: Any, low: int = 0, high: int = 2**63) -> bool:
    return type(value) is int and low <= value < high


def _tree(value: Any, depth: int = 6) -> bool:
    """What a config is made of."""
    if isinstance(value, dict):
        return (
            depth > 0 and len(value) <= 100 and all(NAME.fullmatch(k) and _tree(v, depth - 1) for k, v in value.items())
        )
    if isinstance(value, list):
        return depth > 0 and len(value) <= 100 and all(_tree(v, depth - 1) for v in value)
    return value is None or type(value) is bool or _line(value) or _number(value, -1e300, 1e300)


def _list_of(fits: Callable[[Any], bool], least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(fits, value))


def _matches(pattern: str) -> Callable[[Any], bool]:
    compiled = re.compile(pattern)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def _date(value: Any) -> bool:
    try:
        return _matches(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z")(value) and datetime.fromisoformat(value) is not None
    except ValueError:
        return False


def _optional(form: Form) -> Form:
    return lambda value: value is None or form[0](value), f"null, or {form[1]}"


def _of_gifs(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and set(value) == set(GIFS) and all(map(fits, value.values()))


LINE: Form = (_line, "a line of at most 200 characters without control characters")
SCALAR: Form = (
    lambda value: not isinstance(value, dict | list) and _tree(value),
    "null, a switch, a number or a short line",
)
TREE: Form = (
    lambda value: isinstance(value, dict) and _tree(value),
    "an object of numbers, switches, short lines and lists of them",
)
OBJECT: Form = (lambda value: isinstance(value, dict) and len(value) <= 100, "an object")
NUMBER: Form = (_number, "a finite number")
SPAN: Form = (lambda value: _number(value, 0), "a number of 0 or more")
COUNT: Form = (_whole, "a whole number of 0 or more")
POSITIVE: Form = (lambda value: _whole(value, 1), "a whole number of 1 or more")
SHA256: Form = (_matches("[0-9a-f]{64}"), "64 hex digits")

FIELDS: dict[str, Form] = {
    "format": (lambda value: type(value) is int and value == FORMAT, f"{FORMAT} (a newer whorl may read others)"),
    "id": (is_id, "16 hex digits"),
    "env": (
        _matches(r"(?=.{1,100}\Z)[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?"),
        "an environment's id, without ':'",
    ),
    "agent": (_matches(NAME.pattern), "an agent's name"),
    "author": LINE,
    "note": LINE,
    "created": (_date, "a time such as 2026-01-31T12:00:00Z"),
    "settings": OBJECT,
    "config": TREE,
    "setting": (_matches("[0-9a-f]{12}"), "12 hex digits"),
    "versions": OBJECT,
    "commit": _optional((_matches("[0-9a-f]{7,64}(-dirty)?"), "a commit")),
    "machine": OBJECT,
    "command": _optional(
        (lambda value: _line(value, 2000), "a line of at most 2000 characters without control characters")
    ),
    "evaluated": (
        lambda value: (
            OBJECT[0](value) and set(value) == {"versions", "machine"} and all(map(OBJECT[0], value.values()))
        ),
        "an object of versions and machine",
    ),
    "steps": COUNT,
    "seconds": _optional(SPAN),
    "steps_per_second": _optional(SPAN),
    "protocol": (lambda value: value == PROTOCOL, f"{PROTOCOL}"),
    "returns": (_list_of(_number, EPISODES, EPISODES), f"{EPISODES} finite numbers"),
    "lengths": (_list_of(POSITIVE[0], EPISODES, EPISODES), f"{EPISODES} whole numbers of 1 or more"),
    "mean": NUMBER,
    "std": SPAN,
    "reward_threshold": _optional(NUMBER),
    "steps_to_threshold": _optional(COUNT),
    "seconds_to_threshold": _optional(SPAN),
    "which": (lambda value: value in ("best", "last"), "best or last"),
    "policy_sha256": SHA256,
    "curve_sha256": SHA256,
    "gif_returns": _optional((_of_gifs(_number), "the returns of best and typical")),
    "gif_sha256": _optional((_of_gifs(SHA256[0]), "the hashes of best and typical")),
}
SETTINGS: dict[str, Form] = {
    "seed": COUNT,
    "num_envs": POSITIVE,
    "total_steps": POSITIVE,
    "total_episodes": _optional(POSITIVE),
    "max_episode_steps": _optional(POSITIVE),
    "compile": (lambda value: type(value) is bool, "a switch"),
    "device": LINE,
    "threads": POSITIVE,
}

OF_ENV: dict[str, Form] = {
    "env_kwargs": TREE,
    "transforms": (
        _list_of(lambda value: _line(value) or (TREE[0](value) and _line(value.get("name"))), 1, 20),
        "up to 20 names of transforms, or objects with a name and arguments",
    ),
}


def settings_forms(settings: dict[str, Any]) -> dict[str, Form]:
    """Those of a run's settings; options of the environment and transforms are there where it had some."""
    return SETTINGS | {name: form for name, form in OF_ENV.items() if name in settings}


VERSIONS: dict[str, Form] = dict.fromkeys(("whorl", "torch", "numpy", "gymnasium", "python"), _optional(LINE))
MACHINE: dict[str, Form] = {"cpu": LINE, "cpu_count": _optional(POSITIVE), "system": LINE}
CURVE: dict[str, Form] = {
    "step": (lambda v: _list_of(_whole, 0, 10_000)(v) and v == sorted(v), "rising whole numbers, at most 10000"),
    "seconds": _optional(
        (lambda v: _list_of(SPAN[0], 0, 10_000)(v) and v == sorted(v), "rising numbers, at most 10000")
    ),
    "mean": (_list_of(_number, 0, 10_000), "finite numbers, at most 10000"),
    "std": (_list_of(SPAN[0], 0, 10_000), "numbers of 0 or more, at most 10000"),
}
