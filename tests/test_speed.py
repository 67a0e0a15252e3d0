"""benchmarks/suite.py: the workloads say what is there, the table says what the JSON says. No figure is judged here."""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def suite(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return import_module("suite")


def test_workloads_name_what_there_is(suite):
    from whorl.apps.bench import WORKS

    for workload in suite.WORKLOADS.values():
        for program in workload.programs.values():
            assert (BENCHMARKS / "peers" / program.file).exists() and program.whose in ("whorl", "peers")
            assert program.file != "learn_whorl.py" or program.options["work"] in WORKS
        for goal in workload.goals:
            assert {goal.ours, goal.theirs} <= set(workload.programs) and goal.ours.startswith("whorl")


def test_programs_take_turns_and_one_that_fails_is_a_row(suite, tmp_path):
    """TorchRL is not in this interpreter."""
    out = tmp_path / "speed.json"
    command = [
        sys.executable,
        str(BENCHMARKS / "suite.py"),
        "--only",
        "w6_8",
        "w8_wide",
        "--repeats",
        "2",
        "--seconds",
        "0.01",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    again = [*command, "--out", str(out), "--peers-python", sys.executable]
    done = subprocess.run(again, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 1, done.stderr
    data = json.loads(out.read_text())
    collect, advantages = (data["workloads"][name] for name in ("w6_8", "w8_wide"))
    assert [len(runs) for runs in collect["runs"].values()] == [2, 2] and not collect["failed"]
    assert list(advantages["runs"]) == ["whorl"] and "torchrl" in advantages["failed"]["TorchRL"]
    assert "| failed: ModuleNotFoundError: No module named 'torchrl' |" in suite.page(data)


def test_a_goal_is_beside_what_was_reached(suite):
    from workloads.workload import Goal, Workload

    def judged(unit, goal, ours, theirs):
        runs = {"whorl": [{"value": v, "mib": 2 * v} for v in ours], "peer": [{"value": v, "mib": v} for v in theirs]}
        (found,) = suite.judged(Workload("", unit, {}, [goal]), {"runs": runs, "failed": {}})["goals"]
        return found["reached"], found["met"]

    rate, time = Goal("whorl", "peer", 2.0), Goal("whorl", "peer", 0.5)
    assert judged("steps/s", rate, [1.0, 9.0, 6.0], [3.0, 3.0, 1.0]) == (2.0, True)
    assert judged("steps/s", rate, [5.9], [3.0])[1] is False
    assert judged("s", time, [1.0], [2.0]) == (0.5, True) and judged("s", time, [1.1], [2.0])[1] is False
    assert judged("s", Goal("whorl", "peer", 1.9, of="mib"), [1.0], [1.0]) == (2.0, False)
    assert judged("steps/s", rate, [1.0], []) == (None, False)


def test_the_page_is_that_of_the_figures(suite):
    """Both are written by one run."""
    data = json.loads(suite.RESULTS.read_text())
    assert suite.PAGE.exists() == ("workloads" in data)
    assert not suite.PAGE.exists() or suite.PAGE.read_text() == suite.page(data)
