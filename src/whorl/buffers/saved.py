"""A whole replay buffer as a folder: raw rows, safetensors, JSON. Nothing in it is executed.

buffer.json      what was saved, and in which of the folders beside it; replacing this one file publishes a save
save-0123abcd/   rows, parts.safetensors
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import Protocol

import safetensors.torch
from safetensors import SafetensorError

from whorl.batch import Numbers, Part, load_states, states
from whorl.buffers.parts import Sampler, Storage
from whorl.errors import BadInput, Damaged
from whorl.files import read_json, write_json
from whorl.folders import TEMPORARY, Folder, sync_folder

FORMAT = 2
OURS = re.compile(r"save-[0-9a-f]{8}|buffer\.json|\.tmp-buffer\.json-[0-9a-f-]+")


class Savable(Protocol):
    """What is saved of a replay buffer."""

    storage: Storage
    sampler: Sampler
    added: int
    drawn: int

    def drawing(self) -> dict[str, Part]:
        """The parts that have a state beside the storage, by name."""


def save(buffer: Savable, folder: str | Path) -> Path:
    """Writes rows, sampler, lookups and counters to `folder`, replacing a buffer that was saved there.

    Raises BadInput if it holds anything else.
    """
    folder = Path(folder)
    if folder.exists() and not all(OURS.fullmatch(path.name) for path in folder.iterdir()):
        raise BadInput(f"{folder} holds something else than a saved replay buffer: choose another folder")
    inner = folder / f"save-{secrets.token_hex(4)}"
    try:
        inner.mkdir(parents=True)
        rows = buffer.storage.dump(inner)
        arrays, numbers = states(buffer.drawing())
        own = {name: value.detach().cpu().clone() for name, value in arrays.items()}  # they may share memory
        safetensors.torch.save_file(own, inner / "parts.safetensors")
        files = {path.name: {"bytes": path.stat().st_size, "sha256": _hash(path)} for path in sorted(inner.iterdir())}
        contents = {"format": FORMAT, "folder": inner.name, "files": files, "storage": rows, "state": numbers}
        contents |= {"added": buffer.added, "drawn": buffer.drawn, "parts": _parts(buffer)}
        sync_folder(inner)
        write_json(folder / "buffer.json", contents | {"sha256": _hash_json(contents)})
    except BaseException:
        shutil.rmtree(inner, ignore_errors=True)
        raise
    for path in folder.iterdir():  # what it replaces, and drafts of processes that were killed
        if path.is_dir() and path != inner:
            shutil.rmtree(path, ignore_errors=True)
        elif path.name.startswith(TEMPORARY):
            path.unlink(missing_ok=True)
    return folder


def load(buffer: Savable, folder: str | Path) -> None:
    """Fills a buffer of the same parts and sizes. Everything is verified before anything is changed.

    Raises BadInput when there is none or sizes differ, Damaged, naming the file, when it is not as it was written.
    """
    folder = Path(folder)
    if not (folder / "buffer.json").is_file():
        raise BadInput(f"there is no saved replay buffer in {folder}")
    contents = read_json(folder / "buffer.json")
    if not isinstance(contents, dict) or contents.pop("sha256", None) != _hash_json(contents):
        raise Damaged(f"{folder / 'buffer.json'} is not as it was written: its SHA-256 differs")
    if contents.get("format") != FORMAT:
        raise Damaged(f"{folder} has format {contents.get('format')}, this whorl reads {FORMAT}")
    try:
        _load(buffer, folder, contents)
    except (KeyError, TypeError, AttributeError) as error:  # a stranger's numbers, with a hash that fits
        raise Damaged(f"{folder / 'buffer.json'} is not what whorl writes ({type(error).__name__}: {error})") from error


def _load(buffer: Savable, folder: Path, contents: Numbers) -> None:
    inner = folder / Path(contents["folder"]).name
    with Folder.inside(inner) as inside:
        for name, declared in contents["files"].items():
            there = inside.holds(name)
            if (
                not there
                or os.stat(inner / name).st_size != declared["bytes"]
                or _hash(inner / name) != declared["sha256"]
            ):
                raise Damaged(f"{inner / name} is not as it was written: its size or SHA-256 differs from buffer.json")
    try:
        arrays = safetensors.torch.load_file(inner / "parts.safetensors")
    except (SafetensorError, OSError) as error:
        raise Damaged(f"{inner / 'parts.safetensors'}: {error}") from None
    if contents["parts"] != _parts(buffer):
        raise BadInput(
            f"{folder} was saved by a buffer of {', '.join(contents['parts'])}, this one is of {', '.join(_parts(buffer))}: "
            "load it into one of the same parts"
        )
    buffer.storage.restore(inner, contents["storage"])
    load_states(buffer.drawing(), arrays, contents["state"])
    buffer.added, buffer.drawn = contents["added"], contents["drawn"]


def _parts(buffer: Savable) -> list[str]:
    """The classes of what has a state, with the exponent that priorities were raised to."""
    names = [type(part).__name__ for part in buffer.drawing().values()]
    alpha = getattr(buffer.sampler, "alpha", None)
    return names if alpha is None else [*names, f"alpha {alpha}"]


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_json(contents: Numbers) -> str:
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()
