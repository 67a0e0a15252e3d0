"""What `check_buffer` says of a part that raises, or that gives another kind of thing than it should: its name, its method, what was
expected and what came."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, int64

from whorl.batch import Arrays, Batch, Buffer, Numbers, State
from whorl.buffers.buffer import ReplayBuffer
from whorl.buffers.lookup.lookup import Lookup
from whorl.errors import BufferFault, WhorlError


class Answer(NamedTuple):
    """What a method gives: in words, and whether something is that."""

    words: str
    holds: Callable[[Any], bool] = lambda answer: True


def _integers(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dtype is int64


def _is_draw(x: Any) -> bool:
    return (
        isinstance(x, tuple) and len(x) == 3 and _integers(x[0]) and x[0].ndim in (1, 2) and isinstance(x[2], dict)
        and (x[1] is None or (isinstance(x[1], Tensor) and x[1].shape == x[0].shape))
    )  # fmt: skip


def _is_state(x: Any) -> bool:
    try:
        arrays, numbers = x
        json.dumps(numbers, allow_nan=False)
        return isinstance(numbers, dict) and all(isinstance(array, Tensor) for array in arrays.values())
    except (TypeError, ValueError, AttributeError):
        return False


def _is_live(x: Any) -> bool:
    two = isinstance(x, tuple) and len(x) == 2 and all(isinstance(each, np.ndarray) for each in x)
    return two and all(each.ndim == 1 and each.dtype == np.int64 for each in x)


def _is_window(x: Any) -> bool:
    return x is None or (isinstance(x, tuple) and len(x) == 2 and all(isinstance(each, int) for each in x))


PART = {
    "state": Answer("(a dict of tensors, a dict of plain JSON)", _is_state),
    "load_state": Answer("whether it goes on exactly, True or False", lambda x: isinstance(x, bool)),
}
STORAGE = PART | {
    "keep": Answer("nothing"),
    "write": Answer("the absolute index of each row, int64 [rows]", lambda x: _integers(x) and x.ndim == 1),
    "read": Answer("a batch of the shape of its index", lambda x: isinstance(x, Batch)),
    "live": Answer("(low, high), numpy int64 [lanes] each", _is_live),
    "window": Answer("(low, high) as two ints, or None", _is_window),
    "slot": Answer("a slot for each index, int64 of its shape", _integers),
    "column": Answer("a tensor [slots, ...]", lambda x: isinstance(x, Tensor)),
    "looked_at": Answer("nothing"),
    "names": Answer("the keys of its rows", lambda x: isinstance(x, Collection) and not isinstance(x, str)),
    "intact": Answer("True or False", lambda x: isinstance(x, bool | np.bool_)),
    "flush": Answer("nothing"),
    "dump": Answer("a dict of plain JSON", lambda x: isinstance(x, dict)),
    "restore": Answer("nothing"),
}
SAMPLER = PART | {
    "draw": Answer(
        "(int64 [B] or [T, B], weights of that shape or None, a dict of more keys), or BadInput if empty", _is_draw
    ),
    "written": Answer("nothing"),
    "feedback": Answer("nothing, or BadInput where rows have no priorities or one is NaN"),
}
BUFFER = PART | {"add": Answer("nothing"), "batches": Answer("batches"), "feedback": SAMPLER["feedback"]}
HELD = {"storage": ("lanes", "rows", "ring", "device", "count", "__len__"), "sampler": (), "buffer": ()}
LOOKED_UP = Answer("the batch", lambda x: isinstance(x, Batch))


def watch(buffer: Buffer) -> Buffer:
    """The buffer, with each part held to what its methods give. Raises BufferFault for a part that lacks one."""
    if isinstance(buffer, ReplayBuffer):
        _hold("storage", buffer.storage, STORAGE)
        _hold("sampler", buffer.sampler, SAMPLER)
        buffer.lookups = tuple(_Watched(lookup) for lookup in buffer.lookups)
    else:
        _hold("buffer", buffer, BUFFER)
    return buffer


def _hold(part: str, thing: Any, answers: dict[str, Answer]) -> None:
    kind = type(thing).__name__
    if lacking := [name for name in (*answers, *HELD[part]) if not hasattr(thing, name)]:
        raise BufferFault(
            f"the {part} {kind} lacks {', '.join(lacking)}: see the protocols of buffers/parts.py and batch.py"
        )
    for name, answer in answers.items():
        what, method = f"the {part} {kind}.{name}", getattr(thing, name)
        held = _each(what, method) if name == "batches" else _held(what, method, answer)
        with suppress(AttributeError):  # an object with slots: what goes wrong there is raised as it is
            setattr(thing, name, held)


def _held(what: str, method: Callable, answer: Answer) -> Callable:
    def held(*args: Any, **kwargs: Any) -> Any:
        try:
            came = method(*args, **kwargs)
        except WhorlError:
            raise
        except Exception as error:
            raise BufferFault(f"{what} raised {type(error).__name__}: {error}; expected was {answer.words}") from error
        if not answer.holds(came):
            raise BufferFault(f"{what} gave {_shown(came)}, expected was {answer.words}")
        return came

    return held


def _each(what: str, batches: Callable[[int | None], Iterator[Batch]]) -> Callable:
    """`batches`, which fails while it is gone through."""

    def held(count: int | None = None) -> Iterator[Batch]:
        rows = iter(_held(what, batches, Answer("an iterator of batches", lambda x: isinstance(x, Iterable)))(count))
        following = _held(what, lambda: next(rows, None), Answer("batches", lambda x: isinstance(x, Batch | None)))
        while (each := following()) is not None:
            yield each

    return held


class _Watched(Lookup):
    """A lookup that is held to what it gives."""

    def __init__(self, inner: Lookup):
        what = f"the lookup {type(inner).__name__}"
        self._inner, self._call = inner, _held(f"{what}.__call__", inner, LOOKED_UP)
        self._state = _held(f"{what}.state", inner.state, PART["state"])

    @property
    def touched(self) -> Tensor:  # type: ignore[override]
        return self._inner.touched

    def __call__(self, storage: Any, index: Tensor, batch: Batch) -> Batch:
        return self._call(storage, index, batch)

    def state(self) -> State:
        return self._state()

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        return self._inner.load_state(arrays, numbers)


def _shown(x: Any) -> str:
    """A kind of thing in few words."""
    if isinstance(x, Tensor | np.ndarray):
        return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}"
    if isinstance(x, tuple | list) and len(x) < 5:
        return f"({', '.join(map(_shown, x))})"
    return "None" if x is None else f"{x!r}" if isinstance(x, bool | int | float) else f"a {type(x).__name__}"
