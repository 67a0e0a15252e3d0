"""Bodies in, JSON values out: fields, spaces, observations, actions, numbers.

The JSON is strict: no NaN or Infinity token is read or written. JSON has no infinity, so bounds, observations and rewards
carry 1e100 for it, as the original server's bounds did. NaN has no stand-in: it raises. Values of Discrete and
MultiDiscrete spaces count from 0 on the wire in both directions, because the original's clients know `n` only; `start` in
the space's description is what the environment itself counts from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from whorl.errors import BadInput, NotFinite
from whorl.json_text import shown, strict

HUGE = 1e100  # infinity, on the wire
DEPTH = 32  # levels of nesting that a body may have
INVALID = "Request is not a valid json"  # clients know these words
BOUNDS = ("accept", "clip", "strict")

# --------------------------------------------------------------------------------------------------- bodies


def parsed(body: bytes | str) -> Any:
    """A JSON text (UTF-8) as a value. Raises BadInput for what is not JSON, for NaN, and for more than DEPTH levels."""
    try:
        value = strict(body.decode("utf-8-sig") if isinstance(body, bytes) else body)
        level = _nested([value])
        for _ in range(DEPTH):
            level = [inner for outer in level for inner in _nested(outer)]
            if not level:
                return value
    except RecursionError:
        pass  # far deeper still
    except ValueError as error:
        raise BadInput(INVALID) from error
    raise BadInput(f"{INVALID}: it is nested deeper than {DEPTH} levels")


def _nested(value: Any) -> list[Any]:
    """The lists and objects directly inside one."""
    return [inner for inner in (value.values() if isinstance(value, dict) else value) if isinstance(inner, list | dict)]


def missing(value: Any) -> bool:
    return value is None or value == "" or value == []


def required(body: dict[str, Any], name: str) -> Any:
    """The field `name`. Raises BadInput where it is absent, null, "" or []."""
    if missing(value := body.get(name)):
        raise BadInput(f"A required request parameter '{name}' was not provided")
    return value


def text(body: dict[str, Any], name: str) -> str:
    """The field `name`, which must be there and be a string."""
    if not isinstance(value := required(body, name), str):
        raise BadInput(f"'{name}' must be a string, got {shown(value)}")
    return value


def whole(body: dict[str, Any], name: str, least: int = 0, most: int = 2**63 - 1) -> int | None:
    """The field `name` as an integer (1.0 counts as one); None where it is absent. Raises BadInput out of range."""
    value = body.get(name)
    if missing(value):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadInput(f"'{name}' must be an integer from {least} to {most}, got {shown(value)}")
    return value


def choice(body: dict[str, Any], name: str, words: tuple[str, ...]) -> str:
    """The field `name`, one of `words`; absent is the first."""
    value = body.get(name)
    if missing(value):
        return words[0]
    if value not in words:
        raise BadInput(f"'{name}' must be one of {', '.join(words)}, got {shown(value)}")
    return str(value)


# --------------------------------------------------------------------------------------------------- spaces


def described(space: Any) -> dict[str, Any]:
    """A space as clients read it. `name` of all; Discrete: n, start; Box: shape, low, high (flat), dtype; MultiDiscrete:
    nvec, start; MultiBinary: n, shape; Text: min_length, max_length; Tuple: spaces (list); Dict: spaces (object).

    Raises BadInput for a space of another kind: it has no JSON form here.
    """
    match space:
        case spaces.Discrete():
            return {"name": "Discrete", "n": int(space.n), "start": int(space.start)}
        case spaces.Box():
            low, high = (_finite(np.ravel(end), "a bound") for end in (space.low, space.high))
            return {"name": "Box", "shape": list(space.shape), "low": low, "high": high, "dtype": str(space.dtype)}
        case spaces.MultiDiscrete():
            return {"name": "MultiDiscrete", "nvec": space.nvec.tolist(), "start": space.start.tolist()}
        case spaces.MultiBinary():
            n = space.n if isinstance(space.n, int | np.integer) else np.prod(space.shape)
            return {"name": "MultiBinary", "n": int(n), "shape": list(map(int, space.shape))}
        case spaces.Text():
            return {"name": "Text", "min_length": int(space.min_length), "max_length": int(space.max_length)}
        case spaces.Tuple():
            return {"name": "Tuple", "spaces": [described(part) for part in space.spaces]}
        case spaces.Dict():
            return {"name": "Dict", "spaces": {str(key): described(part) for key, part in space.spaces.items()}}
    raise BadInput(
        f"a {type(space).__name__} space has no JSON form: wrap the environment so that it gives Box, Discrete, "
        "MultiDiscrete, MultiBinary, Text, Tuple or Dict"
    )


# --------------------------------------------------------------------------------------------------- values out


def encoded(space: Any, value: Any, name: str) -> Any:
    """A value of `space` as JSON: Box nested lists, Discrete an integer, MultiDiscrete and MultiBinary lists of integers,
    Tuple a list, Dict an object, Text a string. Raises NotFinite for NaN; `name` says where."""
    match space:
        case spaces.Discrete():
            return int(np.asarray(value).item()) - int(space.start)
        case spaces.MultiDiscrete():
            return (np.asarray(value) - space.start).tolist()
        case spaces.MultiBinary():
            return np.asarray(value, np.int8).tolist()
        case spaces.Tuple():
            return [encoded(part, inner, f"{name}[{i}]") for i, (part, inner) in enumerate(zip(space.spaces, value))]
        case spaces.Dict():
            return {str(key): encoded(part, value[key], f"{name}[{key!r}]") for key, part in space.spaces.items()}
        case spaces.Text():
            return str(value)
    return _finite(np.asarray(value), name)


def number(value: Any, name: str) -> float:
    """A reward, of whatever kind: a float. Raises NotFinite for NaN."""
    return _finite(np.asarray(value, np.float64).reshape(()), name)


def _finite(array: np.ndarray, name: str) -> Any:
    """Nested lists of finite numbers."""
    if array.dtype.kind == "b":
        array = array.astype(np.int8)
    elif array.dtype.kind != "i" and array.dtype.kind != "u" and not np.isfinite(array).all():
        if np.isnan(array).any():
            raise NotFinite(f"{name} holds NaN, which JSON cannot carry: the environment has to be mended")
        array = array.astype(np.float64)  # float32 has no 1e100
        array = np.where(np.isinf(array), np.copysign(HUGE, array), array)
    return array.tolist()


def plain(value: Any, depth: int = 0) -> Any:
    """Any value, such as an `info`, as JSON: numpy as numbers and lists, what is not finite as null, keys as strings; what
    has no JSON form as its repr."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    if depth < DEPTH:
        if isinstance(value, np.ndarray):
            ready = value.dtype.kind in "biu" or (value.dtype.kind == "f" and np.isfinite(value).all())
            return value.tolist() if ready else plain(value.tolist(), depth + 1)
        if isinstance(value, Mapping):
            return {str(key): plain(inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [plain(inner, depth + 1) for inner in value]
    return repr(value)[:1000]


def written(value: Any) -> bytes:
    """JSON, compact: pretty-printing doubled the time of pictures."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


# --------------------------------------------------------------------------------------------------- actions in


def decoded(space: Any, value: Any, bounds: str = "accept") -> Any:
    """An action as it came -> a member of `space`, in its dtype and shape.

    Numbers are taken as integers where they are whole; a list is reshaped where its size agrees, so that a bare number
    stands for a vector of one. bounds: what becomes of a Box action out of range ("accept" hands it on, as the original
    did; "clip"; "strict" refuses). Raises BadInput for what is no such action.
    """
    match space:
        case spaces.Discrete():
            return _integers(space, value, space.n)[()] + space.start
        case spaces.MultiDiscrete():
            return (_integers(space, value, space.nvec) + space.start).astype(space.dtype)
        case spaces.MultiBinary():
            return _integers(space, value, 2)
        case spaces.Box():
            return _box(space, value, bounds)
        case spaces.Text():
            if isinstance(value, str) and space.contains(value):
                return value
        case spaces.Tuple():
            if isinstance(value, list) and len(value) == len(space.spaces):
                return tuple(decoded(part, inner, bounds) for part, inner in zip(space.spaces, value))
        case spaces.Dict():
            if isinstance(value, dict) and set(value) == set(map(str, space.spaces)):
                return {key: decoded(part, value[str(key)], bounds) for key, part in space.spaces.items()}
    raise _unfit(space, value)


def member(space: Any, text: str) -> bool:
    """Whether a text, an integer or JSON, is an action of `space`."""
    try:
        decoded(space, int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else parsed(text), "strict")
    except BadInput:
        return False
    return True


def _integers(space: Any, value: Any, sizes: Any) -> np.ndarray:
    """Whole numbers from 0 to below `sizes`, in the shape and dtype of `space`."""
    array = _numbers(space, value)
    if not ((array == np.floor(array)) & (array >= 0) & (array < sizes)).all():
        raise _unfit(space, value)
    return array.astype(space.dtype)


def _box(space: spaces.Box, value: Any, bounds: str) -> np.ndarray:
    given = _numbers(space, value)
    if bounds == "clip":
        given = np.clip(given, space.low, space.high)
    with np.errstate(over="ignore"):  # caught below
        array = given.astype(space.dtype) if space.dtype.kind == "f" else _as_integers(space, given, value)
    if not np.isfinite(array).all() or (bounds == "strict" and not space.contains(array)):
        raise _unfit(space, value)
    return array


def _as_integers(space: Any, given: np.ndarray, value: Any) -> np.ndarray:
    if space.dtype.kind != "b":
        limits = np.iinfo(space.dtype)
        if not ((given == np.floor(given)) & (given >= limits.min) & (given <= limits.max)).all():
            raise _unfit(space, value)
    return given.astype(space.dtype)


def _numbers(space: Any, value: Any) -> np.ndarray:
    """A number or nested lists of them, in the shape of `space`."""
    try:
        array = np.asarray(value)
    except ValueError as error:  # ragged
        raise _unfit(space, value) from error
    if array.dtype.kind not in "biuf" or array.size != np.prod(space.shape, dtype=int):
        raise _unfit(space, value)
    return (array.astype(np.int8) if array.dtype.kind == "b" else array).reshape(space.shape)


def _unfit(space: Any, value: Any) -> BadInput:
    return BadInput(f"the action {shown(value)} does not fit: expected {_expected(space)}")


def _expected(space: Any) -> str:
    match space:
        case spaces.Discrete():
            return f"an integer from 0 to {space.n - 1}"
        case spaces.MultiDiscrete():
            return f"integers of shape {list(space.shape)} from 0 to below {shown(space.nvec.tolist())}"
        case spaces.MultiBinary():
            return f"0 and 1 in shape {list(space.shape)}"
        case spaces.Box():
            low, high = (shown(end.ravel()[:4].tolist()) for end in (space.low, space.high))
            return f"finite numbers ({space.dtype}) of shape {list(space.shape)} (from {low} to {high})"
        case spaces.Text():
            return f"a string of {space.min_length} to {space.max_length} of its characters"
        case spaces.Tuple():
            return f"a list of {len(space.spaces)}"
        case spaces.Dict():
            return f"an object of {shown(list(space.spaces))}"
    return str(space)
