"""Metrics for Weights & Biases (extra `wandb`); online or not, and where, say its own variables, such as WANDB_MODE."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from whorl import files, folders
from whorl.batch import Arrays, Numbers, State
from whorl.training.loggers import Logger

if TYPE_CHECKING:
    from wandb.sdk.wandb_run import Run


class Wandb(Logger):
    """One run of the project `whorl` (or WANDB_PROJECT), named after the run's folder, with its config; a resumed run goes on in it.

    Its files lie where wandb puts them (WANDB_DIR), because it makes links, which a run folder must not have.
    """

    def __init__(self, path: Path):
        self._path, self._id, self._step = path, "", 0
        self._run: Run | None = None  # until the first metrics, when it is known whether a checkpoint names one

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        import wandb

        if self._run is None:
            self._run = wandb.init(
                project=wandb.Settings().project or "whorl",
                name=self._path.name,
                id=self._id or None,
                resume="allow",
                reinit="create_new",
                config=files.read_json(self._path / "config.json"),
                settings=wandb.Settings(silent=True, console="off"),
            )
            self._id = self._run.id
        self._step = max(step, self._step)  # it takes no older one, and an evaluation beside training comes late
        self._run.log(dict(metrics), step=self._step)

    def state(self) -> State:
        return {}, {"id": self._id}

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        """Goes on in the run that has this id."""
        self._id = folders.check_name(numbers["id"], "the wandb run") if numbers["id"] else ""
        return True

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
