"""Run folders from strangers: nothing in them leads out, imports, connects or ends in a traceback.

What is tried is a table (links and the like) or drawn (changed files): a part of it in each test run, all of it with `make faults`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import random
import re
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import whorl
from tests.cases import each
from tests.seeds import DATA
from whorl.apps import cli
from whorl.errors import Damaged

FULL = "WHORL_KILLS" in os.environ  # make faults
SHORT = {
    "total_steps": 64,
    "num_envs": 2,
    "eval_every": 32,
    "eval_episodes": 2,
    "checkpoint_every": 32,
    "log_every": 16,
}
STEP = "checkpoints/step_64"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """A small run of each kind of state: networks and optimizers, replay rows on disk, tables."""
    place = tmp_path_factory.mktemp("runs")
    common: dict[str, Any] = {"runs": place, "quiet": True, **SHORT}
    ppo = whorl.train("ppo", "CartPole-v1", hidden=(4,), feed={"steps": 8, "epochs": 1, "minibatches": 1}, **common)
    dqn = whorl.train("dqn", "CartPole-v1", hidden=(4,), feed={"capacity": 64, "warmup": 8}, **common)
    td = whorl.train("td", "CartPole-v1", **common | {"num_envs": 1})
    return {"ppo": ppo.path, "dqn": dqn.path, "td": td.path}


@pytest.fixture
def outside(tmp_path) -> Path:
    """Files that no run may touch."""
    folder = tmp_path / "outside"
    (folder / "inner").mkdir(parents=True)
    for name in ("secret", "inner/step_64", "inner/.tmp-draft", "config.json"):
        (folder / name).write_text("keep")
    return folder


def tree(folder: Path) -> dict[str, Any]:
    """Every name below a folder with its contents, or where it leads."""
    found = {}
    for path in sorted(folder.rglob("*")):
        found[str(path.relative_to(folder))] = (
            os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
        )
    return found


def call(*words: object) -> tuple[int, str]:
    """(exit code, standard error) of a command, in this process."""
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        try:
            cli.main([str(word) for word in words])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
            return code, err.getvalue()
    return 0, err.getvalue()


def commands(run: Path, place: Path) -> dict[str, tuple[object, ...]]:
    """What opens a run folder, but for `submit`, which takes seconds."""
    return {
        "eval": ("eval", run, "--episodes", 1),
        "resume": ("resume", run, "--total-steps", 96, "--quiet"),
        "plot": ("plot", run, "--out", place / "plot.png"),
    }


# ------------------------------------------------------------------------------------------------- what leads out

FILES = ("config.json", "meta.json", "eval.json", "metrics.jsonl", "episodes.csv", "curve.png", ".lock", f"{STEP}/state.json",
         f"{STEP}/manifest.json", f"{STEP}/policy.safetensors", f"{STEP}/agent.safetensors", "replay/rows.bin", "replay/counters.json",
         "tb/events", "video/new.gif")  # fmt: skip
FOLDERS = ("tb", "video", "replay", "checkpoints", STEP, "checkpoints/.tmp-x", "replay/.tmp-x", ".tmp-x")
MARKS = ("checkpoints/last", "checkpoints/best")


def link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / ("inner" if str(path).endswith(FOLDERS) else "secret"))


def dangling(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "new")


def upwards(path: Path, outside: Path) -> None:
    path.symlink_to(os.path.relpath(outside, path.parent))


def hard_link(path: Path, outside: Path) -> None:
    os.link(outside / "secret", path)


def pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path, outside: Path) -> None:
    here = os.open(path.parent, os.O_RDONLY)  # a socket's name may have 107 characters
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


KINDS: list[Callable[[Path, Path], None]] = [link, dangling, upwards, hard_link, pipe, unix_socket]
CASES = [(name, kind) for name in (*FILES, *FOLDERS, *MARKS) for kind in KINDS]


def leads_nowhere(cases: list[tuple[str, Callable[[Path, Path], None]]], run: Path, place: Path, outside: Path) -> None:
    before = tree(outside)
    for name, kind in each(cases):
        copy = place / "copy"
        shutil.copytree(run, copy, symlinks=True)
        target = copy / name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        target.unlink(missing_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        kind(target, outside)
        hostile = tree(copy)
        for what, words in commands(copy, place).items():
            code, err = call(*words)
            assert code == 2 and err.startswith("whorl: ") and err.count("\n") == 1, (
                name,
                kind.__name__,
                what,
                code,
                err,
            )
            assert target.name in err or "config.json" in err, err
        assert tree(outside) == before and tree(copy) == hostile, (name, kind.__name__)
        shutil.rmtree(copy)


@pytest.mark.fault
def test_nothing_in_a_run_folder_leads_out(runs, tmp_path, outside):
    """Not even the lock is taken: the folder is as it was."""
    for run in runs.values() if FULL else [runs["dqn"]]:
        leads_nowhere(CASES if FULL else random.Random(DATA).sample(CASES, 40), run, tmp_path, outside)


def test_a_checkpoint_s_own_marks_are_no_obstacle(runs, tmp_path):
    run = Path(shutil.copytree(runs["ppo"], tmp_path / "copy", symlinks=True))
    assert os.readlink(run / "checkpoints" / "last") == "step_64"
    assert call("eval", run, "--episodes", 1) == (0, "")
    (run / "checkpoints" / "best").unlink()
    (run / "checkpoints" / "best").symlink_to("step_7")  # one that was deleted meanwhile
    (run / "checkpoints" / ".tmp-last-17-ab").symlink_to("step_64")  # of a killed writer
    assert call("eval", run, "--episodes", 1) == (0, "")
    (run / "checkpoints" / "best").unlink()
    (run / "checkpoints" / "best").symlink_to("../checkpoints/step_64")
    code, err = call("eval", run)
    assert code == 2 and "best is not a regular file but a symbolic link" in err


def test_the_user_s_own_last_is_never_replaced(tmp_path, caplog):
    for make in (lambda path: path.write_text("mine"), lambda path: path.mkdir()):
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        place.mkdir()
        make(place / "last")
        before = tree(place)
        run = whorl.train("random", "CartPole-v1", total_steps=32, num_envs=2, eval_every=0, runs=place, quiet=True)
        assert (run.path / "eval.json").exists() and tree(place)["last"] == before["last"]
        assert "last is yours, so it does not become a link to" in caplog.text
        caplog.clear()


class Frames(gymnasium.Env):
    """Images in stacks of two, and a picture."""

    observation_space, action_space = gymnasium.spaces.Box(0, 255, (2, 12, 12), np.uint8), gymnasium.spaces.Discrete(2)
    render_mode = "rgb_array"

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros((2, 12, 12), np.uint8), {}

    def step(self, action):
        self.t += 1
        seen = np.zeros((2, 12, 12), np.uint8)
        seen[0], seen[1] = self.t - 1, self.t
        return seen, 1.0, False, self.t == 4, {}

    def render(self):
        return np.zeros((8, 8, 3), np.uint8)


@pytest.mark.parametrize("name", ["replay", "video", "checkpoints"])
def test_what_becomes_a_link_while_a_run_goes_on_is_not_followed(name, tmp_path):
    outside = tmp_path / "outside"
    kept: list[dict[str, Any]] = []

    def swap(rollout, metrics):
        path = whorl.last_run().path / name
        if path.exists() and not kept:
            path.rename(outside)
            path.symlink_to(outside)
            kept.append(tree(outside) if outside.is_dir() else {"": None})

    feed = {"capacity": 64, "warmup": 8, "batch_size": 4, "storage": "frames"}
    options = SHORT | {
        "hidden": (4,),
        "feed": feed,
        "video_every": 1,
        "eval_every": 0,
        "runs": tmp_path / "runs",
        "quiet": True,
    }
    with pytest.raises(Damaged, match=f"{name} is not a .* but a symbolic link"):
        whorl.train("dqn", Frames, hooks=[swap], **options)
    assert not outside.is_dir() or tree(outside) == kept[0]


# ------------------------------------------------------------------------------------------------- what is changed

VALUES = (None, True, -1, 0, 10**30, -(10**400), 0.5, 1e308, math.nan, math.inf, "", "x", "\ud800", "x" * 10_000, [], [[]], {}, {"a": 1},
          [200_000, 200_000], "http://127.0.0.1:9/CartPole-v1", "whorl_evil:Env-v0", "../../etc/passwd")  # fmt: skip
TABLES = ("config.json", "meta.json", "eval.json", "state.json", "manifest.json", "counters.json")
TEXTS = ("metrics.jsonl", "episodes.csv")


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value in a JSON tree."""
    inner = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


def changed(data: Any, draw: random.Random) -> Any:
    """A value taken away, put in the place of another, or added."""
    *way, last = draw.choice(places(data)[1:])
    node = data
    for key in way:
        node = node[key]
    what = draw.random()
    if what < 0.25:
        del node[last]
    elif what < 0.35 and isinstance(node, dict):
        node[draw.choice(("future", "", "format", "x" * 1000))] = draw.choice(VALUES)
    else:
        node[last] = draw.choice(VALUES)
    return data


def flipped(data: bytes, draw: random.Random) -> bytes:
    """A bit turned, or an end cut off."""
    at = draw.randrange(len(data))
    if draw.random() < 0.2:
        return data[:at]
    return data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]


def rehash(run: Path) -> None:
    """Makes all hashes fit what is there, as a stranger can."""
    with contextlib.suppress(Exception):  # what is no table any more has no hash
        data = json.loads((run / "config.json").read_text())
        rest = {key: value for key, value in data.items() if key != "sha256"}
        data["sha256"] = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
        (run / "config.json").write_text(json.dumps(data))
    for step in (run / "checkpoints").glob("step_*"):
        with contextlib.suppress(Exception):
            manifest = json.loads((step / "manifest.json").read_text())
            for name in manifest["files"]:
                found = (step / name).read_bytes()
                manifest["files"][name] = {"bytes": len(found), "sha256": hashlib.sha256(found).hexdigest()}
            manifest["config"] = data["sha256"]
            (step / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def change(run: Path, draw: random.Random) -> str:
    """Changes one file of a run; its name."""
    name = draw.choice(TABLES + TEXTS)
    found = sorted(run.rglob(name)) or [run / "config.json"]
    path = found[-1] if name != "state.json" else run / STEP / "state.json"
    data = path.read_bytes()
    if path.name in TABLES and draw.random() < 0.7:
        path.write_text(json.dumps(changed(json.loads(data), draw)))
        if draw.random() < 0.7:
            rehash(run)
    elif path.name == "metrics.jsonl" and draw.random() < 0.5:
        lines = data.decode().splitlines()
        at = draw.randrange(len(lines))
        lines[at] = json.dumps(changed(json.loads(lines[at]), draw))
        path.write_text("\n".join(lines) + "\n")
    else:
        path.write_bytes(flipped(data, draw))
    return str(path.relative_to(run))


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """Nothing connects, and the module `whorl_evil` is never imported."""
    reached: list[str] = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: reached.append(f"connected to {address}"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **options: reached.append(f"looked up {address}") or [])
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "whorl_evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path / "evil")
    yield
    assert not reached and "whorl_evil" not in sys.modules


@pytest.mark.fault
def test_whatever_a_file_says_is_at_most_one_sentence(runs, tmp_path, outside, alone):
    """Some changes are none, or cannot be told from what is right; no change is a traceback or leaves the folder."""
    before, draw = tree(outside), random.Random(DATA)
    refused = 0
    for number in each(range(1000 if FULL else 100)):
        run = list(runs.values())[number % len(runs)]
        copy = tmp_path / "copies" / "env" / "agent" / "run"
        shutil.copytree(run, copy, symlinks=True)
        name = change(copy, draw)
        print(number, run, name)
        words = commands(copy, tmp_path) | {"list": ("list", "runs", "--runs", tmp_path / "copies")}
        for what, command in words.items() if FULL else draw.sample(list(words.items()), 1):
            code, err = call(*command)
            assert code in (0, 1, 2), (number, what, code, err)
            if code:
                refused += 1
                assert err.splitlines()[-1].startswith("whorl: ") and len(err) < 3000 and "Traceback" not in err, (
                    number,
                    what,
                    err,
                )
        shutil.rmtree(tmp_path / "copies")
    assert tree(outside) == before and refused > 12


def test_rows_of_a_replay_buffer_are_held_to_their_spaces(runs, tmp_path):
    """No hash covers them: they are too many."""
    copy = Path(shutil.copytree(runs["dqn"], tmp_path / "copy", symlinks=True))
    rows = bytearray((copy / "replay" / "rows.bin").read_bytes())
    rows[:] = b"\x07" * len(rows)
    (copy / "replay" / "rows.bin").write_bytes(rows)
    code, err = call("resume", copy, "--total-steps", 96, "--quiet")
    assert code == 2 and re.search(
        "the state of 'buffer': action of a row holds 5\\d+, of 2 choices: it was changed", err
    ), err


def test_files_larger_than_memory_are_not_read(runs, tmp_path):
    """A file with a hole takes no room on disk."""
    copy, huge = Path(shutil.copytree(runs["ppo"], tmp_path / "copy", symlinks=True)), 1 << 42
    manifest = json.loads((copy / STEP / "manifest.json").read_text())
    manifest["files"]["policy.safetensors"]["bytes"] = huge
    (copy / STEP / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    for name in ("metrics.jsonl", "episodes.csv", f"{STEP}/policy.safetensors"):
        os.truncate(copy / name, huge)
    for what, words in (commands(copy, tmp_path) | {"eval": ("eval", copy, "--which", 64)}).items():
        code, err = call(*words)
        assert code == 2 and re.search("step_64 would take 4,096.0 GiB|4,398,046,511,104 bytes, more than", err), (
            what,
            err,
        )
