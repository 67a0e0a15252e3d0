"""The run folder `runs/<env>/<agent>/<time>_s<seed>/`, and how its files are written: all at once, or appended."""

from __future__ import annotations

import fcntl
import json
import math
import os
import platform
import re
import secrets
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from whorl.errors import BadInput, Damaged

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
TEMPORARY = ".tmp-"  # what a killed writer leaves behind begins with this


def check_name(name: str, what: str) -> str:
    """`name` itself, if it can name a file on any system and cannot leave its folder; raises BadInput otherwise."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise BadInput(
            f"{what} {name!r} cannot name a folder: use 1 to 100 letters, digits, '.', '_' or '-', "
            "the first of them a letter or a digit"
        )
    return name


def create(runs: str | Path, env_id: str, agent: str, seed: int, name: str | None = None) -> Path:
    """Makes and returns a new folder `runs/<env>/<agent>/<name, or time_s<seed>>`.

    Characters of `env_id` that no path should hold become "_". A name that is taken gets "-2", "-3", ...: two runs
    never share a folder, even if they start in the same second. Raises BadInput for a name that cannot be a folder's.
    """
    label = check_name(name, "the run name") if name is not None else f"{datetime.now():%Y-%m-%d_%H-%M-%S}_s{seed}"
    env = re.sub(r"[^A-Za-z0-9._-]", "_", env_id).lstrip(".") or "_"
    parent = Path(runs) / env / check_name(agent, "the agent")
    make(parent)
    number = 1
    while True:
        path = parent / (label if number == 1 else f"{label}-{number}")
        try:
            path.mkdir()
            sync_folder(parent)
            return path
        except FileExistsError:
            number += 1


def open_run(path: str | Path) -> Path:
    """The run folder that `path` (a folder, or a link such as `runs/last`) names, resolved; BadInput if it is none."""
    resolved = Path(path).resolve()
    if not resolved.is_dir():
        raise BadInput(
            f"{path} is not a run folder: there is no folder {resolved}. `whorl list runs` shows those that exist"
        )
    if not (resolved / "config.json").is_file():
        raise BadInput(
            f"{path} is not a run folder: config.json is missing in {resolved}. "
            "Name a folder runs/<env>/<agent>/<run>, or runs/last"
        )
    return resolved


def runs_in(runs: str | Path) -> list[Path]:
    """All run folders below `runs`, by environment, agent and time."""
    return sorted(config.parent for config in Path(runs).glob("*/*/*/config.json"))


def link_last(runs: str | Path, path: str | Path) -> Path:
    """Makes `runs/last` point to the run `path`; returns the link."""
    return link(Path(runs) / "last", Path(path))


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


# ------------------------------------------------------------------------------------------------ lock and origin


@contextmanager
def lock(path: str | Path) -> Iterator[None]:
    """Holds the run folder `path` for this process. Raises BadInput, naming the owner, while another one holds it.

    The lock is the kernel's (flock on `.lock`), so it ends with its owner, however that dies. The file stays and means
    nothing.
    """
    with open(Path(path) / ".lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            raise BadInput(
                f"{path} is in use by {owner}: two processes would overwrite each other's files. "
                "Wait until it ends or stop it, or use another run folder"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # also where a forked child still has the file open


def meta() -> dict[str, Any]:
    """Where a run comes from: versions, commit of the working directory (None outside git), command, machine, date."""
    packages = ("whorl", "torch", "tensordict", "numpy", "gymnasium", "numba", "mujoco", "box2d", "ale-py")
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "commit": _commit(),
        "versions": {"python": platform.python_version()} | {package: _version(package) for package in packages},
        "host": socket.gethostname(),
        "system": platform.platform(),
        "cpu": _cpu(),
        "cpu_count": os.cpu_count(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        if package != "whorl":
            return None
        from whorl import __version__  # run from a source tree that is not installed

        return __version__


def _commit() -> str | None:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=10, env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None


def _cpu() -> str:
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
