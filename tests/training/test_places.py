"""Loggers by name: `--logger`, `progress.csv`, and `metrics()` by columns."""

import csv
import json

import pytest

import whorl
from whorl.errors import BadInput
from whorl.training.loggers.places import names, of_folder
from whorl.training.loggers.progress_csv import ProgressCsv

SHORT = {"total_steps": 512, "num_envs": 2, "eval_every": 0, "checkpoint_every": 256, "log_every": 1, "quiet": True,
         "feed": {"steps": 64}}  # fmt: skip


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))  # as rllab's viskit reads it


def test_a_table_grows_by_rows_and_by_columns(tmp_path):
    log = ProgressCsv(tmp_path / "progress.csv")
    log.log(1, {"loss": 0.1 + 0.2})
    log.log(2, {"loss": 2.0, "a,b": 5})
    saved = log.state()[1]
    log.log(3, {"late": float("nan")})
    assert (tmp_path / "progress.csv").read_text() == (
        'step,loss,"a,b",late\n1,0.30000000000000004,,\n2,2.0,5,\n3,,,nan\n'
    )
    again = ProgressCsv(tmp_path / "progress.csv")  # after a kill
    again.load_state({}, saved)
    again.log(3, {"late": 1.0})
    assert [row["late"] for row in table(tmp_path / "progress.csv")] == ["", "", "1.0"]
    assert table(tmp_path / "progress.csv")[0] == {"step": "1", "loss": repr(0.1 + 0.2), "a,b": "", "late": ""}


def test_a_run_writes_the_table_that_metrics_gives_and_a_resumed_one_too(tmp_path):
    options = {**SHORT, "runs": tmp_path, "logger": "csv"}
    run = whorl.train("ppo", "CartPole-v1", **options)
    whorl.resume(run.path, 1024, quiet=True, loggers=[whorl.Logger()], logger="tensorboard,csv")
    rows, columns = table(run.path / "progress.csv"), run.metrics()
    assert list(columns)[0] == "step" and columns["step"] == [128 * (i + 1) for i in range(8)]
    assert [int(row["step"]) for row in rows] == columns["step"]
    for name, column in columns.items():
        assert [float(row[name]) if row[name] else None for row in rows] == column
    assert whorl.load(run.path).metrics() == columns
    assert (
        json.loads((run.path / "config.json").read_text())["logger"] == "tensorboard,csv" and (run.path / "tb").is_dir()
    )


def test_no_table_and_no_events_where_none_are_asked_for(tmp_path):
    run = whorl.train("ppo", "CartPole-v1", runs=tmp_path, logger="none", **SHORT)
    assert not (run.path / "tb").exists() and not (run.path / "progress.csv").exists()


def test_names_are_checked_before_anything_is_written(tmp_path, monkeypatch):
    with pytest.raises(
        BadInput,
        match="there is no logger 'tensorbord'; did you mean 'tensorboard'.* Loggers: tensorboard, csv, wandb, mlflow",
    ):
        whorl.train("ppo", "CartPole-v1", runs=tmp_path, logger="csv,tensorbord", **SHORT)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"needs a package that is missing: pip install 'whorl\[wandb\]'"):
        names("wandb")
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_brings_no_tracker(tmp_path):
    assert of_folder("tensorboard,wandb") == ("tensorboard", ["wandb"]) and of_folder("mlflow") == ("none", ["mlflow"])
    run = whorl.train("ppo", "CartPole-v1", runs=tmp_path, logger="csv", **SHORT)
    assert names(run.settings.logger) == ["csv"]
