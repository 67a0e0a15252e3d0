"""Metrics for MLflow (extra `mlflow`); where they go says its own variable MLFLOW_TRACKING_URI."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from whorl import files, folders
from whorl.batch import Arrays, Numbers, State
from whorl.training.loggers import Logger
from whorl.training.plot import flat

MOST = 100  # parameters that MLflow takes at once


class Mlflow(Logger):
    """One run of the experiment `whorl` (or MLFLOW_EXPERIMENT_NAME), named after the run's folder, with its config as parameters; a
    resumed run goes on in it."""

    def __init__(self, path: Path):
        from mlflow import MlflowClient

        self._path, self._id, self._client = path, "", MlflowClient()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        if not self._id:
            self._begin()
        now = int(1000 * time.time())
        self._client.log_batch(self._id, [Metric(name, float(value), now, step) for name, value in metrics.items()])

    def _begin(self) -> None:
        from mlflow.entities import Param
        from mlflow.environment_variables import MLFLOW_EXPERIMENT_NAME

        name = MLFLOW_EXPERIMENT_NAME.get() or "whorl"
        experiment = self._client.get_experiment_by_name(name)
        place = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        self._id = self._client.create_run(place, run_name=self._path.name).info.run_id
        config = flat(files.read_json(self._path / "config.json"))
        parameters = [Param(name, str(value)) for name, value in config.items()]
        for begin in range(0, len(parameters), MOST):
            self._client.log_batch(self._id, params=parameters[begin : begin + MOST])

    def state(self) -> State:
        return {}, {"id": self._id}

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        """Goes on in the run that has this id."""
        self._id = folders.check_name(numbers["id"], "the MLflow run") if numbers["id"] else ""
        return True

    def close(self) -> None:
        if self._id:
            self._client.set_terminated(self._id)
