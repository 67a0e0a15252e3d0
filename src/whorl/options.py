"""Settings as frozen dataclasses: bounds and choices stand on the field, and everything else is derived from them.

    learning_rate: Annotated[float, Amount] = 3e-4
    storage: Literal["memory", "memmap"] = "memory"

`check` holds every value to its field, `override` replaces fields by name, `to_json` gives plain data.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import operator
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, TypeVar

from whorl.errors import BadInput, Damaged

T = TypeVar("T")
CHANGED = "it was changed, or written by another version of whorl. Restore it from a copy"


@dataclass(frozen=True)
class Bounds:
    """The lowest and the highest value that makes sense, of a number or of each number of a tuple."""

    low: float = -inf
    high: float = inf
    spans: str = ""  # the option of the run that it must reach, or be 0: what falls to 0 on the way would stay there
    # what of a network it multiplies: its "outputs", its "members", what it draws for its "actions" or its "losses", the "tables" of
    # a tile coding, the "bins" of a table along each number of the observation, or, instead of bins, the "slots" of a table
    sizes: str = ""

    def __str__(self) -> str:
        if self.high == inf:
            return "any number" if self.low == -inf else f"at least {self.low:g}"
        return f"from {self.low:g} to {self.high:g}"

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


Share = Bounds(0, 1)  # a part of a whole, a discount, a decay
Amount = Bounds(0)  # 0 often switches it off
Count = Bounds(1)
Positive = Bounds(1e-6)
AnnealSteps, AnnealEpisodes = Bounds(0, spans="total_steps"), Bounds(0, spans="total_episodes")

_WORDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a text", dict: "a table"}
MOST = 2**63  # no whole number reaches it: arrays and files hold none that does


class Live:
    """Marks a field that every update reads anew, so that a `Schedule` may move it: `Annotated[float, Share, Live]`."""


@dataclass(frozen=True)
class Field:
    """What a field of a settings dataclass may be."""

    name: str
    kind: Any  # its type, without bounds and choices; None if it is one of the choices only
    bounds: Bounds | None
    choices: tuple[Any, ...]  # of a Literal
    optional: bool  # None is a value, too
    live: bool = False  # see `Live`
    function: bool = False  # a function of the user's is a value, too: of it a file holds the name, for people to read


def fields(cls: type) -> list[Field]:
    """The fields of a settings dataclass, in order."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return [_field(f.name, hints[f.name]) for f in dataclasses.fields(cls)]


def _field(name: str, hint: Any) -> Field:
    kinds, bounds, choices, optional, live, function = [], None, (), False, False, False
    for part in _alternatives(hint):
        if isinstance(part, Bounds):
            bounds = part
        elif typing.get_origin(part) is typing.Literal:
            choices += typing.get_args(part)
        elif part is type(None):
            optional = True
        elif part is Live:
            live = True
        elif typing.get_origin(part) is Callable:
            function = True
        else:
            kinds.append(part)
    return Field(name, kinds[0] if kinds else None, bounds, choices, optional, live, function)


def _alternatives(hint: Any) -> list[Any]:
    """The types and marks of `Annotated[int | None, Count] | Literal["all"]`, in one list."""
    if typing.get_origin(hint) in (typing.Annotated, typing.Union, types.UnionType):
        return [part for inner in typing.get_args(hint) for part in _alternatives(inner)]
    return [hint]


def misfit(function: Callable, *arguments: object) -> str:
    """Why a function of the user's cannot be called with these arguments; "" if it can be, or nobody knows."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        return str(error)
    except ValueError:  # compiled ones may have no signature
        pass
    return ""


def listed(name: str, given: Sequence[T] | None) -> list[T]:
    """The hooks, loggers, ... of a user's; None is none. Raises BadInput for what is no list, and for a class in it."""
    if not isinstance(given, Sequence | None) or isinstance(given, str):
        raise BadInput(f"{name} takes a list, {name}=[...]; got one {type(given).__name__}")
    for each in given or ():
        if isinstance(each, type):
            raise BadInput(f"{name} takes objects; {each.__name__} is a class: make one, {name}=[{each.__name__}()]")
    return list(given or ())


def value(settings: Any, name: str, why: str) -> Any:
    """What a field is. Raises BadInput where there is none of that name; why: what wants it."""
    if name not in {f.name for f in dataclasses.fields(settings)}:
        raise BadInput(f"{why}, and {type(settings).__name__} has no field {name!r}: give it one, or leave that out")
    return getattr(settings, name)


def check(settings: object, prefix: str = "") -> None:
    """Raises BadInput for a field of the wrong type or out of bounds, naming the field, what was expected and what came.

    Settings inside settings are checked too, their names with a dot: `feed.steps`.
    """
    for field in fields(type(settings)):
        value, name = getattr(settings, field.name), prefix + field.name
        if isinstance(field.kind, type) and dataclasses.is_dataclass(field.kind) and not isinstance(value, field.kind):
            raise BadInput(f"{name} must be {field.kind.__name__} or a kind of it, got {type(value).__name__}")
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            check(value, f"{name}.")
        elif not (value is None and field.optional):
            _check_value(name, value, field)


def _check_value(name: str, value: Any, field: Field) -> None:
    if value in field.choices or (field.function and callable(value)):
        return
    words = ", ".join(map(repr, field.choices))
    if field.kind is None:
        own = ", or a function" if field.function else ""
        raise BadInput(f"{name} must be one of {words}{own}, got {shown(value)}")
    also = f", or {words}" if words else ""
    several = typing.get_origin(field.kind) is tuple
    kind = typing.get_args(field.kind)[0] if several else typing.get_origin(field.kind) or field.kind
    if several and not isinstance(value, tuple):
        raise BadInput(
            f"{name} must be a tuple of {_WORDS.get(kind, 'value').removeprefix('a ')}s{also}, got {shown(value)}"
        )
    if kind not in _WORDS:
        return
    parts = value if several else (value,)
    if not all(_is(part, kind) for part in parts):
        raise BadInput(f"{name} must be {_WORDS[kind]}{also}, got {shown(value)}")
    if kind in (str, dict):
        return
    if not all(abs(number) < MOST for number in parts if isinstance(number, int)):
        raise BadInput(f"{name} must be below 2**63, got {shown(value)}")
    if field.bounds and not all(field.bounds.holds(number) for number in parts):
        raise BadInput(f"{name} must be {field.bounds}{also}, got {shown(value)}")
    if not all(map(isfinite, parts)):
        raise BadInput(f"{name} must be finite, got {shown(value)}")


def _is(value: Any, kind: type) -> bool:
    if kind in (bool, str, dict) or isinstance(value, bool):
        return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    return isinstance(value, int) or (kind is float and isinstance(value, float))


def whole(value: Any) -> Any:
    """1e5 or a whole number of another library as an int; anything else as it came, for the error that names it."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    with suppress(TypeError):
        return value if isinstance(value, bool) else operator.index(value)
    return value


def read_whole(text: str) -> int | None:
    """A whole number as it is typed: 100000 or 1e5. None for what is none."""
    with suppress(ValueError):
        return int(text)
    with suppress(ValueError):
        return int(float(text)) if float(text).is_integer() else None
    return None


def shown(value: object) -> str:
    """A value for a message, cut where that gets long."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def from_json(cls: type[T], data: object, where: object, prefix: str = "") -> T:
    """The dataclass that a JSON object holds: each of its fields, of its kind and inside its bounds, and nothing else.

    Raises Damaged for a field that is missing or unknown, BadInput for what a field cannot be; both name `where` (a file), the field,
    what was expected and what came.
    """
    place = f"{where}: {prefix.removesuffix('.')}" if prefix else str(where)
    if not isinstance(data, dict):
        raise Damaged(f"{place} should hold a table, got {shown(data)}: {CHANGED}")
    known = {field.name: field for field in fields(cls)}
    for name in [*known, *data]:
        if name not in data:
            raise Damaged(f"{where}: {prefix}{name} is missing: {CHANGED}")
        if name not in known:
            raise Damaged(f"{where}: {prefix}{name[:60]} is not known here{did_you_mean(name[:60], known)}: {CHANGED}")
    values = {}
    for name, field in known.items():
        value = values[name] = tuple(data[name]) if isinstance(data[name], list) else data[name]
        inner = isinstance(field.kind, type) and dataclasses.is_dataclass(field.kind)
        if value is None and field.optional:
            continue
        if inner:
            values[name] = from_json(field.kind, value, where, f"{prefix}{name}.")
            continue
        try:
            _check_value(prefix + name, value, field)
        except BadInput as error:
            raise BadInput(f"{where}: {error}: {CHANGED}") from None
    return cls(**values)


def override(settings: T, values: Mapping[str, Any]) -> T:
    """`settings` with some fields replaced; settings inside settings take a dict. Raises BadInput for unknown fields, with near
    matches, and for what is none of a field's choices. In the result 1e5 is an int where a whole number is wanted."""
    known = {field.name: field for field in fields(type(settings))}
    for name in values:
        if name not in known:
            raise BadInput(
                f"{type(settings).__name__} has no option {name!r}{did_you_mean(name, known)}. It has {', '.join(sorted(known))}"
            )
    replaced = {}
    for name, field in known.items():
        old = getattr(settings, name)
        value = values.get(name, old)
        if dataclasses.is_dataclass(old) and not isinstance(old, type) and (isinstance(value, dict) or value is old):
            value = override(old, value if isinstance(value, dict) else {})
        if field.kind is None and name in values:
            _check_value(name, value, field)
        value = tuple(value) if isinstance(value, list) else value
        if field.kind is int:
            value = whole(value)
        elif field.kind == tuple[int, ...] and isinstance(value, tuple):
            value = tuple(map(whole, value))
        if value is not old:
            replaced[name] = value
    return dataclasses.replace(settings, **replaced) if replaced else settings  # type: ignore[type-var]


def changes(old: Any, new: Any) -> dict[str, Any]:
    """What `override` makes `new` of `old` with: the fields that differ, nested for settings inside settings."""
    found = {}
    for field in fields(type(old)):
        was, now = getattr(old, field.name), getattr(new, field.name)
        if was != now:
            found[field.name] = changes(was, now) if dataclasses.is_dataclass(was) else now
    return found


def to_json(settings: Any) -> dict[str, Any]:
    """A (nested) dataclass as plain dicts and lists; of a function the name, "module:function"."""
    return json.loads(json.dumps(dataclasses.asdict(settings), default=name_of))


def name_of(value: Any) -> str:
    """What is written down of a function, "module:function". Raises TypeError for anything else."""
    if not callable(value):
        raise TypeError(f"{shown(value)} cannot be written down")
    return f"{value.__module__}:{getattr(value, '__qualname__', type(value).__qualname__)}"


# What other libraries call it -> the name here, and what there is to say of it
ELSEWHERE = {
    "gamma": "discount",
    "lr": "learning_rate",
    "n_steps": "feed.steps",
    "rollout_length": "feed.steps",
    "n_epochs": "feed.epochs",
    "batch_size": "feed.batch_size (feed.minibatches of a rollout)",
    "num_minibatches": "feed.minibatches",
    "buffer_size": "feed.capacity",
    "learning_starts": "feed.warmup",
    "train_freq": "feed.steps",
    "gradient_steps": "feed.replay_ratio (updates per environment step)",
    "gae_lambda": "trace_decay",
    "lambda_": "trace_decay",
    "ent_coef": "entropy_weight (sac: temperature)",
    "vf_coef": "value_weight",
    "clip_coef": "clip_range",
    "target_kl": "kl_stop (trpo: kl_limit)",
    "tau": "target_rate",
    "polyak": "target_rate",
    "target_update_interval": "target_every",
    "exploration_fraction": "epsilon_steps",
    "n_envs": "num_envs",
    "env_id": "env",
    "env_name": "env",
    "total_timesteps": "total_steps",
    "max_steps": "total_steps",
    "jobs": "slots, of a sweep: how many runs at a time",
    "net_arch": "hidden",
    "policy_kwargs": "hidden and activation, or encoder for a network of your own",
    "policy": "encoder, for a network of your own; the agent builds its policy",
    "callback": "hooks",
    "tensorboard_log": "runs, the folder of all runs; TensorBoard's files lie in each",
    "log_dir": "runs",
    "verbose": "quiet",
    "random_seed": "seed",
    "recurrent": "memory (gru or lstm)",
    "lstm": "memory (lstm)",
    "num_agents": "not here yet: one agent learns in an environment",
    "num_gpus": "not here yet: a run takes one device, such as device='cuda:0'",
    "devices": "device, which is one: a run takes no several yet",
}


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'ppo'?`, what another library's name is called here, or nothing."""
    if name in ELSEWHERE:
        return f"; what others call {name} is {ELSEWHERE[name]}"
    near = difflib.get_close_matches(name.lower(), list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
