"""wandb, offline, and mlflow, in a local store, receive a run: what arrived is read back."""

import importlib.util
import json
import os

import pytest

import whorl

SHORT = {"total_steps": 512, "num_envs": 2, "eval_every": 0, "checkpoint_every": 256, "log_every": 1, "quiet": True,
         "feed": {"steps": 64}}  # fmt: skip
pytestmark = pytest.mark.trackers


def needs(module):
    if importlib.util.find_spec(module) is None:
        assert os.environ.get("WHORL_TRACKERS") != "required", f"{module} is not installed"
        pytest.skip(f"needs the extra {module}")


def rows(run):
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def records(data):
    """Of a `.wandb` file: 7 bytes, then LevelDB's log format (blocks of 32 KiB; checksum, length, kind, piece)."""
    at, whole = 7, b""
    while at < len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the last piece
            yield whole
            whole = b""


def test_wandb_receives_a_run_and_its_continuation(tmp_path, monkeypatch):
    needs("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "there").mkdir()
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "there"))
    run = whorl.train("ppo", "CartPole-v1", runs=tmp_path, logger="wandb", **SHORT)
    run = whorl.resume(run.path, 1024, quiet=True, logger="wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    assert run.logs.failures == {}
    found, ids, config = [], set(), {}
    for file in sorted(tmp_path.glob("there/wandb/offline-run-*/run-*.wandb"), key=os.path.getmtime):
        for data in records(file.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "run":
                ids.add((record.run.run_id, record.run.project, record.run.display_name))
                config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            if record.WhichOneof("record_type") == "history":
                keys = {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                }
                found.append(keys)
    assert len(ids) == 1 and list(ids)[0][1:] == ("whorl", run.path.name)
    assert config["agent"] == "ppo" and config["config"]["feed"]["steps"] == 64
    written = rows(run)
    assert [row["_step"] for row in found] == [row["step"] for row in written]
    for there, here in zip(found, written):
        for name, value in here.items():
            assert name == "step" or there[name] == pytest.approx(value, rel=1e-6)


def test_mlflow_receives_a_run_and_its_continuation(tmp_path, monkeypatch):
    needs("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'store'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run = whorl.train("ppo", "CartPole-v1", runs=tmp_path / "runs", logger="mlflow", **SHORT)
    run = whorl.resume(run.path, 1024, quiet=True, logger="mlflow")
    assert run.logs.failures == {}
    from mlflow import MlflowClient

    client = MlflowClient()
    (there,) = client.search_runs([client.get_experiment_by_name("whorl").experiment_id])
    assert there.info.run_name == run.path.name and there.info.status == "FINISHED"
    assert there.data.params["agent"] == "ppo" and there.data.params["config.feed.steps"] == "64"
    for name in ("train/loss", "rollout/ep_rew_mean"):
        history = [(each.step, each.value) for each in client.get_metric_history(there.info.run_id, name)]
        assert sorted(history) == [(row["step"], pytest.approx(row[name])) for row in rows(run) if name in row]
