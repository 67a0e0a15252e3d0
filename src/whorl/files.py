"""Files that are whole or not there: durable writing, files that grow by lines, and locks."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from whorl.errors import BadInput, Damaged
from whorl.folders import Folder
from whorl.json_text import JSON_BYTES, json_bytes, parse_json

MOST_WAITING = 64 << 20  # bytes of a file on a full disk that wait in memory
LINES_BYTES = 1 << 30  # of metrics or episodes: several million rows. What is larger is not read


def write_synced(path: Path, data: bytes) -> None:
    """Writes a file and waits until its contents (not yet its name) are on disk."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write(path: str | Path, data: bytes) -> None:
    """Replaces a file at once: its readers, even after a power cut, see the old contents or the new, never a part."""
    path = Path(path)
    with Folder(path.parent) as folder:
        folder.write(path.name, data)


def write_json(path: str | Path, data: Any) -> None:
    """Replaces a JSON file at once (see `write`, `json_bytes`)."""
    write(path, json_bytes(data, Path(path).name))


def read_json(path: str | Path) -> Any:
    """The contents of a JSON file. Raises Damaged when it is missing, no regular file, larger than any that whorl writes, or not
    JSON, and says where it breaks off."""
    return parse_json(read_regular(Path(path), JSON_BYTES), path)


def read_regular(path: Path, limit: int | None = None) -> bytes:
    """`Folder.read` of the file's own folder."""
    try:
        with Folder(path.parent) as folder:
            return folder.read(path.name, limit)
    except FileNotFoundError:
        raise Damaged(f"{path} is missing") from None


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
    regular file, no text, or has more than LINES_BYTES."""
    if not os.path.lexists(path):
        return []
    try:
        text = read_regular(path, LINES_BYTES).decode()
    except UnicodeDecodeError as error:
        raise Damaged(f"{path} is not text ({error}): it was changed. Restore it from a copy") from None
    return text[: text.rfind("\n") + 1].splitlines()


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
