"""Files that are whole or not there: durable writing, locking, and names from outside that stay inside their folder."""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import secrets
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from whorl.errors import BadInput, Damaged

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
TEMPORARY = ".tmp-"  # what a killed writer leaves behind begins with this
MAX_PARTS, MAX_NAME = 8, 1000  # of the name of a confined folder: parts, characters


def check_name(name: str, what: str) -> str:
    """`name` itself, if it can name a file on any system and cannot leave its folder; raises BadInput otherwise."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise BadInput(
            f"{what} {name!r} cannot name a folder: use 1 to 100 letters, digits, '.', '_' or '-', "
            "the first of them a letter or a digit"
        )
    return name


# ---------------------------------------------------------------------------------------------- durable writing


def sync_folder(folder: Path) -> None:
    """Waits until the names in `folder` (new files, renames, links) are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make(folder: Path) -> None:
    """Makes a folder and those above it, if they are not there, and waits until their names are on disk."""
    if not folder.is_dir():
        make(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def write_synced(path: Path, data: bytes) -> None:
    """Writes a file and waits until its contents (not yet its name) are on disk."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def temporary(path: Path) -> Path:
    """A name beside `path` that nobody else uses; `checkpoint.clean` knows it as litter if its writer is killed."""
    return path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}-{secrets.token_hex(4)}")


def write(path: str | Path, data: bytes) -> None:
    """Replaces a file at once: its readers, even after a power cut, see the old contents or the new, never a part."""
    path = Path(path)
    draft = temporary(path)
    try:
        write_synced(draft, data)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def link(path: Path, target: Path) -> Path:
    """Makes `path` a relative symlink to `target`, replacing an older one at once; BadInput if it is a real folder."""
    if path.is_dir() and not path.is_symlink():
        raise BadInput(f"{path} should become a link to {target} but is a folder: rename that folder")
    draft = temporary(path)
    os.symlink(os.path.relpath(target.resolve(), path.parent.resolve()), draft)
    os.replace(draft, path)
    sync_folder(path.parent)
    return path


def json_bytes(data: Any, what: str) -> bytes:
    """`data` as JSON that reads back equal: floats to the last bit, key order kept.

    Raises BadInput, naming the place, for what JSON cannot keep: NaN and infinity, tuples, keys that are not strings,
    other types.
    """
    _check_json(data, what)
    return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()


def _check_json(value: Any, place: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise BadInput(f"{place} has the key {key!r}, a {type(key).__name__}: JSON keeps only strings as keys")
            _check_json(inner, f"{place}[{key!r}]")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_json(inner, f"{place}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise BadInput(f"{place} is {value}: JSON keeps only finite numbers. Write None, or a string")
    elif value is not None and not isinstance(value, (bool, int, float, str)):
        raise BadInput(
            f"{place} is a {type(value).__name__}, which JSON cannot give back as it was: "
            "use numbers, strings, lists and dicts (tensors go to the tensor groups of a checkpoint)"
        )


def write_json(path: str | Path, data: Any) -> None:
    """Replaces a JSON file at once (see `write`, `json_bytes`)."""
    write(path, json_bytes(data, Path(path).name))


def read_json(path: str | Path) -> Any:
    """The contents of a JSON file. Raises Damaged when it is missing or not JSON, and says where it breaks off."""
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise Damaged(f"{path} is missing") from None
    except (ValueError, RecursionError) as error:
        raise Damaged(
            f"{path} is not valid JSON ({error}): it was cut off or changed. Restore it from a copy"
        ) from None


class Lines:
    """A text file that only grows, one write per call. A write that fails (full disk) leaves no half line behind.

    `position()` waits until all lines are on disk and returns the size in bytes, for a checkpoint;
    `rewind(position)` cuts off what came later, so that a resumed run writes no line twice.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115  open as long as the logger
        self._size = self._file.seek(0, os.SEEK_END)

    def append(self, text: str) -> None:
        data = text.encode()
        try:
            written = 0
            while written < len(data):  # a full disk takes a part first and fails with the rest
                written += self._file.write(data[written:])
        except OSError as error:
            self._file.truncate(self._size)
            raise OSError(error.errno, f"{error.strerror}: {self.path} was not written") from error
        self._size += len(data)

    def position(self) -> dict[str, int]:
        os.fsync(self._file.fileno())
        return {"bytes": self._size}

    def rewind(self, position: dict[str, int]) -> None:
        """Raises Damaged, and goes on at the end, if the file is shorter than the checkpoint remembers."""
        if position["bytes"] > self._size:
            raise Damaged(
                f"{self.path} has {self._size} bytes but had {position['bytes']} at the checkpoint: lines were lost"
            )
        self._file.truncate(position["bytes"])
        self._size = position["bytes"]

    @property
    def empty(self) -> bool:
        return self._size == 0

    def close(self) -> None:
        self._file.close()


def whole_lines(path: Path) -> list[str]:
    """The lines of a file that a running process may be appending to; none if it is not there."""
    text = path.read_text() if path.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()


# --------------------------------------------------------------------------------------------------------- lock


@contextmanager
def lock(path: str | Path, wait: bool = False, heirs: bool = False) -> Iterator[int]:
    """Holds the folder `path` for this process. Raises BadInput, naming the owner, while another one holds it.

    The lock is the kernel's (flock on `.lock`), so it ends with its owner, however that dies. The file stays and means
    nothing. wait: until the owner is done, instead of the error. heirs: child processes that are given the descriptor, which
    the block gets, hold the folder too, until the last of them is gone.
    """
    with open(Path(path) / ".lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise BadInput(
                f"{path} is in use by {owner}: two processes would overwrite each other's files. "
                "Wait until it ends or stop it, or use another run folder"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}{' or one that it started' if heirs else ''}\n")
        file.flush()
        try:
            yield file.fileno()
        finally:
            if not heirs:
                fcntl.flock(file, fcntl.LOCK_UN)  # also where a forked child still has the file open


# ------------------------------------------------------------------------------------- what comes from outside


def read_regular(path: Path, limit: int, name: str | None = None) -> bytes:
    """The contents of a regular file of at most `limit` bytes. Follows no link, which could lead out of the folder, and waits
    for no pipe, which could never end. Raises Damaged, calling the file `name` (None: its path)."""
    name = name or str(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Damaged(f"{name} cannot be read as a regular file: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Damaged(f"{name} is not a regular file")
        if status.st_size > limit:
            raise Damaged(f"{name} has {status.st_size:,} bytes, more than the {limit:,} it may have")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(limit)
    finally:
        os.close(descriptor)


def confined(root: str | Path, name: str, create: bool = True, where: str = "here") -> Path:
    """The folder inside `root` that a name from outside means; made, with those above it, unless `create` is False.

    Of an absolute path only the last part counts: original clients send "<system temp>/random-agent-results". Refused with
    BadInput: "..", backslashes, drive letters, "%", control characters, parts that `check_name` refuses, names that are
    too long, a file in the way, and symlinks below `root`, wherever they lead. The folders are made and opened one inside the
    other without following links, so that nothing which is swapped in meanwhile leads outside.
    """
    parts = _parts(name, where)
    root = Path(root).resolve()
    if create:
        make(root)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    inner, descriptor = root, -1
    try:
        descriptor = os.open(root, flags)
        for part in parts:
            inner = inner / part
            if create:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=descriptor)
            outer, descriptor = descriptor, os.open(part, flags, dir_fd=descriptor)
            os.close(outer)
        if not os.path.samestat(os.fstat(descriptor), os.stat(inner)):  # what the path names is what was opened
            raise BadInput(f"{shown(name)} cannot be a folder {where}: it was moved meanwhile")
    except FileNotFoundError:
        raise BadInput(f"there is no folder {shown(name)} {where}") from None
    except OSError as error:  # no folder, or a link
        raise BadInput(f"{shown(name)} cannot be a folder {where}: {error.strerror}") from None
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return inner


def _parts(name: str, where: str) -> list[str]:
    if not isinstance(name, str) or not name:
        raise BadInput(f"a folder is named by a string, got {shown(name)}")
    every = [part for part in name.split("/") if part not in ("", ".")]
    parts = every[-1:] if name.startswith("/") else every
    if len(name) > MAX_NAME or not 1 <= len(parts) <= MAX_PARTS:
        raise BadInput(
            f"{shown(name)} cannot be a folder {where}: it may have 1 to {MAX_PARTS} parts and {MAX_NAME} characters"
        )
    odd = re.search(r"[\\%\x00-\x1f\x7f-\x9f]|^/*[A-Za-z]:", name)
    if odd or ".." in every or not all(NAME.fullmatch(part) for part in parts):
        raise BadInput(
            f"{shown(name)} cannot be a folder {where}: each part of its name is 1 to 100 letters, digits, "
            "'.', '_' or '-', the first of them a letter or a digit"
        )
    return parts


def shown(value: Any) -> str:
    """A value from outside for a message: in ASCII, cut where that gets long."""
    text = ascii(value)
    return text if len(text) <= 100 else text[:100] + "..."
