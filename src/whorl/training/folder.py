"""The run folder `runs/<env>/<agent>/<time>_s<seed>/`: its name, its links, and where the run comes from."""

from __future__ import annotations

import os
import platform
import re
import shlex
import socket
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from whorl.errors import BadInput
from whorl.folders import TEMPORARY, Folder, check_name, check_tree, make, sync_folder
from whorl.training.settings import Settings

STEP = re.compile(r"step_(0|[1-9]\d{0,18})")  # the folder of a checkpoint, in `checkpoints`
MARKS = ("best", "last")  # links to such folders, beside them


def create(runs: str | Path, env_id: str, agent: str, seed: int, name: str | None = None) -> Path:
    """Makes and returns a new folder `runs/<env>/<agent>/<name, or time_s<seed>>`, absolute: an environment may change the working
    directory.

    Characters of `env_id` that no path should hold become "_". A name that is taken gets "-2", "-3", ...: two runs
    never share a folder, even if they start in the same second. Raises BadInput for a name that cannot be a folder's.
    """
    label = check_name(name, "the run name") if name is not None else f"{datetime.now():%Y-%m-%d_%H-%M-%S}_s{seed}"
    env = re.sub(r"[^A-Za-z0-9._-]", "_", env_id).lstrip(".") or "_"
    parent = (
        Path(runs).absolute() / env / check_name(re.split("[:.]", agent)[-1] if ":" in agent else agent, "the agent")
    )  # of module:Class the class
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


def place(path: object, what: str) -> Path:
    """Where something lies. Raises BadInput for what is no path."""
    if not isinstance(path, str | os.PathLike):
        raise BadInput(f"{what} is named by its path, a text or a Path; got {type(path).__name__}")
    return Path(path)


def open_run(path: str | os.PathLike[str]) -> Path:
    """The run folder that `path` (a folder, a link such as `runs/last`, or a `Run`) names, resolved. Raises BadInput if it is none, Damaged
    if anything in it leads, or could lead, out of it: a link, a file with a second name, a pipe, a device."""
    resolved = place(path, "a run").resolve()
    if not resolved.is_dir():
        raise BadInput(
            f"{path} is not a run folder: there is no folder {resolved}. `whorl list runs` shows those that exist"
        )
    if not os.path.lexists(resolved / "config.json"):
        raise BadInput(
            f"{path} is not a run folder: config.json is missing in {resolved}. "
            "Name a folder runs/<env>/<agent>/<run>, or runs/last"
        )
    check_tree(resolved, _mark)
    return resolved


def check_sweep(path: Path) -> None:
    """Raises Damaged if anything in the folder of a sweep leads, or could lead, out of it; its `last` is not followed."""

    def own(folder: Folder, name: str) -> bool:
        return _mark(folder, name) or (folder.path == path and name.removeprefix(TEMPORARY).split("-")[0] == "last")

    check_tree(path, own)


def _mark(folder: Folder, name: str) -> bool:
    """Whether a link is one that a run makes: `checkpoints/last` and `best`, or what a killed writer left of them, lead to a checkpoint
    beside them, or to one that is gone."""
    here = folder.path.name == "checkpoints" and name.removeprefix(TEMPORARY).split("-")[0] in MARKS
    return here and STEP.fullmatch(folder.linked(name) or "") is not None


def begin_anew(path: Path, settings: Settings) -> None:
    """Takes away the rows of a run without a checkpoint, which learned nothing that lasts. Raises BadInput where it cannot begin again as
    it began."""
    if not settings.checkpoint_every:
        raise BadInput(f"{path} has no checkpoint to resume from: it was started with checkpoint_every=0")
    if settings.init_from:
        raise BadInput(
            f"{path} was killed before its first checkpoint, and a run folder leads to no other: train it anew with "
            f"init_from={settings.init_from!r}"
        )
    with Folder(path) as inside:
        inside.remove("replay")


def runs_in(runs: str | Path) -> list[Path]:
    """All run folders below `runs`, by environment, agent and time; those of its sweeps last. A link is none."""
    own, of_sweeps = (Path(runs).glob(f"{inside}*/*/*/config.json") for inside in ("", "sweeps/*/"))
    return [config.parent for config in [*sorted(own), *sorted(of_sweeps)] if not config.parent.is_symlink()]


def link_last(runs: str | Path, path: str | Path) -> Path:
    """Makes `runs/last` point to the run `path`; returns the link. Raises BadInput where something else than a link is there."""
    with Folder(runs) as folder:
        if folder.status("last") is not None and folder.linked("last") is None:
            raise BadInput(
                f"{folder.path / 'last'} is yours, so it does not become a link to {path}: name the run itself"
            )
        folder.link("last", os.path.relpath(Path(path).resolve(), Path(runs).resolve()))
    return Path(runs) / "last"


@dataclass(frozen=True)
class Meta:
    """`meta.json`: where a run comes from."""

    date: str  # ISO 8601
    command: str
    commit: str | None
    versions: dict[str, object]  # of packages; None: not installed
    host: str
    system: str
    cpu: str
    cpu_count: int | None


def meta() -> dict[str, object]:
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
