"""A run's parts on disk and back: one group of tensors and one entry of `state.json` for each, under its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from whorl.batch import Arrays, Numbers, Part, State
from whorl.errors import BadInput, Damaged, WhorlError
from whorl.options import CHANGED, shown
from whorl.training import checkpoint
from whorl.training.full_disk import FULL
from whorl.training.written import Written

NEEDED = (
    "policy",
    "agent",
    "collector",
    "buffer",
    "loggers",
    "log",
    "hooks",
    "evaluation",
)  # what every checkpoint has


def save(folder: Path, progress: int, parts: Mapping[str, Part], written: Written) -> Path:
    """Publish the checkpoint `folder/step_{progress}` of a run with this config.json. Raises what `checkpoint.save` does."""
    states = {name: _state(part) for name, part in parts.items()}
    tensors = {name: arrays for name, (arrays, _) in states.items()}
    numbers = {name: numbers for name, (_, numbers) in states.items()}
    return checkpoint.save(folder, progress, tensors, numbers, written.sha256)


def _state(part: Part) -> State:
    """Raises BadInput for what is no state."""
    state: object = part.state()
    if isinstance(state, tuple) and len(state) == 2 and all(isinstance(half, dict) for half in state):
        return state
    came = "None" if state is None else f"a {type(state).__name__}"
    raise BadInput(
        f"{type(part).__name__}.state must return (arrays, numbers), a dict of tensors and one of plain JSON, got {came}"
    )


def load(path: Path, parts: Mapping[str, Part], written: Written) -> dict[str, bool]:
    """Bring the parts back: name -> whether it is exactly as it was. A part that the checkpoint does not know, such as a new hook,
    stays as it is.

    Raises what `checkpoint.load` does, BadInput for a part of another size, and Damaged, naming the part, for a state that is not
    what the part writes (whoever can write a manifest can write a hash that fits) and a checkpoint of another config.json.
    """
    written.check_covers(path, checkpoint.config_of(path))
    tensors, numbers = checkpoint.load(path)
    for name in NEEDED:
        if name in parts and not (name in numbers and name in tensors):
            raise Damaged(f"{path} has no state of {name!r}: {CHANGED}")
    return {
        name: _load(path, name, part, tensors.get(name, {}), numbers[name])
        for name, part in parts.items()
        if name in numbers
    }


def _load(path: Path, name: str, part: Part, arrays: Arrays, numbers: Numbers) -> bool:
    try:
        if type(part).__module__.startswith("whorl."):  # what users bring may save other things at other times
            fresh = part.state()
            if name == "loggers":  # there may be others than there were
                fresh = fresh[0], {key: value for key, value in fresh[1].items() if key in numbers}
            _check_like(fresh, (arrays, numbers))
        return part.load_state(arrays, numbers)
    except WhorlError as error:
        raise type(error)(f"{path}: the state of {name!r}: {error}") from None
    except Exception as error:  # a stranger's numbers can break a part in any way
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        what = (
            f"has no {error}" if isinstance(error, KeyError) else f"does not fit: {' '.join(str(error).split())[:300]}"
        )
        raise Damaged(f"{path}: the state of {name!r} {what}: {CHANGED}") from error


def _check_like(fresh: State, saved: State) -> None:
    """Raises Damaged for arrays and numbers of another kind than those that the part would save now, before it goes on from them. An array
    of no row, or of one, says nothing of how many there may be: some take their rows with the first step."""
    for name, array in fresh[0].items():
        found = saved[0].get(name)
        rows = slice(1 if array.shape[:1] in ((0,), (1,)) else 0, None)
        fits = found is not None and found.ndim == array.ndim and found.shape[rows] == array.shape[rows]
        if found is None or not fits or found.dtype != array.dtype:
            came = "none" if found is None else f"{found.dtype} {list(found.shape)}"
            raise Damaged(f"the array {name!r} should be {array.dtype} {list(array.shape)}, there is {came}: {CHANGED}")
    _check_kind(fresh[1], saved[1], "it")


def _check_kind(like: object, found: object, place: str) -> None:
    """like: None, or an empty list or table, says nothing of what may be there. A list may not be there yet: rows on disk are older
    than the first checkpoint that knows them, where a kill came between."""
    if isinstance(like, list) and found is None:
        return
    kinds = (float, int) if isinstance(like, float) else (type(like),)
    if like is not None and type(found) not in kinds:
        raise Damaged(f"{place} should be {_words(like)}, got {shown(found)}: {CHANGED}")
    if isinstance(like, dict) and isinstance(found, dict):
        for key, inner in like.items():
            if key not in found:
                raise Damaged(f"{place} has no {key!r}: {CHANGED}")
            _check_kind(inner, found[key], repr(key))
    if isinstance(like, list) and isinstance(found, list) and like:
        if len(found) != len(like):
            raise Damaged(f"{place} should have {len(like)} entries, got {len(found)}: {CHANGED}")
        for inner, value in zip(like, found):
            _check_kind(inner, value, f"an entry of {place}")


def _words(like: object) -> str:
    return {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list"}.get(
        type(like), "a table"
    )


def learned(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """What the run's environments had learned, by these names. Raises what `checkpoint.load` does, Damaged where there is none."""
    arrays = checkpoint.load(path)[0].get("collector", {})
    try:
        return {name: arrays[f"learned.{name}"].numpy() for name in names}
    except KeyError as error:
        raise Damaged(f"{path} has no {error.args[0]} of its environments: {CHANGED}") from None
