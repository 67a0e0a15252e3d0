"""Checkpoints that no kill, full disk or flipped bit can make you lose: safetensors + JSON, published by one rename.

    checkpoints/step_2000/  policy.safetensors  agent.safetensors  ...  state.json  manifest.json
    checkpoints/last -> step_2000,  checkpoints/best -> step_1000

Order of writing: files into `.tmp-...`, fsync of each, manifest (sizes and SHA-256) last, fsync of the folder, one
rename to `step_N`, fsync of the parent. So a `step_N` is complete from the first moment in which it has this name.
Nothing here executes data: no pickle, and a file is parsed only after its hash was found right. Nothing is followed but `last` and
`best`, which name a folder beside them (see `folders.Folder`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import stat
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from whorl.batch import Arrays, Numbers
from whorl.errors import BadInput, Damaged
from whorl.folders import NAME, Folder, check_name, temporary
from whorl.json_text import json_bytes, parse_json
from whorl.training.folder import MARKS, STEP
from whorl.training.sizes import check_memory

FORMAT = 2  # rises when what is written is read by no older whorl, and what older ones wrote not by this
MANIFEST_BYTES = 1 << 20  # far above any real manifest: what is larger is not read
_log = logging.getLogger("whorl")


def save(folder: str | Path, step: int, tensors: dict[str, Arrays], state: Numbers, config: str = "") -> Path:
    """Writes `folder/step_{step}` and returns it; on return it is on disk.

    `tensors` maps a group ("policy", "optimizer", ...) to its named tensors, of any shape, device and layout (they are
    saved contiguous and each on its own; a group may be empty). `state` is everything else: dicts, lists, strings,
    integers of any size, finite floats. config: a hash of the run's config.json, for the manifest. A step that exists is kept
    if it is intact and equal, else replaced at once.

    Raises BadInput for what cannot be saved (nothing is written) and OSError when writing fails (full disk): then the
    temporary folder is removed and every older checkpoint is as it was.
    """
    folder = Path(folder)
    path = folder / f"step_{_natural(step)}"
    files = {f"{check_name(group, 'the group')}.safetensors": _pack(group, named) for group, named in tensors.items()}
    files["state.json"] = json_bytes(state, "state")
    manifest = _manifest({name: {"bytes": len(data), "sha256": _hash(data)} for name, data in files.items()}, config)
    draft = temporary(path).name
    try:
        with Folder.inside(folder, make=True) as inside:
            try:
                with inside.make(draft) as new:
                    for name, data in files.items():
                        new.write_new(name, data)
                    new.write_new("manifest.json", manifest)
                    new.sync()
                _publish(inside, draft, path.name, manifest)
            finally:
                inside.remove(draft)
    except Damaged:
        raise
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror}: the checkpoint of step {step} could not be written to {folder}. "
            "Older checkpoints are untouched. Free some space or pass another folder",
        ) from error
    return path


def load(path: str | Path) -> tuple[dict[str, Arrays], Numbers]:
    """What `save` was given: (tensors by group and name, on the CPU; state). All is verified before any is parsed.

    Raises BadInput when there is no such folder; Damaged, naming the file and what differs, when it is not as written.
    """
    path = Path(path)
    path = find(path.parent, path.name) if path.name in MARKS else path
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
    state = parse_json(contents["state.json"], path / "state.json")
    if not isinstance(state, dict):
        raise Damaged(f"{path / 'state.json'} should hold a table, got a {type(state).__name__}: it was changed")
    return tensors, state


def verify(path: str | Path) -> None:
    """Raises Damaged, naming the file and what differs, unless all files have the size and hash of the manifest."""
    for _ in _contents(Path(path)):
        pass


def config_of(path: str | Path) -> str:
    """The hash of the config.json under which a checkpoint was written; "" where its manifest has none."""
    with Folder.inside(path) as folder:
        return _read_manifest(folder)[1]


def newest(folder: str | Path) -> Path | None:
    """The intact checkpoint of the highest step; None if there are no checkpoints.

    Damaged ones are passed over, and a warning (logger "whorl") says which, why and what is used instead.
    Raises Damaged if there are checkpoints and none is intact.
    """
    damaged = []
    for name in reversed(steps(folder)):
        path = Path(folder) / name
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
    folder, here = Path(folder), steps(folder)
    marks = marked(folder)
    name = str(which) if which in MARKS or str(which).startswith("step_") else f"step_{which}"
    if (name := marks.get(name, name)) in here:
        return folder / name
    there = [*marks, *(step.removeprefix("step_") for step in here)]
    raise BadInput(f"there is no checkpoint {which!r} in {folder}: there is {', '.join(there) or 'none at all'}")


def marked(folder: str | Path) -> dict[str, str]:
    """{"best": "step_1000", "last": "step_2000"}: the links that lead to a checkpoint beside them."""
    here = steps(folder)
    with suppress(FileNotFoundError), Folder.inside(folder) as inside:
        links = {name: inside.linked(name) for name in MARKS}
        return {name: target for name, target in links.items() if target in here}
    return {}


def mark(folder: str | Path, name: str, path: str | Path) -> None:
    """Makes the link `folder/<name>` ("best" or "last") point to the checkpoint `path`, at once."""
    if name not in MARKS:
        raise BadInput(f"a checkpoint is marked {' or '.join(MARKS)}, not {name!r}")
    target = find(folder, Path(path).name).name
    with Folder.inside(folder) as inside:
        inside.link(name, target)


def clean(*folders: str | Path) -> None:
    """Removes what killed writers left. Only for who holds the lock of the run: a live writer's draft looks the same."""
    for folder in folders:
        with suppress(FileNotFoundError), Folder.inside(folder) as inside:
            inside.clean()


def prune(folder: str | Path, keep: int | Literal["all"], held: Collection[str] = ()) -> None:
    """Deletes all but the newest `keep` checkpoints, those that `best` and `last` point to and those whose names are `held`; "all": none.

    `keep` >= 2 leaves something to fall back on when the newest is found damaged. What is deleted loses its name first,
    so no half-deleted checkpoint is ever seen.
    """
    if keep == "all":
        return
    here = steps(folder)
    kept = {*held, *marked(folder).values(), *here[max(len(here) - _natural(keep), 0) :]}
    with Folder.inside(folder) as inside:
        for name in here:
            if name not in kept:
                _trash(inside, name)


def steps(folder: str | Path) -> list[str]:
    """The names of the checkpoints in a folder, intact or not, by rising step; none where there is no folder."""
    with suppress(FileNotFoundError), Folder.inside(folder) as inside:
        named = [name for name in inside.names() if STEP.fullmatch(name)]
        real = [name for name in named if (found := inside.status(name)) is not None and stat.S_ISDIR(found.st_mode)]
        return sorted(real, key=lambda name: int(name.removeprefix("step_")))
    return []


# ----------------------------------------------------------------------------------------------------- on disk


def _natural(number: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise BadInput(f"expected a whole number of 0 or more, got {number!r}")
    return number


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _manifest(files: dict[str, Numbers], config: str) -> bytes:
    covered = {"config": config} if config else {}
    return (json.dumps({"format": FORMAT, **covered, "files": files}, indent=1) + "\n").encode()


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
    with Folder.inside(path) as folder:
        files, _ = _read_manifest(folder)
        for name, declared in files.items():
            if not folder.holds(name):
                raise Damaged(f"{path / name} is missing")
            if (found := folder.status(name)) is None or found.st_size != declared["bytes"]:
                size = "no" if found is None else found.st_size
                raise Damaged(f"{path / name} has {size} bytes, its manifest says {declared['bytes']}")
        check_memory(sum(each["bytes"] for each in files.values()), f"the checkpoint {path}", "it is not read")
        for name, declared in files.items():
            data = folder.read(name, declared["bytes"])
            if _hash(data) != declared["sha256"]:
                raise Damaged(
                    f"{path / name} has the SHA-256 {_hash(data)[:12]}..., its manifest says {declared['sha256'][:12]}..."
                )
            yield name, data


def _read_manifest(folder: Folder) -> tuple[dict[str, Numbers], str]:
    """The files of a manifest, {name: {"bytes", "sha256"}}, and what it says of config.json. Each byte must be what `save` would write
    for them."""
    path = folder.path / "manifest.json"
    data = folder.read("manifest.json", MANIFEST_BYTES)
    try:
        manifest = json.loads(data)
        form, files, config = manifest["format"], manifest["files"], manifest.get("config", "")
        if type(form) is int and form != FORMAT:
            other = "a newer" if form > FORMAT else "an older"
            raise Damaged(f"{path} has format {form}, this whorl reads {FORMAT}: use {other} whorl")
        names = [name for name in files if NAME.fullmatch(name) and name.endswith((".safetensors", "state.json"))]
        typed = all(type(file["bytes"]) is int and type(file["sha256"]) is str for file in files.values())
        if len(names) == len(files) and "state.json" in names and typed and _manifest(files, config) == data:
            return files, config
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise Damaged(f"{path} is not a manifest that whorl wrote: it was cut off or changed")


def _publish(folder: Folder, draft: str, name: str, manifest: bytes) -> None:
    """Gives the finished `draft` the name. A checkpoint already there is kept if equal, else replaced."""
    if folder.status(name) is None:
        folder.rename(draft, name)
        return folder.sync()
    path = folder.path / name
    try:
        verify(path)
        intact = True
    except OSError:
        intact = False
    if intact and (path / "manifest.json").read_bytes() == manifest:
        return
    if not (intact and folder.exchange(draft, name)):  # damaged, or a file system without exchange: two renames
        _trash(folder, name)
        folder.rename(draft, name)
    folder.sync()


def _trash(folder: Folder, name: str) -> None:
    """Removes what lies under a name, which it loses first."""
    doomed = temporary(Path(name)).name
    folder.rename(name, doomed)
    folder.remove(doomed)
