"""The loggers that have names, for `--logger`: files in the run's folder, and trackers, each of an extra."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from whorl.collectors.tally import ways_of
from whorl.errors import BadInput
from whorl.options import did_you_mean
from whorl.training.loggers import Logger, Loggers
from whorl.training.loggers.console import Console
from whorl.training.loggers.episodes import EpisodesCsv
from whorl.training.loggers.jsonl import JsonLines
from whorl.training.settings import Settings

FILES = ("tensorboard", "csv")
TRACKERS = ("wandb", "mlflow")  # they may connect to others: never because a run folder says so


def names(text: str) -> list[str]:
    """`"tensorboard,csv"` -> its names; "none" is none. Raises BadInput for a name that is none, and for a missing extra."""
    found = [name.strip() for name in text.split(",")] if text != "none" else []
    for name in found:
        if name not in FILES + TRACKERS:
            raise BadInput(
                f"there is no logger {name!r}{did_you_mean(name, FILES + TRACKERS)}. Loggers: {', '.join(FILES + TRACKERS)}, "
                "with commas between several, or none"
            )
        if name in TRACKERS and importlib.util.find_spec(name) is None:
            raise BadInput(f"the logger {name} needs a package that is missing: pip install 'whorl[{name}]'")
    return list(dict.fromkeys(found))


def of_folder(text: str) -> tuple[str, list[str]]:
    """(What of a run folder's `logger` is used without being asked for again, the names that are not)."""
    known = [name.strip() for name in text.split(",")]
    left = [name for name in known if name not in TRACKERS]
    return ",".join(left) or "none", [name for name in known if name in TRACKERS]


def loggers_of(path: Path, settings: Settings, own: Sequence[Logger], quiet: bool) -> Loggers:
    """All loggers of a run: `metrics.jsonl` and `episodes.csv`, those that are named, the console's, and the user's own."""
    made = [JsonLines(path / "metrics.jsonl"), EpisodesCsv(path / "episodes.csv", list(ways_of(settings.info_keys)))]
    console = Console(settings.total_steps, quiet=quiet)
    return Loggers([*made, *(_made(name, path) for name in names(settings.logger)), console, *own])


def _made(name: str, path: Path) -> Logger:
    """Imports what it needs only here."""
    if name == "csv":
        from whorl.training.loggers.progress_csv import ProgressCsv

        return ProgressCsv(path / "progress.csv")
    if name == "wandb":
        from whorl.training.loggers.wandb import Wandb

        return Wandb(path)
    if name == "mlflow":
        from whorl.training.loggers.mlflow import Mlflow

        return Mlflow(path)
    from whorl.training.loggers.tensorboard import TensorBoard

    return TensorBoard(path / "tb")
