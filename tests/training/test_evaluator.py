"""Evaluation in a process of its own: what inline evaluation finds, and a run that nothing of it can hold up or end."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import whorl
from tests.processes import all_gone, children, gone, wait_until
from tests.training.fingerprint import fingerprint
from whorl.errors import BadInput, Incompatible
from whorl.training.written import read_metrics

SMALL = {"num_envs": 2, "hidden": (8,), "log_every": 64, "logger": "none", "quiet": True}
FEED = {"feed.steps": 32, "feed.epochs": 1, "feed.minibatches": 1}


def evaluations(path):
    rows = read_metrics(Path(path), "eval/mean_reward")
    return {row["step"]: (row["eval/mean_reward"], row["eval/std_reward"]) for row in rows}


class Together:
    """Waits for every evaluation, before the next rollout."""

    def begin(self, run):
        self.run = run

    def __call__(self, rollout, metrics):
        self.run.evaluation.finish()


@pytest.mark.parametrize(
    ("env", "options"),
    [("CartPole-v1", {}), ("Pendulum-v1", {"transforms": ["running_normalize"], "normalize_observation": True})],
)
def test_the_same_numbers_and_bits_as_inline(env, options, tmp_path):
    """keep_checkpoints and checkpoint_every leave not every step that is evaluated; the last one is no multiple."""
    options = {
        **SMALL,
        **FEED,
        **options,
        "eval_every": 200,
        "eval_episodes": 4,
        "checkpoint_every": 300,
        "keep_checkpoints": 2,
    }
    inline = whorl.train("ppo", env, total_steps=700, runs=tmp_path, name="inline", **options)
    ours = whorl.train(
        "ppo", env, total_steps=700, runs=tmp_path, name="ours", evaluate="concurrent", hooks=[Together()], **options
    )
    assert list(evaluations(inline)) == [256, 448, 640, 704]
    assert evaluations(ours) == evaluations(inline)
    best = [(run.path / "checkpoints" / "best").readlink() for run in (inline, ours)]
    assert best[0] == best[1]
    assert (ours.evaluation.best, ours.evaluation.best_at) == (inline.evaluation.best, inline.evaluation.best_at)
    assert (ours.path / "eval.json").read_text() == (inline.path / "eval.json").read_text()
    assert whorl.train("ppo", env, total_steps=700, runs=tmp_path, evaluate="concurrent", **options).steps == 704
    prints = [fingerprint(path) for path in (inline.path, tmp_path / "last")]
    assert prints[0] == prints[1]
    assert evaluators(os.getpid()) == []


class Gate(gymnasium.Env):
    """Episodes of 4 steps. In another process than that of `learner`, a reset waits for the file `gate`, and raises where it says so."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, gate="", learner=0):
        self.gate, self.learner = Path(gate), learner

    def reset(self, *, seed=None, options=None):
        self.count = 0
        if os.getpid() != self.learner:
            while not self.gate.exists():
                time.sleep(0.01)
            if text := self.gate.read_text():
                raise RuntimeError(text)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.count += 1
        return np.zeros(1, np.float32), float(action), self.count == 4, False, {}


class Said:
    """The lines of standard error, where a quiet run says what went wrong."""

    def __init__(self, capfd):
        self.capfd, self.text = capfd, ""

    @property
    def lines(self):
        self.text += self.capfd.readouterr().err
        return self.text.splitlines()


def train(folder, hook, evaluate="concurrent", loggers=(), **options):
    gated = {"gate": str(folder / "gate"), "learner": os.getpid()}
    options = {**SMALL, **FEED, "eval_every": 64, "eval_episodes": 2, "checkpoint_every": 64, **options}
    return whorl.train(
        "ppo", Gate, env_kwargs=gated, evaluate=evaluate, hooks=[hook], loggers=loggers, runs=folder, **options
    )


def evaluators(pid):
    return [child for child in children(pid) if b"whorl.training.evaluator" in command(child) and not gone(child)]


def command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


class Heard(whorl.Logger):
    def __init__(self):
        self.texts = []

    def message(self, text):
        self.texts.append(text)


def test_a_run_that_is_ahead_goes_on_and_the_newest_checkpoint_is_next(tmp_path):
    """The evaluator stands still until all is learned: had the run waited anywhere, it would never end."""
    heard, calls = Heard(), iter(range(100))

    def open_at_last(rollout, metrics):
        if next(calls) == 9:
            (tmp_path / "gate").touch()

    run = train(tmp_path, open_at_last, loggers=[heard], total_steps=640, keep_checkpoints=1)
    assert list(evaluations(run)) == [64, 640]
    left_out = [text.split()[-1] for text in heard.texts if "has fallen behind and leaves out" in text]
    assert left_out == [f"step_{64 * k}" for k in range(2, 10)]
    last = evaluations(run)[640][0] > evaluations(run)[64][0]
    assert (run.path / "checkpoints" / "best").readlink().name == ("step_640" if last else "step_64")


@pytest.mark.parametrize("kills", [1, 2])
def test_a_killed_evaluator_is_started_again_once(kills, tmp_path, capfd):
    said, killed = Said(capfd), []

    def kill(rollout, metrics):
        here = evaluators(os.getpid())
        if len(killed) < kills:
            for pid in here:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                wait_until(lambda: all_gone(killed))
        elif len(said.lines) == kills:
            (tmp_path / "gate").touch()
            return True
        return False

    run = train(tmp_path, kill, total_steps=10**9, eval_every=128)
    assert said.lines[0] == "the process that evaluates was killed by SIGKILL and is started again"
    if kills == 2:
        assert len(said.lines) == 2
        assert said.lines[1].startswith(
            "the process that evaluates was killed by SIGKILL again: the run goes on without"
        )
        assert evaluations(run) == {}
    else:
        assert 128 in evaluations(run)
    assert run.result.last is not None and evaluators(os.getpid()) == []


def test_what_an_environment_raises_there_is_said_and_the_run_goes_on(tmp_path, capfd):
    said = Said(capfd)
    (tmp_path / "gate").write_text("no licence here")

    def until_said(rollout, metrics):
        return bool(said.lines)

    run = train(tmp_path, until_said, total_steps=10**9)
    assert evaluations(run) == {} and run.result.last is not None
    assert "the process that evaluates raised EnvError: " in said.lines[0]
    assert "reset raised RuntimeError: no licence here" in said.lines[0]
    assert said.lines[0].endswith("the run goes on without evaluations, and whorl resume begins them again")
    assert "Traceback" in said.text and "in reset" in said.text


def test_a_run_does_not_wait_for_ever_at_its_end(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("whorl.training.evaluator.LAST", 0.2)
    run = train(tmp_path, lambda rollout, metrics: False, total_steps=64)
    assert evaluations(run) == {} and evaluators(os.getpid()) == []
    assert "has not evaluated step_64 within 0.2 seconds of the end of training" in capfd.readouterr().err


def test_a_run_may_change_who_evaluates_it(tmp_path):
    options = {**SMALL, **FEED, "eval_every": 64, "eval_episodes": 2}
    run = whorl.train("ppo", "CartPole-v1", total_steps=128, runs=tmp_path, **options)
    run = whorl.resume(run, total_steps=192, evaluate="concurrent", quiet=True)
    assert list(evaluations(run)) == [64, 128, 192]
    run = whorl.resume(run, total_steps=256, evaluate="inline", quiet=True)
    assert list(evaluations(run)) == [64, 128, 192, 256]


def maker():
    lock = threading.Lock()

    def make():
        with lock:
            return Gate()

    return make


locked = maker()


@pytest.mark.parametrize(
    ("env", "options", "kind", "said"),
    [
        ("CartPole-v1", {"checkpoint_every": 0}, BadInput, "evaluates checkpoints, and checkpoint_every is 0: set it"),
        ("CartPole-v1", {"eval_every": 0}, BadInput, "nothing is evaluated: set eval_every, or leave evaluate out"),
        (Gate(), {}, BadInput, "nothing is evaluated: set eval_every, or leave evaluate out"),
        (locked, {}, Incompatible, "holds no open file, lock or connection"),
        (
            "CartPole-v1",
            {"evaluate": "beside"},
            BadInput,
            "evaluate must be one of 'inline', 'concurrent', got 'beside'",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(env, options, kind, said, tmp_path):
    options = {"evaluate": "concurrent", "total_steps": 64, "runs": tmp_path, "num_envs": 1} | options
    with pytest.raises(kind, match=said):
        whorl.train("ppo", env, **options)
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
import os, sys
from pathlib import Path
from tests.training.test_evaluator import train
train(Path(sys.argv[1]), lambda rollout, metrics: False, total_steps=10**9, name="run", eval_every=1024, checkpoint_every=512)
"""


@pytest.mark.fault
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_ends_with_the_run_and_a_resumed_run_evaluates_what_was_not(number, tmp_path):
    """The signal goes to the whole group, as Ctrl-C does, in the midst of the first evaluation."""
    run = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], start_new_session=True, stderr=subprocess.PIPE
    )
    wait_until(lambda: list(tmp_path.glob("*/ppo/run/checkpoints/step_1536")) or run.poll() is not None)
    pids = evaluators(run.pid)
    assert len(pids) == 1
    os.killpg(run.pid, number) if number != signal.SIGKILL else os.kill(run.pid, number)
    error = run.communicate()[1].decode()
    wait_until(lambda: all_gone(pids))
    (tmp_path / "gate").touch()
    path = (tmp_path / "last").resolve()
    assert run.returncode == {signal.SIGINT: -signal.SIGINT, signal.SIGTERM: 143, signal.SIGKILL: -9}[number], error
    assert evaluations(path) == {}
    newest = max(int(each.name[5:]) for each in path.glob("checkpoints/step_*"))
    own = json.loads((path / "config.json").read_text())["env_kwargs"]
    resumed = whorl.resume(path, env=Gate, env_kwargs=own, hooks=[lambda *_: True], quiet=True)
    due = evaluations(resumed)
    assert due and min(due) <= newest
    assert (path / "checkpoints" / "best").exists() and (path / "eval.json").exists()
