"""Files that are whole or not there: durable writing, locking, and folders that nothing inside leads out of."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import io
import json
import math
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from whorl.errors import BadInput, Damaged

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
TEMPORARY = ".tmp-"  # what a killed writer leaves behind begins with this
MAX_PARTS, MAX_NAME = 8, 1000  # of the name of a confined folder: parts, characters
MOST_WAITING = 64 << 20  # bytes of a file on a full disk that wait in memory
JSON_BYTES = 64 << 20  # far above any JSON file that whorl writes: what is larger is not read


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
    """A name beside `path` that nobody else uses; `Folder.clean` knows it as litter if its writer is killed."""
    return path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}-{secrets.token_hex(4)}")


def write(path: str | Path, data: bytes) -> None:
    """Replaces a file at once: its readers, even after a power cut, see the old contents or the new, never a part."""
    path = Path(path)
    with Folder(path.parent) as folder:
        folder.write(path.name, data)


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
    """The contents of a JSON file. Raises Damaged when it is missing, no regular file, larger than any that whorl writes, or not
    JSON, and says where it breaks off."""
    return parse_json(read_regular(Path(path), JSON_BYTES), path)


def parse_json(data: bytes | str, where: object) -> Any:
    """The value of a JSON text. Raises Damaged, beginning with `where`, when it is none."""
    try:
        return strict(data)
    except (ValueError, RecursionError) as error:
        raise Damaged(
            f"{where} is not valid JSON ({error}): it was cut off or changed. Restore it from a copy"
        ) from None


def strict(text: bytes | str) -> Any:
    """The value of a JSON text, by the letter of the standard. Raises ValueError for what is not JSON, NaN, Infinity and numbers that
    no float holds included, RecursionError for what is nested deeper than Python reads."""
    return json.loads(text, parse_constant=_refuse, parse_float=_float)


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON number")


def _float(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


class Lines:
    """A file that only grows, one write per call. A write that fails (full disk) leaves no half line behind; its text waits for the
    next call, so that nothing is lost once there is room again.

    `position()` waits until all lines are on disk and returns the size in bytes, for a checkpoint;
    `rewind(position)` cuts off what came later, so that a resumed run writes no line twice.
    Raises Damaged for a file that is a link, has a second name or is no file at all.
    """

    def __init__(self, path: str | Path, folder: Folder | None = None):
        """folder: the file's own, held open; None: it is opened by its path."""
        self.path = Path(path)
        with nullcontext(folder) if folder else Folder(self.path.parent) as here:
            self._file = here.file(self.path.name, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self._size = self._file.seek(0, os.SEEK_END)
        self._waiting = b""

    def append(self, text: str) -> None:
        self.write(text.encode())

    def write(self, data: bytes) -> None:
        """`append` for what is no text."""
        data = self._waiting + data
        try:
            written = 0
            while written < len(data):  # a full disk takes a part first and fails with the rest
                written += self._file.write(data[written:])
        except OSError as error:
            self._file.truncate(self._size)
            if len(data) <= MOST_WAITING:
                self._waiting = data
            raise OSError(error.errno, f"{error.strerror}: {self.path} was not written") from error
        self._size, self._waiting = self._size + len(data), b""

    def flush(self) -> None:
        """Nothing: what was written is with the system already."""

    def position(self) -> dict[str, int]:
        with suppress(OSError):  # what still has to wait is none of the checkpoint's
            self.write(b"")
        os.fsync(self._file.fileno())
        return {"bytes": self._size}

    def rewind(self, position: dict[str, int]) -> None:
        """Raises Damaged, and goes on at the end, if the file is shorter than the checkpoint remembers."""
        if not 0 <= position["bytes"] <= self._size:
            raise Damaged(
                f"{self.path} has {self._size} bytes but had {position['bytes']} at the checkpoint: lines were lost"
            )
        self._file.truncate(position["bytes"])
        self._size = position["bytes"]

    @property
    def empty(self) -> bool:
        return self._size == 0

    @property
    def closed(self) -> bool:
        return self._file.closed

    def close(self) -> None:
        try:
            self.write(b"")
        finally:
            self._file.close()


def whole_lines(path: Path) -> list[str]:
    """The lines of a file that a running process may be appending to; none if it is not there. Raises Damaged for what is no
    regular file, or no text."""
    if not os.path.lexists(path):
        return []
    try:
        text = read_regular(path).decode()
    except UnicodeDecodeError as error:
        raise Damaged(f"{path} is not text ({error}): it was changed. Restore it from a copy") from None
    return text[: text.rfind("\n") + 1].splitlines()


# --------------------------------------------------------------------------------------------------------- lock


@contextmanager
def lock(path: str | Path, wait: bool = False, heirs: bool = False) -> Iterator[int]:
    """Holds the folder `path` for this process. Raises BadInput, naming the owner, while another one holds it.

    The lock is the kernel's (flock on `.lock`), so it ends with its owner, however that dies. The file stays and means
    nothing. wait: until the owner is done, instead of the error. heirs: child processes that are given the descriptor, which
    the block gets, hold the folder too, until the last of them is gone.
    """
    with Folder.inside(path) as folder, folder.file(".lock", os.O_RDWR | os.O_CREAT) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            owner = file.read(200).decode(errors="replace").strip()
            raise BadInput(
                f"{path} is in use by {owner if owner.isprintable() and owner else 'another process'}: two processes would "
                "overwrite each other's files. Wait until it ends or stop it, or use another run folder"
            ) from None
        with suppress(OSError):  # on a full disk the owner has no name
            file.truncate(0)
            file.write(
                f"process {os.getpid()} on {socket.gethostname()}{' or one that it started' if heirs else ''}\n".encode()
            )
        try:
            yield file.fileno()
        finally:
            if not heirs:
                fcntl.flock(file, fcntl.LOCK_UN)  # also where a forked child still has the file open


# ------------------------------------------------------------------------------------- what comes from outside


class Folder:
    """A folder that is held open. What is opened, written and removed through it lies inside, whatever is put at its path meanwhile.

    Nothing inside is followed: a link, a file with a second name (which is another folder's, too), a pipe, a socket or a device in
    the place of a file raises Damaged, naming it, and so does anything but a real folder in the place of one. A context manager.
    """

    _descriptor = -1  # closed

    def __init__(self, path: str | Path, above: Folder | None = None):
        """`path` itself may be a link: whoever calls vouches for it. above: the folder that it lies directly in; then it may not."""
        self.path = Path(path)
        if above is None:
            self._descriptor = os.open(self.path, _FOLDER)
            return
        try:
            self._descriptor = os.open(self.path.name, _FOLDER | os.O_NOFOLLOW, dir_fd=above._descriptor)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            raise Damaged(f"{self.path} is not a folder but {_name(above.status(self.path.name))}: {ADVICE}") from None

    @classmethod
    def inside(cls, path: str | Path, make: bool = False) -> Folder:
        """The folder at `path`, for whose parent alone the caller vouches. make: if it is not there; then its name is on disk."""
        path = Path(path) if Path(path).name else Path(path).resolve()
        with cls(path.parent) as above:
            if make and above.status(path.name) is None:
                above.make(path.name).close()
                above.sync()
            return above.folder(path.name)

    def folder(self, name: str) -> Folder:
        """A folder in it."""
        return Folder(self.path / name, self)

    def make(self, name: str) -> Folder:
        """A folder in it, made if it is not there (`sync` brings its name to disk)."""
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=self._descriptor)
        return self.folder(name)

    def names(self) -> list[str]:
        """Of all that is in it, sorted."""
        return sorted(os.listdir(self._descriptor))

    def status(self, name: str) -> os.stat_result | None:
        """What lies under a name, not followed; None: nothing."""
        try:
            return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def holds(self, name: str) -> bool:
        """Whether a regular file lies under this name. Raises Damaged for anything else that does."""
        found = self.status(name)
        if found is not None and not _regular(found):
            raise Damaged(f"{self.path / name} is not a regular file but {_name(found)}: {ADVICE}")
        return found is not None

    def file(self, name: str, flags: int = os.O_RDONLY) -> io.FileIO:
        """A regular file, opened without a buffer. flags: of `os.open`."""
        self.holds(name)  # before it is opened: opening a device can do things
        try:
            descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666, dir_fd=self._descriptor)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
                raise OSError(error.errno, f"{error.strerror}: {self.path / name}") from None
            raise Damaged(
                f"{self.path / name} is not a regular file but {_name(self.status(name))}: {ADVICE}"
            ) from None
        found = os.fstat(descriptor)
        if not _regular(found):
            os.close(descriptor)
            raise Damaged(f"{self.path / name} is not a regular file but {_name(found)}: {ADVICE}")
        return io.FileIO(descriptor, "r" if flags & os.O_ACCMODE == os.O_RDONLY else "r+")

    def read(self, name: str, limit: int | None = None) -> bytes:
        """The contents of a file of at most `limit` bytes. Raises Damaged where it is larger, or not there."""
        if not self.holds(name):
            raise Damaged(f"{self.path / name} is missing")
        with self.file(name) as file:
            size = os.fstat(file.fileno()).st_size
            if limit is not None and size > limit:
                raise Damaged(f"{self.path / name} has {size:,} bytes, more than the {limit:,} it may have")
            with io.BufferedReader(file) as reader:
                return reader.read(size if limit is not None else -1)

    def read_json(self, name: str) -> Any:
        """The contents of a JSON file. Raises Damaged as the function of this name does."""
        return parse_json(self.read(name, JSON_BYTES), self.path / name)

    def write(self, name: str, data: bytes) -> None:
        """Replaces a file at once: its readers, even after a power cut, see the old contents or the new, never a part."""
        draft = temporary(Path(name)).name
        try:
            self.write_new(draft, data)
            self.rename(draft, name)
        except BaseException:
            self.remove(draft)
            raise
        self.sync()

    def write_new(self, name: str, data: bytes) -> None:
        """Writes a file that is not there, and waits until its contents (not yet its name) are on disk."""
        with self.file(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as file:
            written = 0
            while written < len(data):
                written += file.write(data[written:])
            os.fsync(file.fileno())

    def write_json(self, name: str, data: Any) -> None:
        """Replaces a JSON file at once (see `json_bytes`)."""
        self.write(name, json_bytes(data, name))

    def link(self, name: str, target: str) -> None:
        """Makes `name` a symbolic link to `target`, replacing an older one at once."""
        draft = temporary(Path(name)).name
        os.symlink(target, draft, dir_fd=self._descriptor)
        self.rename(draft, name)
        self.sync()

    def linked(self, name: str) -> str | None:
        """Where a symbolic link leads; None if it is none."""
        found = self.status(name)
        return os.readlink(name, dir_fd=self._descriptor) if found and stat.S_ISLNK(found.st_mode) else None

    def rename(self, old: str, new: str) -> None:
        """Gives what is in it another name there."""
        os.rename(old, new, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def exchange(self, one: str, other: str) -> bool:
        """Exchanges two names in one operation; False where the system cannot (Linux: renameat2 with RENAME_EXCHANGE)."""
        rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
        here = self._descriptor
        return rename is not None and rename(here, os.fsencode(one), here, os.fsencode(other), 2) == 0

    def remove(self, name: str) -> None:
        """Removes what lies under a name, a folder with all that is in it; of a link, the link."""
        found = self.status(name)
        if found is not None and stat.S_ISDIR(found.st_mode):
            shutil.rmtree(name, dir_fd=self._descriptor)
        elif found is not None:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._descriptor)

    def clean(self) -> None:
        """Removes what killed writers left. Only for who holds the lock: a live writer's draft looks the same."""
        for name in self.names():
            if name.startswith(TEMPORARY):
                self.remove(name)

    def sync(self) -> None:
        """Waits until the names in it (new files, renames, links) are on disk."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


_FOLDER = os.O_RDONLY | os.O_DIRECTORY
ADVICE = "it could lead out of there, so nothing is done. Remove it, or take another copy"


def _regular(found: os.stat_result) -> bool:
    return stat.S_ISREG(found.st_mode) and found.st_nlink <= 1  # 0: it was removed while it was opened


def _name(found: os.stat_result | None) -> str:
    if found is None:
        return "gone"
    if stat.S_ISREG(found.st_mode):
        return "a file" if found.st_nlink <= 1 else f"one with {found.st_nlink} names (hard links)"
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(found.st_mode), "a device")


def check_tree(path: str | Path, links: Callable[[Folder, str], bool]) -> None:
    """Raises Damaged, naming the first, for anything in a folder and below but regular files of one name and real folders.
    links: whether a link, of which the folder and the name are given, may be there all the same."""
    with Folder(path) as folder:
        _check_tree(folder, links)


def _check_tree(folder: Folder, links: Callable[[Folder, str], bool]) -> None:
    for name in folder.names():
        found = folder.status(name)
        if found is None:  # a running process has removed it
            continue
        if stat.S_ISDIR(found.st_mode):
            with suppress(FileNotFoundError), folder.folder(name) as inner:
                _check_tree(inner, links)
        elif not (stat.S_ISLNK(found.st_mode) and links(folder, name)):
            folder.holds(name)


def read_regular(path: Path, limit: int | None = None) -> bytes:
    """`Folder.read` of the file's own folder."""
    try:
        with Folder(path.parent) as folder:
            return folder.read(path.name, limit)
    except FileNotFoundError:
        raise Damaged(f"{path} is missing") from None


def confined(root: str | Path, name: str, create: bool = True, where: str = "here") -> Folder:
    """The folder inside `root` that a name from outside means; made, with those above it, unless `create` is False.

    Of an absolute path only the last part counts: original clients send "<system temp>/random-agent-results". Refused with
    BadInput: "..", backslashes, drive letters, "%", control characters, parts that `check_name` refuses, names that are
    too long, a file in the way, and symlinks below `root`, wherever they lead. The folders are made and opened one inside the
    other without following links, and the last is held open, so that nothing which is swapped in meanwhile leads outside.
    """
    parts = _parts(name, where)
    root = Path(root).resolve()
    if create:
        make(root)
    try:
        found = Folder(root)
        for part in parts:
            with found as above:
                found = above.make(part) if create else above.folder(part)
        return found
    except FileNotFoundError:
        raise BadInput(f"there is no folder {shown(name)} {where}") from None
    except Damaged:
        raise BadInput(f"{shown(name)} cannot be a folder {where}: a link or a file is in the way") from None
    except OSError as error:
        raise BadInput(f"{shown(name)} cannot be a folder {where}: {error.strerror}") from None


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
