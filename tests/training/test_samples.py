"""What a sweep samples, and agents that it compares; a killed one goes on with the same draws."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from whorl.apps.cli import main
from whorl.errors import BadInput
from whorl.training.catalog import default_config
from whorl.training.folder import runs_in
from whorl.training.plot import find_runs
from whorl.training.samples import parse, settings

WORDS = [
    "sweep",
    "a2c,reinforce",
    "CartPole-v1",
    "--sample",
    "discount=uniform:0.9:1",
    "--trials",
    "2",
    "--seeds",
    "1",
    "--slots",
    "2",
]
WORDS += ["--total-steps", "2000", "--eval-episodes", "4", "--name", "some"]


def test_draws_are_plain_counted_and_inside_their_ends():
    config = default_config("ppo")
    samples = parse(
        ["learning_rate=log:1e-5:1e-2", "discount=uniform:0.9:1", "feed.epochs=int:1:3", "hidden=choice:64x64,()"]
    )
    drawn = settings(samples, 400, config)
    rates, discounts, epochs, hidden = (np.array([s[name] for s in drawn], object) for name in samples)
    assert (
        (rates >= 1e-5).all() and (rates <= 1e-2).all() and 0.4 < (rates < 10**-3.5).mean() < 0.6
    )  # even in the exponent
    assert (discounts >= 0.9).all() and (discounts <= 1).all() and 0.94 < discounts.mean() < 0.96
    assert sorted(set(epochs)) == [1, 2, 3] and set(hidden) == {(64, 64), ()}
    assert settings(samples, 20, config) == drawn[:20]  # more trials change none of the first
    assert [s["discount"] for s in settings({"discount": samples["discount"]}, 20, config)] == list(discounts[:20])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate", "--sample takes FIELD=log:LOW:HIGH"),
        ("learning_rat=log:1:2", "there is no field 'learning_rat' to vary; did you mean 'learning_rate'"),
        ("learning_rate=log:0:1", "with LOW < HIGH, and above 0 for log; got 'log:0:1'"),
        ("learning_rate=log:1", "is sampled by log:LOW:HIGH, .* got 'log:1'"),
        ("learning_rate=normal:0:1", "is sampled by .* got 'normal:0:1'"),
        ("learning_rate=int:1:5", "learning_rate is no whole number: sample it by log, uniform or choice"),
        ("feed.epochs=log:1:5", "feed.epochs is a whole number: sample it by int"),
        ("hidden=choice:a", "hidden must be a whole number, got 'a'"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused(text, message):
    with pytest.raises(BadInput, match=message):
        settings(parse([text]), 2, default_config("ppo"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ppo,ppo", "CartPole-v1"], "ppo comes twice"),
        (["ppo,pppo", "CartPole-v1"], "did you mean 'ppo'"),
        (["ppo,dqn", "CartPole-v1", "--grid", "clip_range=0.1,0.2"], "no field 'clip_range', which ppo has: vary what all of them have"),
        (["ppo", "CartPole-v1", "--grid", "discount=.9", "--sample", "discount=uniform:0:1"], "discount comes twice"),
        (["ppo", "CartPole-v1", "--sample", "discount=uniform:0:2"], "discount must be from 0 to 1, got"),
        (["ppo", "CartPole-v1", "--sample", "discount=uniform:0:1", "--trials", "0"], "trials must be at least 1, got 0"),
    ],
)  # fmt: skip
def test_bad_sweeps_are_refused_before_anything_runs(capfd, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["sweep", *words])
    assert stop.value.code == 2 and message in capfd.readouterr().err and list(tmp_path.iterdir()) == []


def drawn_in(folder):
    """{name of the run: (agent, discount)}"""
    found = {}
    for run in runs_in(folder):
        data = json.loads((run / "config.json").read_text())
        found[run.name] = data["agent"], data["config"].get("discount")
    return found


@pytest.mark.fault
def test_a_killed_sampled_sweep_of_two_agents_goes_on_with_the_same_draws(tmp_path):
    command = [sys.executable, "-c", "from whorl.apps.cli import main; main()", *WORDS, "--runs", str(tmp_path)]
    folder = tmp_path / "sweeps" / "some"
    cut = subprocess.Popen(command, stderr=subprocess.PIPE)
    while not any(folder.glob("*/*/*/checkpoints/step_*")):
        assert cut.poll() is None, cut.stderr.read()
        time.sleep(0.01)
    os.kill(cut.pid, signal.SIGKILL)
    cut.communicate()
    before = drawn_in(folder)
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    after = drawn_in(folder)
    assert before and before.items() <= after.items()
    assert sorted(agent for agent, _ in after.values()) == ["a2c", "a2c", "reinforce", "reinforce"]
    expected = [s["discount"] for s in settings({"discount": "uniform:0.9:1"}, 2, default_config("a2c"))]
    for each in ("a2c", "reinforce"):  # the same draws
        assert sorted(discount for agent, discount in after.values() if agent == each) == sorted(expected)
    table = json.loads(done.stdout.splitlines()[-1])["table"]
    assert [set(row["setting"]) for row in table] == [{"agent", "discount"}] * 4
    with open(folder / "table.csv", newline="") as file:
        assert [row["agent"] for row in csv.DictReader(file)] == [row["setting"]["agent"] for row in table]
    assert find_runs(folder) == sorted(runs_in(folder)) and len(runs_in(tmp_path)) == 4
