"""Checkpoints that no kill, full disk or flipped bit can make you lose: safetensors + JSON, published by one rename.

    checkpoints/step_2000/  policy.safetensors  agent.safetensors  ...  state.json  manifest.json
    checkpoints/last -> step_2000,  checkpoints/best -> step_1000

Order of writing: files into `.tmp-...`, fsync of each, manifest (sizes and SHA-256) last, fsync of the folder, one
rename to `step_N`, fsync of the parent. So a `step_N` is complete from the first moment in which it has this name.
Nothing here executes data: no pickle, and a file is parsed only after its hash was found right.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from whorl.batch import Arrays, Numbers
from whorl.errors import BadInput, Damaged
from whorl.files import (
    NAME,
    TEMPORARY,
    check_name,
    json_bytes,
    link,
    make,
    sync_folder,
    temporary,
    write_synced,
)

FORMAT = 2  # rises when what is written is read by no older whorl, and what older ones wrote not by this
LINKS = ("best", "last")
MANIFEST_BYTES = 1 << 20  # far above any real manifest: what is larger is not read
_log = logging.getLogger("whorl")


def save(folder: str | Path, step: int, tensors: dict[str, Arrays], state: Numbers) -> Path:
    """Writes `folder/step_{step}` and returns it; on return it is on disk.

    `tensors` maps a group ("policy", "optimizer", ...) to its named tensors, of any shape, device and layout (they are
    saved contiguous and each on its own; a group may be empty). `state` is everything else: dicts, lists, strings,
    integers of any size, finite floats. A step that exists is kept if it is intact and equal, else replaced at once.

    Raises BadInput for what cannot be saved (nothing is written) and OSError when writing fails (full disk): then the
    temporary folder is removed and every older checkpoint is as it was.
    """
    folder = Path(folder)
    path = folder / f"step_{_natural(step)}"
    files = {f"{check_name(group, 'the group')}.safetensors": _pack(group, named) for group, named in tensors.items()}
    files["state.json"] = json_bytes(state, "state")
    manifest = _manifest({name: {"bytes": len(data), "sha256": _hash(data)} for name, data in files.items()})
    draft = temporary(path)
    try:
        make(folder)
        draft.mkdir()
        for name, data in files.items():
            write_synced(draft / name, data)
        write_synced(draft / "manifest.json", manifest)
        sync_folder(draft)
        _publish(draft, path, manifest)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise OSError(
            error.errno,
            f"{error.strerror}: the checkpoint of step {step} could not be written to {folder}. "
            "Older checkpoints are untouched. Free some space or pass another folder",
        ) from error
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return path


def load(path: str | Path) -> tuple[dict[str, Arrays], Numbers]:
    """What `save` was given: (tensors by group and name, on the CPU; state). All is verified before any is parsed.

    Raises BadInput when there is no such folder; Damaged, naming the file and what differs, when it is not as written.
    """
    path = Path(path)
    if not path.is_dir():
        raise BadInput(f"there is no checkpoint {path}")
    contents = dict(_contents(path))
    tensors = {}
    for name, data in contents.items():
        if name != "state.json":
            try:
                tensors[name.removesuffix(".safetensors")] = safetensors.torch.load(data)
            except (SafetensorError, KeyError, ValueError) as error:
                raise Damaged(f"{path / name} is not a safetensors file, though its hash is right: {error}") from None
    try:
        return tensors, json.loads(contents["state.json"])
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path / 'state.json'} is not JSON, though its hash is right: {error}") from None


def verify(path: str | Path) -> None:
    """Raises Damaged, naming the file and what differs, unless all files have the size and hash of the manifest."""
    for _ in _contents(Path(path)):
        pass


def newest(folder: str | Path) -> Path | None:
    """The intact checkpoint of the highest step; None if there are no checkpoints.

    Damaged ones are passed over, and a warning (logger "whorl") says which, why and what is used instead.
    Raises Damaged if there are checkpoints and none is intact.
    """
    damaged = []
    for path in reversed(_steps(Path(folder))):
        try:
            verify(path)
        except OSError as error:
            damaged.append(str(error))
            continue
        for reason in damaged:
            _log.warning("damaged checkpoint passed over: %s. Using %s instead", reason, path)
        return path
    if damaged:
        raise Damaged(f"no checkpoint in {folder} is intact: " + "; ".join(damaged))
    return None


def find(folder: str | Path, which: str | int) -> Path:
    """The checkpoint that `which` names: "best", "last", or a step (2000, "2000", "step_2000"). `load` verifies it.

    Raises BadInput naming those that exist.
    """
    folder = Path(folder)
    name = str(which) if which in LINKS or str(which).startswith("step_") else f"step_{which}"
    path = (folder / name).resolve()
    if path.is_dir() and path in [step.resolve() for step in _steps(folder)]:
        return path
    steps = [step.name.removeprefix("step_") for step in _steps(folder)]
    there = [name for name in LINKS if (folder / name).is_dir()] + steps
    raise BadInput(f"there is no checkpoint {which!r} in {folder}: there is {', '.join(there) or 'none at all'}")


def mark(folder: str | Path, name: str, path: str | Path) -> None:
    """Makes the link `folder/<name>` ("best" or "last") point to the checkpoint `path`, at once."""
    if name not in LINKS:
        raise BadInput(f"a checkpoint is marked {' or '.join(LINKS)}, not {name!r}")
    link(Path(folder) / name, find(folder, Path(path).name))


def clean(folder: str | Path) -> None:
    """Removes what killed writers left. Only for who holds the lock of the run: a live writer's draft looks the same."""
    for path in Path(folder).glob(f"{TEMPORARY}*"):
        _remove(path)


def prune(folder: str | Path, keep: int) -> None:
    """Deletes all but the newest `keep` checkpoints and those that `best` and `last` point to.

    `keep` >= 2 leaves something to fall back on when the newest is found damaged. What is deleted loses its name first,
    so no half-deleted checkpoint is ever seen.
    """
    folder = Path(folder)
    steps = _steps(folder)
    kept = {(folder / name).resolve() for name in LINKS} | {
        step.resolve() for step in steps[max(len(steps) - _natural(keep), 0) :]
    }
    for path in steps:
        if path.resolve() not in kept:
            _trash(path)


# ----------------------------------------------------------------------------------------------------- on disk


def _natural(number: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise BadInput(f"expected a whole number of 0 or more, got {number!r}")
    return number


def _steps(folder: Path) -> list[Path]:
    """Checkpoint folders, intact or not, by rising step."""
    named = [path for path in folder.glob("step_*") if re.fullmatch(r"step_(0|[1-9]\d*)", path.name) and path.is_dir()]
    return sorted(
        (path for path in named if not path.is_symlink()), key=lambda path: int(path.name.removeprefix("step_"))
    )


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _manifest(files: dict[str, Numbers]) -> bytes:
    return (json.dumps({"format": FORMAT, "files": files}, indent=1) + "\n").encode()


def _pack(group: str, named: dict[str, Tensor]) -> bytes:
    """One group as safetensors. Tensors that share memory (tied weights, views) are written out one by one."""
    packed, seen = {}, set()
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise BadInput(f"tensors[{group!r}][{name!r}] should be a dense tensor, got {type(tensor).__name__}")
        tensor = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
        memory = tensor.untyped_storage()
        if memory.data_ptr() in seen or memory.nbytes() != tensor.numel() * tensor.element_size():
            tensor = tensor.clone()
        seen.add(memory.data_ptr())
        packed[name] = tensor
    try:
        return safetensors.torch.save(packed)
    except (SafetensorError, KeyError, ValueError) as error:
        raise BadInput(f"the group {group!r} cannot be written as safetensors: {error}") from None


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, verified bytes) of each file but the manifest. All sizes are compared before any contents are read."""
    files = _read_manifest(path / "manifest.json")
    for name, declared in files.items():
        found = _size(path / name)
        if found != declared["bytes"]:
            raise Damaged(f"{path / name} has {found} bytes, its manifest says {declared['bytes']}")
    for name, declared in files.items():
        data = (path / name).read_bytes()
        if _hash(data) != declared["sha256"]:
            raise Damaged(
                f"{path / name} has the SHA-256 {_hash(data)[:12]}..., its manifest says {declared['sha256'][:12]}..."
            )
        yield name, data


def _read_manifest(path: Path) -> dict[str, Numbers]:
    """The files of a manifest, {name: {"bytes", "sha256"}}. Each byte must be what `save` would write for them."""
    if _size(path) > MANIFEST_BYTES:
        raise Damaged(f"{path} has {_size(path)} bytes, more than the {MANIFEST_BYTES} any manifest has")
    data = path.read_bytes()
    try:
        manifest = json.loads(data)
        form, files = manifest["format"], manifest["files"]
        if type(form) is int and form != FORMAT:
            other = "a newer" if form > FORMAT else "an older"
            raise Damaged(f"{path} has format {form}, this whorl reads {FORMAT}: use {other} whorl")
        names = [name for name in files if NAME.fullmatch(name) and name.endswith((".safetensors", "state.json"))]
        typed = all(type(file["bytes"]) is int and type(file["sha256"]) is str for file in files.values())
        if len(names) == len(files) and "state.json" in names and typed and _manifest(files) == data:
            return files
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise Damaged(f"{path} is not a manifest that whorl wrote: it was cut off or changed")


def _size(path: Path) -> int:
    """Bytes of a regular file: not a link, which could lead out of the folder, nor a pipe, which could never end."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        raise Damaged(f"{path} is missing") from None
    if not stat.S_ISREG(status.st_mode):
        raise Damaged(f"{path} is not a regular file")
    return status.st_size


def _publish(draft: Path, path: Path, manifest: bytes) -> None:
    """Gives the finished `draft` the name `path`. A checkpoint already there is kept if equal, else replaced."""
    if not path.exists():
        os.rename(draft, path)
        return sync_folder(path.parent)
    try:
        verify(path)
        intact = True
    except OSError:
        intact = False
    if intact and (path / "manifest.json").read_bytes() == manifest:
        return shutil.rmtree(draft)
    if not (intact and _swap(draft, path)):  # damaged, or a file system without swap (NFS): there it is two renames
        _trash(path)
        os.rename(draft, path)
    sync_folder(path.parent)
    shutil.rmtree(draft, ignore_errors=True)


def _swap(one: Path, other: Path) -> bool:
    """Exchanges two names in one operation; False where the system cannot (Linux: renameat2 with RENAME_EXCHANGE)."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    current = -100  # AT_FDCWD
    return rename is not None and rename(current, os.fsencode(one), current, os.fsencode(other), 2) == 0


def _trash(path: Path) -> None:
    doomed = temporary(path)
    os.rename(path, doomed)
    _remove(doomed)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
