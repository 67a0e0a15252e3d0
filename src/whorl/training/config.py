"""Settings to JSON and back: frozen dataclasses only, so nothing on disk can name code to run."""

from __future__ import annotations

import dataclasses
import json
import typing
from math import inf
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


BOUNDS = {  # lowest and highest value that makes sense; `check` also holds every field to its type
    "learning_rate": (0, inf),
    "anneal_steps": (0, inf),
    "anneal_episodes": (0, inf),
    "smoothing": (0, 1),
    "optimizer_eps": (0, inf),
    "weight_decay": (0, inf),
    "workers": (1, inf),
    "discount": (0, 1),
    "trace_decay": (0, 1),
    "clip_range": (1e-6, inf),
    "value_clip_range": (0, inf),
    "value_weight": (0, inf),
    "kl_limit": (0, inf),
    "max_grad_norm": (0, inf),
    "clip_value": (0, inf),
    "epsilon": (0, 1),
    "epsilon_decay": (0, 1),
    "epsilon_min": (0, 1),
    "epsilon_steps": (0, inf),
    "epsilon_spread": (0, inf),
    "target_every": (1, inf),
    "huber": (0, inf),
    "atoms": (2, inf),
    "samples": (1, inf),
    "target_samples": (1, inf),
    "acting_samples": (1, inf),
    "cosines": (1, inf),
    "temperature": (1e-6, inf),
    "tilings": (1, inf),
    "tiles": (1, inf),
    "memory": (0, inf),
    "hidden": (1, inf),
    "critic_learning_rate": (0, inf),
    "target_rate": (1e-9, 1),
    "policy_delay": (1, inf),
    "target_noise": (0, inf),
    "target_noise_clip": (0, inf),
    "sde_every": (0, inf),
    "critics": (1, inf),
    "subset": (1, inf),
    "quantiles": (2, inf),
    "dropped": (0, inf),
    "beta1": (0, 0.9999),
    "momentum": (0, 1),
    "renorm_warmup": (0, inf),
    "critic_hidden": (1, inf),
}


def check(config: Any) -> None:
    """Raises BadInput for a field of the wrong type or outside BOUNDS, naming the field, what was expected and what came."""
    hints = typing.get_type_hints(type(config))
    for f in dataclasses.fields(config):
        value, hint = getattr(config, f.name), hints[f.name]
        if dataclasses.is_dataclass(value):
            continue
        choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
        numbers = value if isinstance(value, tuple) else (value,)
        kind = {tuple[int, ...]: int, tuple[float, ...]: float}.get(hint, hint)
        if choices and value not in choices:
            raise BadInput(f"{f.name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
        if kind is not hint and not isinstance(value, tuple):
            raise BadInput(f"{f.name} must be a tuple of {_WORDS[kind].removeprefix('a ')}s, got {value!r}")
        if kind in (bool, int, float) and not all(_is(number, kind) for number in numbers):
            raise BadInput(f"{f.name} must be {_WORDS[kind]}, got {value!r}")
        low, high = BOUNDS.get(f.name, (-inf, inf))
        if kind in (int, float) and not all(low <= number <= high for number in numbers):
            raise BadInput(f"{f.name} must be from {low:g} to {high:g}, got {value!r}")


_WORDS = {bool: "True or False", int: "a whole number", float: "a number"}


def _is(value: Any, kind: type) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    return isinstance(value, int) or (kind is float and isinstance(value, float))
