"""Folders that are held open, so that nothing inside leads out of them."""

from __future__ import annotations

import ctypes
import errno
import io
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from whorl.errors import BadInput, Damaged
from whorl.json_text import JSON_BYTES, json_bytes, parse_json, shown

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
TEMPORARY = ".tmp-"  # what a killed writer leaves behind begins with this
MAX_PARTS, MAX_NAME = 8, 1000  # of the name of a confined folder: parts, characters
ADVICE = "it could lead out of there, so nothing is done. Remove it, or take another copy"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY


def check_name(name: str, what: str) -> str:
    """`name` itself, if it can name a file on any system and cannot leave its folder; raises BadInput otherwise."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise BadInput(
            f"{what} {name!r} cannot name a folder: use 1 to 100 letters, digits, '.', '_' or '-', "
            "the first of them a letter or a digit"
        )
    return name


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


def temporary(path: Path) -> Path:
    """A name beside `path` that nobody else uses; `Folder.clean` knows it as litter if its writer is killed."""
    return path.with_name(f"{TEMPORARY}{path.name}-{os.getpid()}-{secrets.token_hex(4)}")


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
    def inside(cls, path: str | Path, make: bool = False, parts: int = 1) -> Folder:
        """The folder at `path`, for whose last `parts` names the caller does not vouch. make: what is not there; then its name is on
        disk."""
        path = Path(path) if Path(path).name else Path(path).resolve()
        found = cls(path.parents[parts - 1])
        for name in path.parts[-parts:]:
            with found as above:
                if make and above.status(name) is None:
                    above.make(name).close()
                    above.sync()
                found = above.folder(name)
        return found

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
