"""A whole replay buffer as a folder: raw rows, safetensors, JSON, published by one rename. Nothing in it is executed."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

from whorl.buffers.ring_file import read_json, sync_folder, write_json
from whorl.errors import BadInput, Damaged

FORMAT = 1


def save(buffer: Any, folder: str | Path) -> Path:
    """Writes rows, sampler and counters to `folder`, replacing a buffer that was saved there. Raises BadInput if it holds anything else."""
    folder = Path(folder)
    if folder.exists() and not (folder / "buffer.json").is_file() and any(folder.iterdir()):
        raise BadInput(f"{folder} is not a saved replay buffer and not empty: choose another folder")
    draft = folder.with_name(f".tmp-{folder.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        draft.mkdir(parents=True)
        rows = buffer.storage.dump(draft)
        arrays, numbers = buffer.sampler.state()
        safetensors.torch.save_file(
            {name: value.cpu().contiguous() for name, value in arrays.items()}, draft / "sampler.safetensors"
        )
        files = {path.name: {"bytes": path.stat().st_size, "sha256": _hash(path)} for path in sorted(draft.iterdir())}
        contents = {"added": buffer.added, "drawn": buffer.drawn, "storage": rows, "sampler": numbers}
        write_json(draft / "buffer.json", {"format": FORMAT, "files": files, **contents})
        old = draft.with_name(draft.name + "-old")
        if folder.exists():
            os.rename(folder, old)
        os.rename(draft, folder)
        sync_folder(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return folder


def load(buffer: Any, folder: str | Path) -> None:
    """Fills a buffer of the same parts and sizes. Everything is verified before anything is changed.

    Raises BadInput when there is none or sizes differ, Damaged, naming the file, when it is not as it was written.
    """
    folder = Path(folder)
    if not (folder / "buffer.json").is_file():
        raise BadInput(f"there is no saved replay buffer in {folder}")
    contents = read_json(folder / "buffer.json")
    try:
        form, files = contents["format"], contents["files"]
        added, drawn, rows, numbers = (contents[key] for key in ("added", "drawn", "storage", "sampler"))
        declared = [(folder / name, file["bytes"], file["sha256"]) for name, file in files.items() if "/" not in name]
    except (TypeError, KeyError, AttributeError):
        raise Damaged(f"{folder / 'buffer.json'} was not written by whorl: it was changed") from None
    if form != FORMAT:
        raise Damaged(f"{folder} has format {form}, this whorl reads {FORMAT}")
    for path, size, sha256 in declared:
        if not path.is_file() or path.stat().st_size != size or _hash(path) != sha256:
            raise Damaged(f"{path} is not as it was written: its size or SHA-256 differs from buffer.json")
    try:
        arrays = safetensors.torch.load_file(folder / "sampler.safetensors")
    except (SafetensorError, OSError) as error:
        raise Damaged(f"{folder / 'sampler.safetensors'}: {error}") from None
    buffer.storage.restore(folder, rows)
    buffer.sampler.load_state(arrays, numbers)
    buffer.added, buffer.drawn = added, drawn


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
