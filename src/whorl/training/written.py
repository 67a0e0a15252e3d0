"""What a run folder says of itself, each field held to its kind: it may come from a stranger, or from a disk with a flipped bit.

config.json      the settings and the agent's config, with a SHA-256 of the rest; `earlier`: those of the config.json that it replaced
meta.json        where the run comes from
eval.json        how it ended
metrics.jsonl    numbers by step
episodes.csv     finished episodes
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from whorl import files, options
from whorl.batch import Numbers
from whorl.errors import Damaged
from whorl.json_text import parse_json
from whorl.options import CHANGED
from whorl.training.folder import Meta
from whorl.training.settings import Settings

if TYPE_CHECKING:
    from whorl.training.evaluate import Evaluation

# settings that there were not always: what they are by default is what was done
LATER = ("collector", "decorrelate", "samplers", "synchronous", "workers", "on_env_error", "evaluate")
HEADER = "step,env,return,length"  # of episodes.csv; more columns may follow


@dataclass(frozen=True)
class _Rest:
    """What stands in config.json beside the settings."""

    progress: str
    config: dict[str, object]
    earlier: tuple[str, ...]
    sha256: str


@dataclass(frozen=True)
class Written:
    """`config.json`."""

    path: Path
    settings: Settings
    config: Numbers  # of the agent, as plain data
    progress: str  # the unit of the run's steps
    sha256: str
    earlier: tuple[
        str, ...
    ]  # of the config.json before a resume changed it, under which older checkpoints were written
    found: str  # SHA-256 of what the file holds, whatever settings there were when it was written

    def check(self) -> Written:
        """Itself. Raises Damaged unless it is as it was written."""
        if self.found != self.sha256:
            raise Damaged(
                f"{self.path} is not as it was written: its SHA-256 differs. Restore it from a copy; what may change is changed by "
                "`whorl resume`, or in a new run"
            )
        return self

    def check_covers(self, checkpoint: Path, sha256: str) -> None:
        """Raises Damaged unless a checkpoint, whose manifest names this hash, was written under this config.json or an earlier one."""
        if sha256 not in ("", self.sha256, *self.earlier):
            raise Damaged(
                f"{self.path} is not the one that {checkpoint.name} was written under: it is of another run, or was changed. "
                "Restore it from a copy"
            )


def read_config(run: Path) -> Written:
    """`config.json`, every field of the settings checked. Raises Damaged, naming file and field. `check` holds it to its SHA-256."""
    path = run / "config.json"
    data = files.read_json(path)
    if not isinstance(data, dict):
        raise Damaged(f"{path} should hold a table, got {str(data)[:60]!r}: {CHANGED}")
    found = _hash({key: value for key, value in data.items() if key != "sha256"})
    names = {f.name for f in dataclasses.fields(_Rest)}
    rest = options.from_json(_Rest, {key: data.pop(key) for key in names & data.keys()}, path)
    return Written(path, options.from_json(Settings, {**_older(data), **data}, path), **vars(rest), found=found)


def _older(data: Numbers) -> Numbers:
    """What a file of before there were such settings did not say."""
    update = "compiled" if data.get("compile") is True else "eager"
    later = {name: value for name, value in options.to_json(Settings()).items() if name in LATER}
    return later | {"spaces": "", "transforms": [], "update": update, "precision": "float32"}


def write_config(run: Path, data: Numbers) -> Written:
    """Writes `config.json`: what `trained.settings_json` gives. One that is there already and says the same stays."""
    path, earlier = run / "config.json", tuple[str, ...]()
    if path.exists():
        old = read_config(run)
        if _hash(data | {"earlier": list(old.earlier)}) == old.sha256:
            return old
        earlier = (*old.earlier, old.sha256)
    data = data | {"earlier": list(earlier)}
    files.write_json(path, data | {"sha256": _hash(data)})
    return read_config(run)


def _hash(data: Numbers) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Scores:
    """What `Evaluation.summary` gives."""

    mean: float
    std: float
    min: float
    max: float
    episodes: int

    @classmethod
    def of(cls, evaluation: Evaluation) -> Scores:
        summary = evaluation.summary()
        return cls(summary["mean"], summary["std"], summary["min"], summary["max"], len(evaluation.returns))


@dataclass(frozen=True)
class Result:
    """`eval.json`: progress and episodes of the run, and what its last and best policies were found worth; None: not evaluated."""

    steps: int = 0
    episodes: int = 0
    last: Scores | None = None
    best: Scores | None = None


def write_result(run: Path, result: Result) -> None:
    """Writes `eval.json`, the last file of a run."""
    files.write_json(run / "eval.json", dataclasses.asdict(result))


def read_result(run: Path) -> Result | None:
    """`eval.json`; None: the run has not come to its end. Raises Damaged, naming file and field."""
    path = run / "eval.json"
    if not path.exists() and not path.is_symlink():
        return None
    data = files.read_json(path)
    return options.from_json(Result, {"last": None, "best": None, **data} if isinstance(data, dict) else data, path)


def read_meta(run: Path) -> Meta:
    """`meta.json`. Raises Damaged, naming file and field."""
    return options.from_json(Meta, files.read_json(run / "meta.json"), run / "meta.json")


def read_metrics(run: Path, having: str = "") -> list[dict[str, float | None]]:
    """The rows of `metrics.jsonl`, also while the run goes on; having: only those with a number whose name begins so.

    Raises Damaged, naming file and line, for what is no table of numbers with a step.
    """
    path, rows = run / "metrics.jsonl", []
    for number, line in enumerate(files.whole_lines(path), 1):
        if having and f'"{having}' not in line:
            continue
        row = parse_json(line, f"{path}, line {number},")
        good = isinstance(row, dict) and type(row.get("step")) is int and 0 <= row["step"] < options.MOST
        if not good or not all(value is None or type(value) in (int, float) for value in row.values()):
            raise Damaged(f"{path}, line {number}, should hold a step and numbers, got {line[:60]!r}: {CHANGED}")
        if not having or any(name.startswith(having) and value is not None for name, value in row.items()):
            rows.append(row)
    return rows


def columns(run: Path) -> dict[str, list[float | None]]:
    """`metrics.jsonl` by columns, "step" first: as many entries each as there are rows, None where a row has no such number or it was not
    finite. `pandas.DataFrame(run.metrics())` makes a table of it. Raises Damaged as `read_metrics` does."""
    rows = read_metrics(run)
    names = dict.fromkeys(["step", *(name for row in rows for name in row)])
    return {name: [row.get(name) for row in rows] for name in names}


def read_episodes(path: Path) -> np.ndarray:
    """[n, 4] step, environment, return, length of each episode in an `episodes.csv`. Raises Damaged, naming file and line."""
    lines = files.whole_lines(path)
    if lines and not lines[0].startswith(HEADER):
        raise Damaged(f"{path} should begin with {HEADER!r}, got {lines[0][:60]!r}: {CHANGED}")
    try:
        table = (
            np.loadtxt(lines[1:], delimiter=",", usecols=range(4), ndmin=2, comments=None)
            if lines[1:]
            else np.empty((0, 4))
        )
    except ValueError as error:
        raise Damaged(f"{path} should hold four numbers a line ({str(error)[:100]}): {CHANGED}") from None
    if not np.isfinite(table).all():
        line = 2 + int((~np.isfinite(table)).any(1).argmax())
        raise Damaged(f"{path}, line {line}, holds a number that is not finite: {CHANGED}")
    return table
