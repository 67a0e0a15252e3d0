"""What a run folder says: each file is held to its kind, and the checkpoints to the config.json that they were written under."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import whorl
from tests.cases import each
from tests.training import run_folders
from whorl.errors import BadInput, Damaged
from whorl.training import checkpoint
from whorl.training.curve import draw_curve
from whorl.training.written import LATER, read_config, read_episodes, read_meta, read_metrics, read_result

SHORT = {
    "total_steps": 64,
    "num_envs": 2,
    "eval_every": 32,
    "eval_episodes": 2,
    "checkpoint_every": 32,
    "log_every": 32,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    options = {"hidden": (4,), "feed": {"steps": 8, "epochs": 1}, "quiet": True, **SHORT}
    return whorl.train("ppo", "CartPole-v1", runs=tmp_path_factory.mktemp("runs"), **options).path


@pytest.fixture
def copy(run, tmp_path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "copy", symlinks=True))


def edit(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_every_file_names_its_wrong_field(copy):
    for name, values, error, message in each([
        ("config.json", {"seed": "x"}, BadInput, "config.json: seed must be a whole number, got 'x'"),
        ("config.json", {"seed": 10**30}, BadInput, r"config.json: seed must be below 2\*\*63"),
        ("config.json", {"device": None}, BadInput, "config.json: device must be a text, got None"),
        ("config.json", {"future": 1}, Damaged, "config.json: future is not known here"),
        ("config.json", {"config": []}, BadInput, r"config.json: config must be a table, got \(\)"),
        ("config.json", {"config": {"learning_rat": 1}}, BadInput, "config.json: .*did you mean 'learning_rate'"),
        ("config.json", {"config": {"learning_rate": "fast"}}, BadInput, "config.json: learning_rate must be a number"),
        ("config.json", {"seed": 3}, Damaged, "config.json is not as it was written: its SHA-256 differs"),
        ("meta.json", {"versions": 3}, BadInput, "meta.json: versions must be a table, got 3"),
        ("eval.json", {"steps": -1.5}, BadInput, "eval.json: steps must be a whole number, got -1.5"),
        ("eval.json", {"best": {"mean": 1.0}}, Damaged, "eval.json: best.std is missing"),
        ("eval.json", {"best": 5}, Damaged, "eval.json: best should hold a table, got 5"),
    ]):  # fmt: skip
        before = (copy / name).read_text()
        edit(copy / name, **values)
        read = {"config.json": whorl.load, "meta.json": read_meta, "eval.json": read_result}[name]
        with pytest.raises(error, match=message):
            read(copy)
        (copy / name).write_text(before)
    assert whorl.load(copy).predict(np.zeros(4, np.float32)) in (0, 1)


def test_a_missing_field_is_named(copy):
    data = json.loads((copy / "config.json").read_text())
    for name in each(["seed", "config", "sha256", "progress"]):
        (copy / "config.json").write_text(json.dumps({key: value for key, value in data.items() if key != name}))
        with pytest.raises(Damaged, match=f"config.json: {name} is missing: it was changed, or written by another"):
            whorl.load(copy)


def test_lines_that_are_no_rows(copy):
    for line in each(
        ['{"step": 1, "x": "y"}', '{"step": "1"}', "[1]", "5", '{"step": 1, "x": NaN}', '{"step": 1', '{"step": -1}']
    ):
        (copy / "metrics.jsonl").write_text('{"step": 1, "eval/mean_reward": null}\n' + line + "\n")
        with pytest.raises(Damaged, match="metrics.jsonl, line 2,"):
            read_metrics(copy)
    for line in each(["1,2,3", "1,2,x,4", "", "1,2,nan,4", "1,2,1e999,4", "1,2,3,4;"]):
        (copy / "episodes.csv").write_text("step,env,return,length\n1,0,5.0,9\n" + line + "\n")
        if line:
            with pytest.raises(Damaged, match="episodes.csv"):
                read_episodes(copy / "episodes.csv")
    (copy / "episodes.csv").write_bytes(b"\xff\xfe\n")
    with pytest.raises(Damaged, match="episodes.csv is not text"):
        draw_curve(copy)


def test_the_manifest_covers_config_json(copy, run):
    """Also where both hashes of it are right: it is not the one that the checkpoints were written under."""
    written = read_config(run)
    assert checkpoint.config_of(run / "checkpoints" / "step_64") == written.sha256
    (copy / "config.json").unlink()
    other = json.loads((run / "config.json").read_text())
    run_folders.write(copy, other["config"], **vars(written.settings) | {"seed": 5})
    for use in (whorl.load, lambda path: whorl.resume(path, 96, quiet=True)):
        with pytest.raises(Damaged, match=r"config.json is not the one that step_\d+ was written under"):
            use(copy)


def test_a_resume_may_change_what_may_change(copy):
    """Older checkpoints were written under another config.json, which the new one remembers."""
    before = read_config(copy).sha256
    whorl.resume(copy, 96, quiet=True)
    after = read_config(copy)
    assert after.settings.total_steps == 96 and after.earlier == (before,) and after.sha256 != before
    for which in ("step_32", "step_64", "step_96", "last"):
        whorl.load(copy, which)
    whorl.resume(copy, 128, quiet=True)
    assert len(read_config(copy).earlier) == 2


def test_a_state_of_another_kind_is_named(copy):
    """With hashes that fit: whoever writes a manifest can write those."""
    step = copy / "checkpoints" / "step_64"
    tensors, state = checkpoint.load(step)
    for name, values, message in each([
        ("collector", {"rollouts": "x"}, "the state of 'collector': 'rollouts' should be a whole number, got 'x'"),
        ("collector", {"ledger": None}, "the state of 'collector': 'ledger' should be a table, got None"),
        ("log", {"window": {"size": 100}}, "the state of 'log': 'window' has no 'count'"),
        ("agent", {"optimizers": {}}, "the state of 'agent'"),
        ("evaluation", {"best": ["x", 1]}, "the state of 'evaluation' does not fit"),
    ]):  # fmt: skip
        checkpoint.save(step.parent, 64, tensors, state | {name: state[name] | values}, checkpoint.config_of(step))
        with pytest.raises(Damaged, match=message):
            whorl.resume(copy, 96, quiet=True)
    for name, change, message in each([
        ("policy", lambda x: x[:-1], r"the state of 'policy': the array '.*' should be torch.float32 \[.*\], there is"),
        ("policy", lambda x: x.double(), "should be torch.float32 .* there is torch.float64"),
        ("collector", lambda x: x[:-1] if x.ndim else x, "the state of 'collector'"),
    ]):  # fmt: skip
        changed = {key: change(value) for key, value in tensors[name].items()}
        checkpoint.save(step.parent, 64, tensors | {name: changed}, state, checkpoint.config_of(step))
        with pytest.raises(Damaged, match=message):
            whorl.resume(copy, 96, quiet=True)
    checkpoint.save(step.parent, 64, {"policy": tensors["policy"]}, {"policy": {}}, checkpoint.config_of(step))
    with pytest.raises(Damaged, match="step_64 has no state of 'agent'"):
        whorl.resume(copy, 96, quiet=True)


def test_sizes_are_checked_before_anything_is_allocated(copy, tmp_path):
    for config, settings, message in each([
        ({"hidden": [200_000, 200_000]}, {}, r"networks of hidden = \[200000, 200000\].* would take .* GiB of memory"),
        ({"feed": {"steps": 10**12}}, {}, "a rollout of feed.steps = 1,000,000,000,000 for 2 environments would take"),
    ]):  # fmt: skip
        run_folders.change(copy, config, **settings)
        with pytest.raises(BadInput, match=message):
            whorl.resume(copy, 96, quiet=True)
    run_folders.change(copy, {"hidden": [4], "feed": {"steps": 8, "epochs": 1, "minibatches": 1}}, threads=10**9)
    with pytest.raises(BadInput, match="threads = 1000000000 is more than the 1,024 that torch is given"):
        whorl.resume(copy, 96, quiet=True)
    with pytest.raises(BadInput, match="num_envs = 1,000,000,000,000 would take .* GiB of memory"):
        whorl.build("ppo", "CartPole-v1", num_envs=10**12)
    with pytest.raises(BadInput, match="a batch of feed.batch_size = 1,000,000,000,000 would take"):
        whorl.train("dqn", "CartPole-v1", feed={"batch_size": 10**12}, runs=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_run_on_a_server_connects_only_where_the_user_says(copy, monkeypatch):
    import socket

    monkeypatch.setattr(socket, "create_connection", lambda *address, **options: pytest.fail(f"connected to {address}"))
    url = "http://127.0.0.1:9/CartPole-v1"
    run_folders.change(copy, env=url)
    for use in (whorl.load, lambda path: whorl.resume(path, 96, quiet=True)):
        with pytest.raises(
            BadInput, match=f"was trained on a server, '{url}', and a run folder alone makes no connection"
        ):
            use(copy)
    with pytest.raises(BadInput, match="must not hold a token"):
        whorl.load(copy, env="http://user:secret@127.0.0.1:9/CartPole-v1")
    assert whorl.load(copy, env="CartPole-v1").evaluate(1).returns.shape == (1,)  # in what was given, not on the server
    run_folders.change(copy, env="CartPole-v1")
    with pytest.raises(BadInput, match="was trained on 'CartPole-v1' and goes on there: leave env out"):
        whorl.resume(copy, 96, env=url)
    run_folders.change(copy, env="whorl_evil:Env-v0")
    with pytest.raises(BadInput, match="an id cannot import a module"):
        whorl.load(copy)


def test_a_kill_before_the_last_file_is_finished_by_resume(copy):
    """The curve is drawn before eval.json is there; a folder of an older whorl may lack it all the same."""
    for missing in each([("eval.json",), ("curve.png",), ("curve.png", "eval.json")]):
        for name in missing:
            (copy / name).unlink()
        run = whorl.resume(copy, quiet=True)
        assert run.steps == 64 and (copy / "curve.png").exists() and read_result(copy).steps == 64
    with pytest.raises(BadInput, match="is finished at 64 steps"):
        whorl.resume(copy, quiet=True)


def test_drafts_of_a_killed_run_are_removed(copy):
    for name in (".tmp-a", "checkpoints/.tmp-b", "replay/.tmp-c", "video/.tmp-d"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text("half")
    whorl.resume(copy, 96, quiet=True)
    assert not list(copy.rglob(".tmp-*"))


def test_a_folder_that_vanishes_is_one_sentence(tmp_path):
    class Remove:
        calls = 0

        def __call__(self, rollout, metrics):
            self.calls += 1
            if self.calls == 3:
                shutil.rmtree(next(tmp_path.glob("*/*/*/config.json")).parent)

    for options in each([{}, {"eval_every": 0, "checkpoint_every": 0}, {"eval_every": 16, "checkpoint_every": 0}]):
        with pytest.raises(Damaged, match="the run folder .* is gone: somebody removed it"):
            whorl.train(
                "random",
                "CartPole-v1",
                runs=tmp_path,
                hooks=[Remove()],
                feed={"steps": 8},
                quiet=True,
                **SHORT | options,
            )
        assert not list(tmp_path.glob("*/*/*"))


def test_weights_that_are_no_numbers_do_not_end_the_process(copy):
    tensors, state = checkpoint.load(copy / "checkpoints" / "step_64")
    tensors["policy"] = {key: torch.full_like(value, float("nan")) for key, value in tensors["policy"].items()}
    checkpoint.save(copy / "checkpoints", 64, tensors, state, checkpoint.config_of(copy / "checkpoints" / "step_64"))
    with pytest.raises(BadInput, match="holds numbers that are not finite"):
        whorl.load(copy, "last")


def test_folders_of_before_there_were_such_settings(copy):
    """Under the SHA-256 that they were written with: the settings that a file does not name are not in its hash."""
    new = json.loads((copy / "config.json").read_text())
    step = copy / "checkpoints" / "step_64"
    saved = checkpoint.load(step)
    older = ("update", "precision", "transforms", *LATER)
    for missing, compiled, update in each([
        (("transforms",), False, new["update"]),
        (older, False, "eager"),
        ((*older, "spaces"), False, "eager"),
        (older, True, "compiled"),
    ]):  # fmt: skip
        data = {key: value for key, value in new.items() if key not in (*missing, "sha256")} | {"compile": compiled}
        sha256 = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
        (copy / "config.json").write_text(json.dumps(data | {"sha256": sha256}))
        checkpoint.save(step.parent, 64, *saved, sha256)
        settings = read_config(copy).check().settings
        assert settings.update == update and settings.precision == "float32" and settings.transforms == ()
        assert whorl.load(copy, 64).predict(np.zeros(4, np.float32)) in (0, 1)
        if not compiled:  # which would take long
            run = whorl.resume(copy, 64 + 32, quiet=True)
            assert run.steps == 96 and run.settings.update == update and run.written.earlier[-1] == sha256
            shutil.rmtree(copy / "checkpoints" / "step_96")
            (copy / "eval.json").unlink()
        edit(copy / "config.json", seed=3)
        with pytest.raises(Damaged, match="config.json is not as it was written: its SHA-256 differs"):
            whorl.load(copy, 64)
