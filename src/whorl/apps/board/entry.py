"""An entry of the leaderboard: what a run claims, the policy that proves it, its learning curve and its pictures.

    <board>/entries/<id>/  entry.json  curve.json  policy.safetensors  [best.gif  typical.gif]

The id is a hash of entry.json, which holds the hashes of the other files: whoever changes a byte of a claim makes another entry,
or a damaged one. Entries come from strangers, so each file is measured before it is read, and each field is held to its form.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whorl.apps.board.forms import (
    CURVE,
    FIELDS,
    FORMAT,
    GIFS,
    MACHINE,
    OF_ENV,
    PROTOCOL,
    VERSIONS,
    check,
    is_id,
    printable,
    settings_forms,
    short,
)
from whorl.errors import BadInput, Damaged, command
from whorl.folders import TEMPORARY, Folder, make, temporary
from whorl.json_text import json_bytes, strict
from whorl.transforms.words import described

MIB = 1 << 20
LIMITS = {
    "entry.json": MIB,
    "curve.json": MIB,
    "policy.safetensors": 256 * MIB,
    "best.gif": 16 * MIB,
    "typical.gif": 16 * MIB,
}
NEEDED = ("entry.json", "curve.json", "policy.safetensors")


@dataclass(frozen=True)
class Entry:
    """One run on a board. Steps are environment steps; returns are raw, of whole episodes."""

    path: Path  # the folder
    curve: dict[str, list | None]  # evaluations during training: step, seconds (None: not known), mean, std
    # what follows is entry.json
    format: int
    id: str  # 16 hex digits
    env: str
    agent: str
    author: str
    note: str
    created: str  # when the run was started, UTC
    settings: dict[str, Any]  # of the run: seed, num_envs, total_steps, ...
    config: dict[str, Any]  # of the agent
    setting: str  # 12 hex digits, equal for runs that differ only in their seed: one row of the board
    versions: dict[str, str | None]  # of packages, in training
    commit: str | None
    machine: dict[str, Any]  # cpu, cpu_count, system, in training
    command: str | None  # None: it cannot be shown on one line
    evaluated: dict[str, Any]  # versions and machine of the evaluation that is claimed
    steps: int
    seconds: float | None  # of training
    steps_per_second: float | None
    protocol: dict[str, Any]
    returns: list[float]  # one of each episode
    lengths: list[int]
    mean: float
    std: float  # over episodes
    reward_threshold: float | None  # at which the environment counts as solved
    steps_to_threshold: int | None  # of the first evaluation during training that reached it
    seconds_to_threshold: float | None
    which: str  # checkpoint: best, or last where there was no evaluation
    policy_sha256: str
    curve_sha256: str
    gif_returns: dict[str, float] | None  # best and typical: of the episodes in the GIFs; None: there is no picture
    gif_sha256: dict[str, str] | None

    @property
    def env_kwargs(self) -> dict[str, Any]:
        """The options that its environment is made with."""
        return self.settings.get("env_kwargs", {})

    @property
    def transforms(self) -> list[Any]:
        """What lies between its environment and its agent: names, and tables of a name and its arguments."""
        return self.settings.get("transforms", [])

    @property
    def world(self) -> str:
        """The environment with its options and transforms, `FrozenLake-v1 is_slippery=false`: what policies are compared in."""
        options = [f"{key}={json.dumps(value)}" for key, value in sorted(self.env_kwargs.items())]
        return " ".join([self.env, *options, *(["through", described(self.transforms)] if self.transforms else [])])


# ------------------------------------------------------------------------------------------------------ reading


def read(path: str | Path) -> Entry:
    """The entry in a folder. Raises BadInput when there is no such folder, Damaged, naming file and field, when it is not as written."""
    path = Path(path)
    if not path.is_dir():
        raise BadInput(f"{path} is not an entry: there is no such folder")
    return parse(contents(path), path)


def entries(board: str | Path) -> tuple[list[Entry], list[str]]:
    """The intact entries of a board by id, and one sentence for each that is damaged or no entry.

    Raises BadInput when there is no such board.
    """
    good, problems = [], []
    for path in folders(board):
        try:
            good.append(read(path))
        except (BadInput, Damaged) as error:
            problems.append(printable(str(error)))
    return good, problems


def folders(board: str | Path) -> list[Path]:
    """What lies in a board and should be an entry, by name. Drafts of writers are passed over. BadInput when it is no board."""
    inside = Path(board) / "entries"
    if not inside.is_dir():
        raise BadInput(
            f"{board} is not a board: there is no folder {inside}. `{command('submit', 'RUN', '--board', board)}` makes one"
        )
    with Folder.inside(inside) as folder:
        return [inside / name for name in folder.names() if not name.startswith((TEMPORARY, ".git"))]


def find(entry: str | Path, board: str | Path | None = None) -> Path:
    """The folder of an entry that is named by its id (then in `board`), or the folder itself. BadInput when there is none."""
    path = Path(entry)
    if board is not None and is_id(str(entry)):
        path = Path(board) / "entries" / str(entry)
        if path.is_dir():
            Folder.inside(path.parent).close()  # nor is that a link
    if not path.is_dir():
        raise BadInput(f"there is no entry {entry}: name its folder, or its id (16 hex digits) and the board it is on")
    return Path(os.path.abspath(path))  # "." has no name, which must be the id


def contents(path: Path) -> dict[str, bytes]:
    """The files of an entry's folder, none of them parsed. Raises Damaged for a foreign, missing or too large one, and for links."""
    try:
        with Folder.inside(path) as folder:
            names = folder.names()
            for name in [*NEEDED, *names]:
                if name not in names:
                    raise Damaged(f"{path} is not an entry: {name} is missing")
                if name not in LIMITS:
                    raise Damaged(
                        f"{path} holds {short(name)}, which is no part of an entry ({', '.join(LIMITS)}): remove it"
                    )
            return {name: folder.read(name, LIMITS[name]) for name in names}
    except Damaged:
        raise
    except OSError as error:
        raise Damaged(f"{path} cannot be read: {error.strerror}") from None


def parse(files: dict[str, bytes], path: Path) -> Entry:
    """The entry in these files, every field checked. path: its folder, whose name must be the id. Raises Damaged."""
    where = path / "entry.json"
    data = _json(files["entry.json"], where)
    check(data, FIELDS, where)
    check(data["settings"], settings_forms(data["settings"]), where, "settings.", more=True)
    check(data["versions"], VERSIONS, where, "versions.", more=True)
    check(data["machine"], MACHINE, where, "machine.")
    check(data["evaluated"]["versions"], VERSIONS, where, "evaluated.versions.", more=True)
    check(data["evaluated"]["machine"], MACHINE, where, "evaluated.machine.")
    curve = _json(files["curve.json"], path / "curve.json")
    check(curve, CURVE, path / "curve.json")
    if len({len(curve[name]) for name in CURVE if curve[name] is not None}) != 1:
        raise Damaged(f"{path / 'curve.json'}: its lists should be of equal length")
    facts = _derived(data, curve, files)
    for name in [name for name in facts if facts[name] != data[name]]:
        raise Damaged(f"{where}: {name} is {short(data[name])}, but the rest of the entry gives {short(facts[name])}")
    for name in (f"{gif}.gif" for gif in GIFS):
        if name in files and not files[name].startswith((b"GIF87a", b"GIF89a")):
            raise Damaged(f"{path / name} is not a GIF")
    if data["id"] != (digest := _identity(data)) or path.name != digest:
        raise Damaged(
            f"{where} hashes to {digest}, its id is {data['id']} and its folder {short(path.name)}: it was changed"
        )
    return Entry(path, curve, **data)


def _json(data: bytes, where: Path) -> dict[str, Any]:
    try:
        found = strict(data)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{where} is not valid JSON ({error}): it was cut off or changed") from None
    if not isinstance(found, dict):
        raise Damaged(f"{where} should hold one JSON object, got {short(found)}")
    return found


# ------------------------------------------------------------------------------------------------------ writing


def write(
    board: str | Path, claim: dict[str, Any], curve: dict[str, list | None], policy: bytes, gifs: dict[str, bytes]
) -> Entry:
    """Adds an entry to a board (made if it is not there), and returns it; on return it is on disk, before that it is not there.

    claim: the fields of `Entry` that are not computed from the others. gifs: none, or those of GIFS. An entry that is there already is
    kept. Raises BadInput for a field that no entry may have; OSError, leaving the board as it was, when writing fails.
    """
    files = {"curve.json": canonical(curve), "policy.safetensors": policy}
    files |= {f"{name}.gif": gif for name, gif in gifs.items()}
    claim = {"format": FORMAT, "protocol": PROTOCOL, **claim}
    data = claim | _derived(claim, curve, files)
    data["id"] = _identity(data)
    files["entry.json"] = json_bytes(data, "entry.json")
    try:
        parse(files, Path(board) / "entries" / data["id"])
    except Damaged as error:
        raise BadInput(f"this cannot be an entry: {error}") from None
    return publish(board, files)


def publish(board: str | Path, files: dict[str, bytes]) -> Entry:
    """Adds these files as an entry to a board, all at once. One that is there already is kept, and must be intact.

    Raises Damaged when they are no entry, or the one that is there is damaged.
    """
    identity = _json(files["entry.json"], Path("entry.json")).get("id")
    if not is_id(identity):
        raise Damaged(f"entry.json: id should be 16 hex digits, got {short(identity)}")
    path = Path(board) / "entries" / str(identity)
    entry = parse(files, path)
    if os.path.lexists(path):
        return read(path)
    draft = temporary(path).name
    make(Path(board))
    try:
        with Folder.inside(Path(board).resolve() / "entries", make=True) as entries:
            try:
                with entries.make(draft) as new:
                    for name, data in files.items():
                        new.write_new(name, data)
                    new.sync()
                entries.rename(draft, path.name)
                entries.sync()
            finally:
                entries.remove(draft)
    except Damaged:
        raise
    except OSError as error:
        if path.exists():  # another process was faster
            return read(path)
        raise OSError(
            error.errno, f"{error.strerror}: the entry could not be written to {board}, which is as it was"
        ) from error
    return entry


# ----------------------------------------------------------------------------------- what follows from the rest


def canonical(data: Any) -> bytes:
    """JSON in one form only: sorted keys, no spaces, ASCII."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def moments(returns: list[float]) -> tuple[float, float]:
    """(mean, population standard deviation), correctly rounded sums: the same on every machine."""
    mean = math.fsum(returns) / len(returns)
    return mean, math.sqrt(math.fsum((x - mean) * (x - mean) for x in returns) / len(returns))


def replays(returns: list[float]) -> dict[str, float]:
    """What the episodes in the GIFs return: the best of all, and a typical one, of (lower) median return."""
    return dict(zip(GIFS, (max(returns), sorted(returns)[(len(returns) - 1) // 2]), strict=True))


def setting(claim: dict[str, Any]) -> str:
    """12 hex digits, equal for runs that differ only in their seed, device, machine and how often they were looked at."""
    of_run = ("num_envs", "total_steps", "total_episodes", "max_episode_steps", "compile")
    parts = {name: claim[name] for name in ("env", "agent", "config")}
    parts |= {name: claim["settings"][name] for name in of_run}
    parts |= {name: claim["settings"][name] for name in OF_ENV if claim["settings"].get(name)}
    return _hash(canonical(parts))[:12]


def _derived(claim: dict[str, Any], curve: dict[str, Any], files: dict[str, bytes]) -> dict[str, Any]:
    """The fields of an entry that follow from the others and from its files."""
    mean, std = moments(claim["returns"])
    threshold = claim["reward_threshold"]
    reached = next((i for i, score in enumerate(curve["mean"]) if threshold is not None and score >= threshold), None)
    hashes = {name: _hash(files[f"{name}.gif"]) for name in GIFS if f"{name}.gif" in files}
    return {
        "setting": setting(claim),
        "mean": mean,
        "std": std,
        "steps_to_threshold": None if reached is None else curve["step"][reached],
        "seconds_to_threshold": None if reached is None or curve["seconds"] is None else curve["seconds"][reached],
        "policy_sha256": _hash(files["policy.safetensors"]),
        "curve_sha256": _hash(files["curve.json"]),
        "gif_returns": {name: return_ for name, return_ in replays(claim["returns"]).items() if name in hashes} or None,
        "gif_sha256": hashes or None,
    }


def _identity(data: dict[str, Any]) -> str:
    return _hash(canonical({name: value for name, value in data.items() if name != "id"}))[:16]


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
