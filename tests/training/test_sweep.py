"""A sweep: each run exactly once, whatever kills it; bad input before anything runs; one table at the end."""

import fcntl
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import whorl
from tests.processes import children, gone, wait_until
from tests.training.fingerprint import fingerprint
from whorl.apps.cli import main
from whorl.errors import BadInput, Damaged, Incompatible
from whorl.functional.statistics import bootstrap_interval, iqm
from whorl.training import checkpoint, sweep_table
from whorl.training.process import StopSignals
from whorl.training.slots import allowed_cores
from whorl.training.sweep import sweep
from whorl.training.sweep_live import SweepLive, progress

COMMAND = [sys.executable, "-c", "from whorl.apps.cli import main; main()", "sweep"]
FULL = "WHORL_KILLS" in os.environ  # make faults: forty runs; else four
STEPS, SETTINGS, SEEDS = ("20,40", 4, 10) if FULL else ("20", 2, 2)
RUNS = SETTINGS * SEEDS
KILLS = 5 if FULL else 0  # of the sweep, beside the first
SLOTS = min(2, len(allowed_cores()))
MANY = ["reinforce", "CartPole-v1", "--grid", "learning_rate=1e-3,1e-2", "--grid", f"feed.steps={STEPS}"]
MANY += [
    "--seeds",
    SEEDS,
    "--slots",
    f"{SLOTS}x1",
    "--total-steps",
    4000,
    "--num-envs",
    2,
    "--eval-episodes",
    2,
    "--json",
]
MANY += ["--name", "many"]


def start(*arguments, **options):
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def run_folders(path, file):
    return sorted(found.parent for found in path.glob(f"[!.]*/*/*/{file}"))


def runs_of(sweep, seen):
    """{name of a run: its process} of those that are under way; `seen` gets the cores that each of their threads may use."""
    found, busy = {}, set()
    for pid in children(sweep.pid):
        try:
            request = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[-2]
            if not request.startswith(b"{"):  # not yet the run, but the sweep that becomes it
                continue
            request = json.loads(request)
            cores = {frozenset(os.sched_getaffinity(int(thread))) for thread in os.listdir(f"/proc/{pid}/task")}
        except (FileNotFoundError, ProcessLookupError, IndexError):
            continue
        name = Path(request["resume"]).name if "resume" in request else request["train"]["name"]
        found[name] = pid
        (own,) = cores  # all threads of a run
        assert len(own) == 1 and not own & busy, "two runs on one core"
        busy |= own
        seen.setdefault(name, set()).update(own)
    return found


def end(sweep, seen):
    """Waits until the sweep ends; what it wrote. It must write less than a pipe holds."""
    while sweep.poll() is None:
        runs_of(sweep, seen)
        time.sleep(0.005)
    return sweep.communicate()


@pytest.mark.fault
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends the runs of a killed sweep on Linux only")
def test_runs_killed_in_the_middle_are_one_result_each(tmp_path):
    path = tmp_path / "sweeps" / "many"
    first, seen = start(*MANY, "--runs", tmp_path), {}
    few = RUNS // 4  # some are finished then, one more has saved, and one has not begun
    wait_until(lambda: runs_of(first, seen) and run_folders(path, "checkpoints/last"))
    victim = run_folders(path, "checkpoints/last")[0].parent.name
    os.kill(runs_of(first, seen)[victim], signal.SIGKILL)  # the run alone: the sweep goes on, and with it in the end
    wait_until(
        lambda: (
            runs_of(first, seen)
            and few <= len(run_folders(path, "eval.json")) < len(run_folders(path, "checkpoints/last"))
        )
    )
    running = runs_of(first, seen)
    first.kill()  # the sweep alone, not its runs
    _, err = first.communicate()
    wait_until(lambda: all(gone(pid) for pid in running.values()))
    assert running and f"failed: killed by SIGKILL; retry 1 of 2 comes ({path}/logs/{victim}.txt)" in err

    finished = {run: (run / "eval.json").stat().st_mtime_ns for run in run_folders(path, "eval.json")}
    begun = [run for run in run_folders(path, "config.json") if run not in finished]
    assert len(finished) >= few and begun and len(finished) + len(begun) < RUNS
    never_begun = path / "CartPole-v1" / "reinforce" / f"{SETTINGS - 1:03d}_s{SEEDS - 1}"
    assert not never_begun.exists()
    never_begun.mkdir()  # killed between making the folder and its first file
    (never_begun / ".tmp-config.json-1-00000000").write_text("{")

    moments = random.Random(0)
    for _ in range(KILLS):  # at any moment: before its first run, between two, while one saves
        between = start(*MANY, "--runs", tmp_path)
        moment = time.monotonic() + moments.uniform(0, 15)
        while time.monotonic() < moment:
            running |= runs_of(between, seen)
            time.sleep(0.005)
        between.kill()
        between.communicate()
        while not all(gone(pid) for pid in running.values()):
            time.sleep(0.005)
        finished |= {
            run: (run / "eval.json").stat().st_mtime_ns for run in {*run_folders(path, "eval.json")} - {*finished}
        }

    second = start(*MANY, "--runs", tmp_path)
    out, err = end(second, seen)
    assert second.returncode == 0, err
    assert f"{RUNS} runs, {len(finished)} finished before, {SLOTS} at a time" in err and f"[{RUNS}/{RUNS}]" in err
    assert err.count(": best mean ") == RUNS - len(finished)
    assert sorted(p.name for p in path.glob("CartPole-v1/*/*")) == sorted(
        f"{k:03d}_s{seed}" for k in range(SETTINGS) for seed in range(SEEDS)
    )
    assert len(run_folders(path, "eval.json")) == RUNS
    for run, written in finished.items():
        assert (run / "eval.json").stat().st_mtime_ns == written  # not run again

    assert len(seen) == RUNS and set().union(*seen.values()) == set(allowed_cores()[:SLOTS])
    settings = set()
    for run in run_folders(path, "eval.json"):
        config = json.loads((run / "config.json").read_text())
        settings.add((config["config"]["learning_rate"], config["config"]["feed"]["steps"], config["seed"]))
        logged = [row["step"] for row in rows_of(run) if "time/fps" in row]
        assert logged == sorted(set(logged)) and logged[-1] >= 4000  # trained once, from the beginning to the end
    assert len(settings) == RUNS

    config = json.loads((begun[0] / "config.json").read_text())
    fields = {"learning_rate": config["config"]["learning_rate"], "feed": {"steps": config["config"]["feed"]["steps"]}}
    options = {"total_steps": 4000, "num_envs": 2, "eval_episodes": 2, "seed": config["seed"], "quiet": True}
    unbroken = whorl.train("reinforce", "CartPole-v1", runs=tmp_path / "unbroken", **options, **fields)
    assert fingerprint(begun[0]) == fingerprint(unbroken.path)

    table = json.loads(out.splitlines()[-1])
    assert table["runs"] == RUNS and table["failed"] == {}
    assert [row["seeds"] for row in table["table"]] == [SEEDS] * SETTINGS
    best = table["table"][0]
    runs = [run for run in run_folders(path, "eval.json") if matches(run, best["setting"])]
    scores = [json.loads((run / "eval.json").read_text())["best"]["mean"] for run in runs]
    assert (
        len(scores) == SEEDS
        and best["iqm"] == iqm(scores)
        and (best["low"], best["high"]) == bootstrap_interval(scores)
    )
    assert [row["iqm"] for row in table["table"]] == sorted((row["iqm"] for row in table["table"]), reverse=True)
    csv = (path / "table.csv").read_text().splitlines()
    assert csv[0] == "learning_rate,feed.steps,iqm,low,high,seeds,last_100" and len(csv) == 1 + SETTINGS
    assert csv[1].split(",")[2] == repr(best["iqm"])
    assert (path / "table.png").read_bytes().startswith(b"\x89PNG")

    third = start(*MANY, "--runs", tmp_path)  # nothing is left to do
    out, err = third.communicate()
    assert third.returncode == 0 and f"{RUNS} finished before" in err and "best mean" not in err
    assert json.loads(out.splitlines()[-1]) == table
    assert all((run / "eval.json").stat().st_mtime_ns == written for run, written in finished.items())


def rows_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def matches(run, setting):
    config = json.loads((run / "config.json").read_text())["config"]
    return config["learning_rate"] == setting["learning_rate"] and config["feed"]["steps"] == setting["feed.steps"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_are_noted_and_given_back(number):
    before = signal.getsignal(number)
    with StopSignals() as stop:
        signal.raise_signal(number)
        assert stop.number == number
    assert signal.getsignal(number) is before


@pytest.mark.fault
def test_a_signal_stops_the_runs_which_save(tmp_path):
    """A hundred million steps have their first regular checkpoint at five million."""
    options = ["random", "RandomWalk-v0", "--grid", "feed.steps=8,16", "--seeds", 1, "--slots", 1, "--name", "long"]
    process = start(*options, "--total-steps", 100_000_000, "--runs", tmp_path, start_new_session=True)
    path = tmp_path / "sweeps" / "long"
    wait_until(lambda: any((run / "episodes.csv").stat().st_size > 1000 for run in run_folders(path, "episodes.csv")))
    (child,) = children(process.pid)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, err = process.communicate()
    assert process.returncode == 128 + signal.SIGINT and gone(child)
    assert "stopped by SIGINT with 2 of 2 runs to go; the same command goes on" in err and "FAILED" not in err
    (run,) = run_folders(path, "config.json")
    assert 0 < int(checkpoint.newest(run / "checkpoints").name.removeprefix("step_")) < 5_000_000


@pytest.mark.fault
def test_a_run_that_fails_is_reported_and_the_others_go_on(tmp_path):
    options = ["ppo", "CartPole-v1", "--grid", "learning_rate=1e38,1e-3", "--grid", "max_grad_norm=1e38"]
    options += ["--grid", "eval_episodes=2"]
    small = ["--seeds", 1, "--slots", 2, "--retries", 1, "--total-steps", 1024, "--num-envs", 4, "--window", 7]
    process = start(*options, *small, "--runs", tmp_path, "--json")
    out, err = process.communicate()
    assert process.returncode == 1 and "Traceback" not in err
    result = json.loads(out.splitlines()[-1])
    ((job, why),) = result["failed"].items()
    assert job == "learning_rate=1e+38 max_grad_norm=1e+38 eval_episodes=2, seed 0" and "NaN or infinite" in why
    assert f"[1/2] {job}: FAILED: whorl: " in err or f"[2/2] {job}: FAILED: whorl: " in err
    assert f"{job}: failed: {why}; retry 1 of 1 comes" in err and f"whorl: {job} failed 2 times: {why}" in err
    assert result["retries"] == {job: 1} and "1 of 2 runs, 1 retries" in out
    first, last = result["table"]
    assert first["setting"]["learning_rate"] == 1e-3 and first["seeds"] == 1 and first["iqm"] > 0
    assert last["setting"]["learning_rate"] == 1e38 and last["seeds"] == 0 and last["iqm"] is None
    assert (Path(result["sweep"]) / "table.csv").read_text().splitlines()[2] == "1e+38,1e+38,2,,,,0,"
    settings = [json.loads(file.read_text()) for file in Path(result["sweep"]).glob("*/*/*/config.json")]
    assert [(s["window"], s["eval_episodes"], s["total_steps"]) for s in settings] == [(7, 2, 1024)] * 2


# -- bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grid", "learning_rte=1,2"], "did you mean 'learning_rate'"),
        (["--grid", "learning_rate=1,fast"], "learning_rate must be a finite number, got 'fast'"),
        (["--grid", "learning_rate=1e-3,-1"], "learning_rate must be at least 0, got -1"),
        (["--grid", "learning_rate=1e-3,0.001"], "learning_rate has the value 0.001 twice"),
        (["--grid", "std=both"], "std must be one of"),
        (["--grid", "feed.steps=5,0"], "feed.steps must be at least 1, got 0"),
        (["--grid", "feed.minibatches=1,5000"], "is more than the rollout's"),
        (["--grid", "num_envs=1,0"], "num_envs must be at least 1, got 0"),
        (["--grid", "total_steps=0"], "total_steps must be at least 1, got 0"),
        (["--grid", "total_episodes=0"], "total_episodes must be at least 1, got 0"),
        (["--grid", "max_episode_steps=5,0"], "max_episode_steps must be at least 1, got 0"),
        (["--grid", "anneal_steps=100"], "anneal_steps = 100 ends before total_steps"),
        (["--grid", "threads=1,0"], "threads must be at least 1, got 0"),
        (["--grid", "discount=.9", "--window", "0"], "window must be at least 1, got 0"),
        (["--grid", "num_envs=1,2", "--num-envs", "4"], "num_envs is given twice"),
        (["--grid", "total_steps=1,2", "--total-steps", "4"], "total_steps is given twice"),
        (["--grid", "learning_rate="], "learning_rate has no values"),
        ([], "the grid is empty"),
        (["--grid", "discount=.9", "--seeds", "0"], "seeds must be at least 1, got 0"),
        (["--grid", "discount=.9", "--retries", "-1"], "retries must be at least 0, got -1"),
        (
            ["--grid", "discount=.9", "--jobs", "2"],
            "there is no option --jobs; what others call jobs is --slots, of a sweep",
        ),
        *(
            (["--grid", "discount=.9", "--slots", text], message)
            for text, message in [
                ("0", "slots are a number of runs at a time (2), also with the cores of each (2x1), or GPUs"),
                ("2x0", "got '2x0'"),
                ("x2", "got 'x2'"),
                ("2x", "got '2x'"),
                ("-1", "got '-1'"),
                ("gpu:", "got 'gpu:'"),
                ("gpu:0, 1", "got 'gpu:0, 1'"),
                ("99999", "got '99999'"),
                ("9000x9", "slots = 9000x9 needs 81000 cores, but this process may use"),
                ("gpu:9999", "slots = gpu:9999: there is no GPU 9999; this process sees"),
            ]
        ),
        (["--grid", "discount=.9", "--eval-episodes", "0"], "eval_episodes must be at least 1, got 0"),
        (["--grid", "discount=.9", "--name", "../x"], "the sweep name '../x' cannot name a folder"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(capfd, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["sweep", "ppo", "CartPole-v1", *arguments])
    assert stop.value.code == 2 and message in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_unknown_names_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match="did you mean 'ppo'"):
        sweep("pppo", "CartPole-v1", {"discount": [0.9]})
    with pytest.raises(BadInput, match="near matches: CartPole-v1"):
        sweep("ppo", "CartPoll-v1", {"discount": [0.9]})
    with pytest.raises(Incompatible, match="needs whole episodes"):
        sweep("reinforce", "CartPole-v1", {"feed.unit": ["episode", "step"]})
    with pytest.raises(BadInput, match="discount must be a number, got 'much'"):
        sweep("ppo", "CartPole-v1", {"discount": ["much"]})
    with pytest.raises(BadInput, match="num_envs must be a whole number, got 'four'"):
        sweep("ppo", "CartPole-v1", {"num_envs": ["four"]})
    with pytest.raises(BadInput, match="has no option 'total_step'; did you mean 'total_steps'"):
        sweep("ppo", "CartPole-v1", {"discount": [0.9]}, total_step=100)
    for agent, values, options, message in (
        (
            "ppo,dqn,a2c",
            {"clip_range": [0.1, 0.2]},
            {},
            "dqn and a2c have no field 'clip_range', which ppo has: vary what all",
        ),
        ("dqn,ppo", {}, {"samples": {"clip_range": "uniform:0.1:0.2"}}, "dqn has no field 'clip_range', which ppo has"),
        (["ppo", "a2c"], {}, {}, "one text, their names with commas between them: 'ppo,a2c'"),
        (
            "ppo",
            {"discount": [0.9]},
            {"seeds": [0, 1, 2]},
            "seeds is how many, not which: seeds=3 trains the seeds 0 to 2",
        ),
        ("ppo", {"discount": 0.9}, {}, r"a list of values for each field, one will do: {'discount': \[0.9\]}"),
        (
            "ppo",
            {"discount": [0.9]},
            {"learning_rate": 1e-3},
            r"the config of ppo, .* stand in the grid.*: {'learning_rate': \[0.001\]}",
        ),
        ("ppo", {"discount": [0.9]}, {"feed": {"steps": 8}}, r"stand in the grid.*: {'feed.steps': \[8\]}"),
    ):
        with pytest.raises(BadInput, match=message):
            sweep(agent, "CartPole-v1", values, **options)
    assert list(tmp_path.iterdir()) == []


def test_one_name_is_one_sweep(tmp_path):
    plan = {"agent": "ppo", "env": "CartPole-v1", "grid": {"discount": [0.9]}, "seeds": 5, "eval_episodes": 100}
    folder = tmp_path / "sweeps" / "mine"
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text(json.dumps(plan | {"total_steps": 50, "num_envs": 1, "meta": {}}))
    before = (folder / "sweep.json").read_text()
    for values, options, message in (
        (
            {"discount": [0.9, 0.99]},
            {"total_steps": 50, "num_envs": 1},
            r"grid = .*\[0.9\].* now it is .*\[0.9, 0.99\]",
        ),
        (
            {"discount": [0.9]},
            {"total_steps": 60, "num_envs": 1},
            "was begun with total_steps = 50, now it is 60: repeat",
        ),
        ({"discount": [0.9]}, {"total_steps": 50, "num_envs": 1, "seeds": 6}, "seeds = 5, now it is 6"),
    ):
        with pytest.raises(BadInput, match=message):
            sweep("ppo", "CartPole-v1", values, runs=tmp_path, name="mine", **options)
    assert [p.name for p in folder.iterdir()] == ["sweep.json"] and (folder / "sweep.json").read_text() == before


def test_two_sweeps_at_once_are_refused(tmp_path):
    folder = tmp_path / "sweeps" / "mine"
    folder.mkdir(parents=True)
    with open(folder / ".lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BadInput, match="is in use by another process: two processes"):
            sweep("ppo", "CartPole-v1", {"discount": [0.9]}, runs=tmp_path, name="mine")
    assert [p.name for p in folder.iterdir()] == [".lock"]


@pytest.mark.parametrize("name", ["logs", "logs/000_s0.txt", "CartPole-v1/ppo/000_s0", "table.csv", "sweep.json"])
def test_nothing_in_the_folder_of_a_sweep_leads_out(name, tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "sweeps" / "mine"
    outside.mkdir()
    (outside / ".tmp-mine").write_text("keep")
    (folder / name).parent.mkdir(parents=True)
    (folder / name).symlink_to(outside)
    (folder / "last").symlink_to("CartPole-v1/ppo/000_s0")  # of the sweep's own
    with pytest.raises(Damaged, match=f"{Path(name).name} is not a .* but a symbolic link"):
        sweep("ppo", "CartPole-v1", {"discount": [0.9]}, runs=tmp_path, name="mine")
    assert [p.name for p in outside.iterdir()] == [".tmp-mine"] and not (folder / ".lock").exists()


def test_a_plan_that_is_no_table(tmp_path):
    (tmp_path / "sweeps" / "mine").mkdir(parents=True)
    (tmp_path / "sweeps" / "mine" / "sweep.json").write_text("[1]")
    with pytest.raises(Damaged, match="sweep.json should hold a table"):
        sweep("ppo", "CartPole-v1", {"discount": [0.9]}, runs=tmp_path, name="mine")


# -- the table ----------------------------------------------------------------------------------------------------------


def made_up_run(folder, best, returns):
    folder.mkdir(parents=True)
    scores = {"mean": best, "std": 0.0, "min": best, "max": best, "episodes": 1}
    (folder / "eval.json").write_text(json.dumps({"steps": 1, "episodes": 1, "last": None, "best": scores}))
    lines = [f"{i},0,{float(ret)!r},1\n" for i, ret in enumerate(returns)]
    (folder / "episodes.csv").write_text("step,env,return,length\n" + "".join(lines))
    return folder


def test_the_table(tmp_path):
    bad = [made_up_run(tmp_path / f"a{i}", i, [1, 2, 3]) for i in range(3)]
    good = [made_up_run(tmp_path / f"b{i}", 10 + i, [0] * 1000 + [i] * 100) for i in range(8)]
    silent = [made_up_run(tmp_path / "c", 5, [])]
    settings = [{"hidden": (64, 64)}, {"hidden": ()}, {"hidden": (8,)}, {"hidden": (9,)}]
    rows = sweep_table.table([*zip(settings, [bad, good, silent, []])])
    assert [row.setting["hidden"] for row in rows] == [(), (8,), (64, 64), (9,)]
    best, one, worst, none = rows
    assert best.iqm == np.mean([12, 13, 14, 15]) and best.low < best.iqm < best.high and best.seeds == 8
    assert best.last_100 == 3.5 and worst.last_100 == 2 and worst.iqm == 1
    assert (one.iqm, one.low, one.high, one.seeds, one.last_100) == (5, 5, 5, 1, None)
    assert (none.iqm, none.low, none.high, none.seeds, none.last_100) == (None, None, None, 0, None)
    assert sweep_table.header(["hidden"]) == ["hidden", "IQM", "95% interval", "seeds", "last 100 episodes"]
    assert worst.cells() == ["64x64", "1.0", "0.0 to 2.0", "3", "2.0"] and none.cells() == ["9", "-", "-", "0", "-"]
    sweep_table.write_csv(tmp_path / "table.csv", rows)
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert lines[2:] == ["8,5.0,5.0,5.0,1,", "64x64,1.0,0.0,2.0,3,2.0", "9,,,,0,"]
    sweep_table.draw(tmp_path / "table.png", rows, "title")
    sweep_table.draw(tmp_path / "empty.png", rows[3:], "every run failed")
    assert (tmp_path / "table.png").stat().st_size > (tmp_path / "empty.png").stat().st_size


@pytest.mark.parametrize("episodes", [0, 1, 99, 100, 101, 5000])
def test_last_episodes_reads_the_end(tmp_path, episodes):
    returns = [i / 7 for i in range(episodes)]
    run = made_up_run(tmp_path / "run", 0, returns)
    newest = [[i, returns[i]] for i in range(episodes)][-100:]
    assert sweep_table.last_episodes(run / "episodes.csv").tolist() == newest


# -- the live table -----------------------------------------------------------------------------------------------------


def test_a_terminal_shows_a_table_of_the_slots(monkeypatch, tmp_path):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    parent, child = os.openpty()
    run, clock = made_up_run(tmp_path / "run", 5, [1, 2, 6]), [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    with os.fdopen(child, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with SweepLive() as live:
            live.show(lambda: [("1: core 0", "hidden=[8], seed 0", "2", *progress(run, 0.0))], "1 waiting")
            live.show(lambda: 1 / 0, "too early")  # the rows are not even made
            live.say("[1/2] [b]")
            clock[0] += 10
            live.show(
                lambda: [("2", "x", "1", *progress(None, 50.0)), ("3", "y", "1", *progress(tmp_path, 50.0))], "below"
            )
    shown = os.read(parent, 100_000).decode()
    assert "1: core 0  hidden=[8], seed 0  2    1:40  2      3.0" in re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert "[1/2] [b]\r\n" in shown and "1 waiting" in shown and "too early" not in shown and "below" in shown
    assert re.search(r"2 +x +1 +1:00 +- +-", shown) and re.search(r"3 +y +1 +1:00 +- +-", shown)
    assert shown.endswith("\x1b[?25h") or "\x1b[?25h" in shown  # the cursor is back
