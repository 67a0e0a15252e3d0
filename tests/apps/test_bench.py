"""What is timed learns as it does for users; the figures themselves are no matter of tests."""

import json

import pytest

from tests.apps.test_cli import call
from whorl.apps import bench
from whorl.apps.bench import WORKS, Clock, compare, measure
from whorl.errors import StopTraining

EARLY = {
    "dqn_32": 70,
    "dqn_128": 140,
    "sac": 10,
    "c51": 160,
    "qr_dqn": 160,
}  # learning begins, instead of after 100 to 1,000 steps


@pytest.mark.parametrize("name", WORKS)
def test_every_work_trains(name):
    work = WORKS[name]
    if name == "ppo_cheetah":
        pytest.importorskip("mujoco")
    if name in EARLY:
        fields = {**work.fields, "feed.warmup": EARLY[name], "feed.batch_size": 8, "hidden": (8, 8)}
        work = work._replace(counted_from=EARLY[name], row=EARLY[name], fields=fields)
    speed = measure(work, seconds=1e-6)
    assert speed.steps_per_second > 0 and speed.share > 0
    assert speed.update == "packed" or not name.startswith("ppo")


def test_the_clock_is_read_at_rows_of_the_log_and_ends_the_run():
    clock = Clock(counted_from=20, seconds=0.0)
    clock.log(10, {})
    clock.log(20, {"rollout/ep_rew_mean": 3.0})
    assert [row[0] for row in clock.rows] == [20] and clock.final_return == 3.0
    with pytest.raises(StopTraining):
        clock.log(30, {})


def test_bench_shows_each_body_and_why_one_cannot_be(capfd):
    code, out, err = call(capfd, "bench", "ppo", "--updates", "eager", "packed", "--seconds", "1e-5", "--json")
    assert code == 0 and "x" in out and err == "measured: ppo\n"
    (ppo,) = json.loads(out.splitlines()[-1])["works"]
    assert set(ppo["medians"]) == {"eager", "packed"} and not ppo["refused"]


def test_a_body_that_cannot_be_is_said(capfd, monkeypatch):
    monkeypatch.setitem(bench.WORKS, "ppo", WORKS["ppo"]._replace(agent="trpo"))
    code, out, err = call(capfd, "bench", "ppo", "--updates", "packed", "--json")
    assert code == 0 and "update='packed' is not for this TRPO" in err
    assert json.loads(out.splitlines()[-1])["works"][0]["medians"] == {}


def test_a_work_that_is_none(capfd):
    code, out, err = call(capfd, "bench", "pong")
    assert code == 2 and "there is no work pong to measure; there is ppo, " in err and not out


def test_no_body_to_measure(capfd):
    code, out, err = call(capfd, "bench", "ppo", "--updates")
    assert code == 2 and "there is no body of updates to measure: name one" in err and not out


def test_other_seeds_are_repetitions(monkeypatch):
    speeds = iter([1.0, 10.0, 3.0, 30.0, 2.0, 20.0])
    asked = []

    def fake(work, update, seconds, seed):
        asked.append((update, seed))
        return bench.Speed(next(speeds), 1.0, None, update)

    monkeypatch.setattr(bench, "measure", fake)
    (found,) = compare(["ppo"], ["eager", "packed"], repeats=3)
    assert found.medians == {"eager": 2.0, "packed": 20.0}
    assert asked == [(update, seed) for seed in range(3) for update in ("eager", "packed")]
