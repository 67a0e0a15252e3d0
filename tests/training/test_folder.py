"""The run folder: names, links, locks, and files that are whole or not there."""

from __future__ import annotations

import os
import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whorl import files
from whorl.errors import BadInput
from whorl.training import folder


def run_at(path: Path) -> Path:
    files.write_json(path / "config.json", {"seed": 0})
    return path


def test_create_names_the_folder_after_environment_agent_time_and_seed(tmp_path):
    path = folder.create(tmp_path / "runs", "ALE/Pong-v5", "ppo", 3)
    assert path.parent == tmp_path / "runs" / "ALE_Pong-v5" / "ppo"
    date, _, time_and_seed = path.name.partition("_")
    assert len(date.split("-")) == 3 and time_and_seed.endswith("_s3")


def test_runs_never_share_a_folder(tmp_path):
    paths = [folder.create(tmp_path, "CartPole-v1", "ppo", 0, name="mine") for _ in range(3)]
    assert [path.name for path in paths] == ["mine", "mine-2", "mine-3"]
    assert len({folder.create(tmp_path, "CartPole-v1", "ppo", 0) for _ in range(5)}) == 5


@pytest.mark.parametrize(
    "name", ["", "..", ".hidden", "a/b", "a\\b", "/etc", "a\0", "-x", "a\n", "%2e%2e", "x" * 101, "é"]
)
def test_a_name_that_could_leave_the_folder_is_refused_and_nothing_written(tmp_path, name):
    with pytest.raises(BadInput, match="the run name .* cannot name a folder: use 1 to 100 letters"):
        folder.create(tmp_path, "CartPole-v1", "ppo", 0, name=name)
    with pytest.raises(BadInput, match="the agent .* cannot name a folder"):
        folder.create(tmp_path, "CartPole-v1", name, 0)
    assert list(tmp_path.iterdir()) == []


@given(st.text(st.characters() | st.sampled_from("./\\%:" + string.ascii_letters), max_size=50))
def test_no_environment_id_leads_out_of_the_folder(tmp_path_factory, env_id):
    runs = tmp_path_factory.mktemp("runs")
    path = folder.create(runs, env_id, "ppo", 0, name="n")
    assert path.resolve() == runs.resolve() / path.parent.parent.name / "ppo" / "n"


def test_open_run_takes_a_folder_or_a_link(tmp_path):
    path = run_at(folder.create(tmp_path, "CartPole-v1", "ppo", 0))
    link = folder.link_last(tmp_path, path)
    assert link == tmp_path / "last" and not os.readlink(link).startswith("/")
    assert folder.open_run(link) == folder.open_run(str(path)) == path.resolve()
    other = run_at(folder.create(tmp_path, "Pendulum-v1", "ppo", 0))
    folder.link_last(tmp_path, other)
    assert folder.open_run(link) == other.resolve()
    assert folder.runs_in(tmp_path) == [path, other]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["CartPole-v1", "Pendulum-v1", "last"]


def test_what_is_not_a_run_folder(tmp_path):
    with pytest.raises(BadInput, match=r"nowhere is not a run folder: there is no folder"):
        folder.open_run(tmp_path / "nowhere")
    with pytest.raises(BadInput, match=r"is not a run folder: config.json is missing in .*Name a folder runs/<env>"):
        folder.open_run(tmp_path)
    assert folder.runs_in(tmp_path / "nowhere") == []
    (tmp_path / "last").mkdir()
    with pytest.raises(BadInput, match="last is yours, so it does not become a link to"):
        folder.link_last(tmp_path, tmp_path)


# ---------------------------------------------------------------------------------------------------------- meta


def test_meta_is_plain_and_says_where_the_run_comes_from(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["whorl", "train", "--name", "two words"])
    monkeypatch.chdir(tmp_path)
    meta = folder.meta()
    files.write_json(tmp_path / "meta.json", meta)
    assert files.read_json(tmp_path / "meta.json") == meta
    assert meta["command"] == "whorl train --name 'two words'" and meta["commit"] is None
    assert {"whorl", "torch", "numpy", "gymnasium", "python"} <= {name for name, v in meta["versions"].items() if v}
    subprocess.run(["git", "init", "-q"], check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert folder.meta()["commit"] == head
    (tmp_path / "meta.json").touch()
    subprocess.run(["git", "add", "meta.json"], check=True)
    assert folder.meta()["commit"] == f"{head}-dirty"
    monkeypatch.setenv("PATH", str(tmp_path))  # no git here
    assert folder.meta()["commit"] is None
    assert capfd.readouterr() == ("", "")


def test_listing_runs_needs_no_torch():
    code = "import sys; from whorl.training import folder; folder.runs_in('.'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
