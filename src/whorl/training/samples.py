"""The samples of a sweep: `FIELD=log:1e-5:1e-2` and the values that trial after trial draws, plain and independent.

Each number comes from a stream of its own, (field, trial): a killed sweep draws the same again, and so does one with other fields.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from whorl.errors import BadInput
from whorl.functional.streams import stream
from whorl.training import grid

Samples = Mapping[str, str]  # field -> how it is drawn, as on the command line
DIGITS = 4  # of a number that is drawn: more would only be harder to read
FORMS = "log:LOW:HIGH, uniform:LOW:HIGH, int:LOW:HIGH (both ends included) or choice:a,b,c"


def parse(texts: Iterable[str]) -> Samples:
    """`["learning_rate=log:1e-5:1e-2"]` -> {"learning_rate": "log:1e-5:1e-2"}. Raises BadInput for a field that comes twice."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, form = text.partition("=")
        if not equals:
            raise BadInput(f"--sample takes FIELD={FORMS}, got {text!r}")
        if name in found:
            raise BadInput(f"{name} is sampled twice: one --sample {name}=... is enough")
        found[name] = form
    return found


def settings(samples: Samples, trials: int, config: object) -> list[grid.Setting]:
    """The setting of each trial. Raises BadInput for an unknown field, a form that is none, and one that does not fit its field."""
    return [{name: _draw(name, form, trial, config) for name, form in samples.items()} for trial in range(trials)]


def _draw(name: str, form: str, trial: int, config: object) -> Any:
    kind = grid.known(name, grid.fields(config)).kind
    u = float(np.random.default_rng(stream(0, f"sample {name}", trial)).random())  # in [0, 1)
    way, _, ends = form.partition(":")
    if way == "choice":
        values = grid.read(name, ends, config)
        return values[int(u * len(values))]
    try:
        low, high = map(float, ends.split(":"))
    except ValueError:
        raise BadInput(f"{name} is sampled by {FORMS}, got {form!r}") from None
    if (
        way not in ("log", "uniform", "int")
        or not (low < high and math.isfinite(high - low))
        or (way == "log" and low <= 0)
    ):
        raise BadInput(f"{name} is sampled by {FORMS}, with LOW < HIGH, and above 0 for log; got {form!r}")
    if (kind is int) != (way == "int"):
        what, how = ("a whole number", "int") if kind is int else ("no whole number", "log, uniform or choice")
        raise BadInput(f"{name} is {what}: sample it by {how}, got {form!r}")
    if way == "int":
        return int(low) + int(u * (int(high) - int(low) + 1))
    value = math.exp(math.log(low) + u * math.log(high / low)) if way == "log" else low + u * (high - low)
    return min(max(float(f"{value:.{DIGITS}g}"), low), high)
