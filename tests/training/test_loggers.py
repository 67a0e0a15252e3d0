"""Loggers: what they write, how they rewind for a resumed run, and that no failure of theirs reaches training."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from tests.training import run_folders
from whorl.collectors.ledger import Episode
from whorl.errors import BadInput, Damaged
from whorl.training.chart import BLUE, ORANGE, Chart, Series
from whorl.training.curve import draw_curve, moving_mean
from whorl.training.loggers import Logger, Loggers
from whorl.training.loggers.console import Console
from whorl.training.loggers.episodes import EpisodesCsv
from whorl.training.loggers.jsonl import JsonLines
from whorl.training.loggers.tensorboard import TensorBoard


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# ------------------------------------------------------------------------------------------------- jsonl and csv


def test_json_lines_keep_every_bit_and_write_null_for_what_json_has_not(tmp_path):
    logger = JsonLines(tmp_path / "metrics.jsonl")
    third = np.float32(1) / np.float32(3)
    logger.log(np.int64(5), {"a": 0.1 + 0.2, "b": third, "nan": math.nan, "inf": -math.inf, "n": 7})
    text = (tmp_path / "metrics.jsonl").read_text()  # there before close
    assert text == '{"step": 5, "a": 0.30000000000000004, "b": 0.3333333432674408, "nan": null, "inf": null, "n": 7}\n'
    logger.close()


def test_a_resumed_run_writes_no_line_twice(tmp_path):
    metrics, episodes = JsonLines(tmp_path / "m"), EpisodesCsv(tmp_path / "e")
    metrics.log(1, {})
    episodes.add([Episode(1, 0, 0.5, 10)])
    position = json.loads(json.dumps([metrics.state()[1], episodes.state()[1]]))
    metrics.log(2, {})
    episodes.add([Episode(2, 1, math.nan, 20), Episode(2, 0, 1e-17, 30)])
    assert (tmp_path / "e").read_text() == "step,env,return,length\n1,0,0.5,10\n2,1,nan,20\n2,0,1e-17,30\n"
    metrics, episodes = JsonLines(tmp_path / "m"), EpisodesCsv(tmp_path / "e")
    metrics.load_state({}, position[0])
    episodes.load_state({}, position[1])
    metrics.log(3, {})
    episodes.add([])
    episodes.add([Episode(3, 1, np.float64(2), np.int64(3))])
    assert [line["step"] for line in lines(tmp_path / "m")] == [1, 3]
    assert (tmp_path / "e").read_text() == "step,env,return,length\n1,0,0.5,10\n3,1,2.0,3\n"
    episodes.load_state({}, {"bytes": 0})
    assert (tmp_path / "e").read_text() == "step,env,return,length\n"


def test_a_full_disk_is_said_once_costs_no_training_and_leaves_no_half_line(tmp_path):
    code = """
        import resource, signal, sys
        from whorl.training.loggers import Logger, Loggers
        from whorl.training.loggers.console import Console
        from whorl.training.loggers.jsonl import JsonLines
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        console = Console(10, stream=sys.stdout, quiet=True)
        with Loggers([JsonLines(sys.argv[1]), console]) as logs:
            resource.setrlimit(resource.RLIMIT_FSIZE, (60, resource.RLIM_INFINITY))
            for step in range(10):
                logs.log(step, {"value": 1.0})
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            logs.log(10, {"value": 1.0})
        print(logs.failures)
    """
    path = tmp_path / "metrics.jsonl"
    command = [sys.executable, "-c", textwrap.dedent(code), str(path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line["step"] for line in lines(path)] == [*range(11)]  # the disk got room again: what had to wait is there
    assert out == [
        f"logger JsonLines failed in log at step 2 (OSError: [Errno 27] File too large: {path} was not written). "
        "Training goes on, and it is tried again",
        "{'JsonLines': 8}",
    ]


# --------------------------------------------------------------------------------------------------- tensorboard


def scalars(path: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(path), purge_orphaned_data=True)
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_reads_what_was_logged(tmp_path):
    logger = TensorBoard(tmp_path / "tb")
    logger.log(10, {"train/loss": 0.5, "time/fps": 100})
    logger.log(20, {"train/loss": math.nan})
    written = scalars(tmp_path / "tb")  # before close
    assert written["time/fps"] == [(10, 100.0)]
    assert written["train/loss"][0] == (10, 0.5) and math.isnan(written["train/loss"][1][1])
    logger.close()


@pytest.mark.parametrize("how", ["load_state", "purge_step"])
def test_tensorboard_forgets_what_a_resumed_run_does_again(tmp_path, how):
    first = TensorBoard(tmp_path)
    first.log(10, {"a": 1.0})
    position = first.state()[1]
    first.log(20, {"a": 2.0})
    first.close()
    second = TensorBoard(tmp_path, purge_step=11 if how == "purge_step" else None)
    if how == "load_state":
        second.load_state({}, position)
    second.log(15, {"a": 3.0})
    second.close()
    assert len(list(tmp_path.iterdir())) == 2
    assert scalars(tmp_path) == {"a": [(10, 1.0), (15, 3.0)]}


def test_tensorboard_is_imported_only_when_one_is_made():
    code = "import sys, whorl.training.loggers.tensorboard; assert 'tensorboard' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ------------------------------------------------------------------------------------------------------- console


def test_plain_lines_where_there_is_no_terminal():
    stream = io.StringIO()
    with Console(10_000, stream, interval=0.0) as console:
        console.message("[a] note")
        console.log(1000, {"time/fps": 1234.5})
        console.log(5000, {"time/fps": 2000.0, "rollout/ep_rew_mean": 21.456})
        console.log(10_000, {"time/fps": 2000.0, "train/loss": 1.0})
    note, first, second, third = stream.getvalue().splitlines()
    assert note == "[a] note"
    assert first.startswith("1,000 / 10,000 steps (10%)  1,234 steps/s  left ") and first.endswith("return -")
    assert second.startswith("5,000 / 10,000 steps (50%)") and second.endswith("return 21.46")
    assert third.endswith("left 0:00  return 21.46")  # the last one known


def test_past_the_end_there_is_no_time_left_and_no_more_than_all_is_done():
    """A rollout is taken whole: 1,024 steps where 600 were asked for."""
    stream = io.StringIO()
    with Console(600, stream, interval=0.0) as console:
        console.log(1024, {"time/fps": 201.0})
    assert stream.getvalue().startswith("1,024 / 600 steps (100%)") and "left 0:00 " in stream.getvalue()


def test_between_intervals_nothing_but_the_last_line_at_the_end():
    stream = io.StringIO()
    console = Console(100, stream, interval=1e9)
    for step in (10, 20, 30):
        console.log(step, {})
    assert stream.getvalue() == ""
    console.close()
    console.close()
    assert len(stream.getvalue().splitlines()) == 1 and stream.getvalue().startswith("30 / 100 steps (30%)")


def test_the_mean_rate_counts_from_where_a_run_was_resumed():
    stream = io.StringIO()
    console = Console(100, stream, interval=0.0)
    console.load_state({}, {"step": 90})
    assert console.state()[1] == {"step": 90}
    console.log(90, {})
    assert "  0 steps/s  left ?" in stream.getvalue()


def test_quiet_prints_errors_only():
    stream = io.StringIO()
    with Console(100, stream, interval=0.0, quiet=True) as console:
        console.log(10, {})
        console.message("a note")
        console.error("an error")
    assert stream.getvalue() == "an error\n"


def drain(terminal: int) -> str:
    """All that was written to a terminal whose other end is closed."""
    data = b""
    with suppress(OSError):  # Linux says end of file so
        while chunk := os.read(terminal, 100_000):
            data += chunk
    os.close(terminal)
    return data.decode()


def test_a_live_line_on_a_terminal_and_the_cursor_back_after_an_exception(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    parent, child = os.openpty()
    with os.fdopen(child, "w") as stream, pytest.raises(KeyboardInterrupt), Console(100, stream) as console:
        console.log(50, {"rollout/ep_rew_mean": 1.5})
        console.message("[a] note")
        raise KeyboardInterrupt
    shown = drain(parent)
    assert "50 / 100 steps" in shown and "[a] note\r\n" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # shown after it was last hidden
    assert shown.count("\n") == 2  # the live line was renewed in place; only the note and the end made new lines


# ------------------------------------------------------------------------------------------------------- loggers


class Failing(Logger):
    def __init__(self):
        self.calls = 0

    def log(self, step, metrics):
        self.calls += 1
        raise RuntimeError(f"gone at {step}")

    def state(self):
        raise RuntimeError("gone")


def test_one_failing_logger_is_reported_once_counted_and_harms_nobody(tmp_path, capsys):
    failing, good = Failing(), JsonLines(tmp_path / "m")
    logs = Loggers([failing, good])
    for step in range(3):
        logs.log(step, {})
    assert logs.failures == {"Failing": 3} and failing.calls == 3 and len(lines(tmp_path / "m")) == 3
    said = capsys.readouterr().err.splitlines()
    assert said[0] == (
        "logger Failing failed in log at step 0 (RuntimeError: gone at 0). Training goes on, and it is tried again:"
    )
    assert (
        said[1].startswith("Traceback") and said[-1] == "RuntimeError: gone at 0" and "failed" not in "".join(said[1:])
    )
    assert logs.state()[1] == {"JsonLines": {"bytes": (tmp_path / "m").stat().st_size}}


def test_a_logger_says_that_it_is_one():
    with pytest.raises(BadInput, match="a logger is a whorl.Logger that overrides what it can do; list is not"):
        Loggers([[]])


def test_each_call_goes_to_those_that_understand_it(tmp_path):
    stream = io.StringIO()
    with Loggers(
        [JsonLines(tmp_path / "a"), JsonLines(tmp_path / "b"), EpisodesCsv(tmp_path / "e"), Console(9, stream)]
    ) as logs:
        logs.log(1, {"x": 2.0})
        logs.add([Episode(1, 0, 3.0, 4)])
        logs.message("hello")
        position = json.loads(json.dumps(logs.state()[1]))
        assert position.keys() == {"JsonLines", "JsonLines 2", "EpisodesCsv", "Console"}
        logs.log(2, {"x": 2.0})
        logs.add([Episode(2, 0, 3.0, 4)])
        logs.load_state({}, position | {"Unknown": {"bytes": 0}})
    assert logs.failures == {}
    assert lines(tmp_path / "a") == lines(tmp_path / "b") == [{"step": 1, "x": 2.0}]
    assert (tmp_path / "e").read_text() == "step,env,return,length\n1,0,3.0,4\n"
    assert stream.getvalue().startswith("hello\n")


def test_a_logger_that_the_checkpoint_does_not_know_keeps_its_lines(tmp_path):
    logs = Loggers([JsonLines(tmp_path / "a")])
    logs.log(1, {})
    logs.load_state({}, {})
    assert len(lines(tmp_path / "a")) == 1


# --------------------------------------------------------------------------------------------------------- curve


def colours(path: Path) -> set[tuple[int, ...]]:
    return {tuple(pixel) for pixel in (imread(path)[..., :3] * 255).round().astype(int).reshape(-1, 3)}


def test_the_curve_shows_episodes_and_evaluations(tmp_path):
    run_folders.write(tmp_path, env="CartPole-v1", agent="ppo", seed=1)
    empty = draw_curve(tmp_path)
    assert empty == tmp_path / "curve.png" and not {BLUE, ORANGE} & colours(empty)

    episodes = EpisodesCsv(tmp_path / "episodes.csv")
    assert not {BLUE, ORANGE} & colours(draw_curve(tmp_path))  # only a header
    episodes.add([Episode(10 * i, 0, float(i % 7), 10) for i in range(300)])
    with open(tmp_path / "episodes.csv", "a") as file:
        file.write("3000,0,5")  # the running process is just writing this
    assert colours(draw_curve(tmp_path)) & {BLUE, ORANGE} == {BLUE}

    metrics = JsonLines(tmp_path / "metrics.jsonl")
    metrics.log(500, {"train/loss": 1.0})
    metrics.log(1000, {"eval/mean_reward": 3.0})
    metrics.log(1500, {"eval/mean_reward": math.nan})
    metrics.log(2000, {"eval/mean_reward": 4.0})
    assert colours(draw_curve(tmp_path)) & {BLUE, ORANGE} == {BLUE, ORANGE}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "curve.png", "episodes.csv", "metrics.jsonl"]


def test_the_curve_needs_a_run_folder(tmp_path):
    with pytest.raises(BadInput, match="is not a run folder: config.json is missing"):
        draw_curve(tmp_path)


def test_moving_mean_by_hand():
    assert moving_mean(np.array([1.0, 3.0, 5.0, 7.0]), 2).tolist() == [1.0, 2.0, 4.0, 6.0]
    assert moving_mean(np.array([]), 2).tolist() == []
    values = np.random.default_rng(0).normal(size=500)
    slow = [values[max(0, i - 99) : i + 1].mean() for i in range(500)]
    np.testing.assert_allclose(moving_mean(values, 100), slow, rtol=0, atol=1e-12)


def test_a_chart_draws_whatever_numbers_come():
    """Extremes, one point, a gap, none at all, letters of other alphabets."""
    ends = Series("é", np.array([1.0, 2.0]), np.array([-1e308, 1e308]), BLUE, line=True, dot=3)
    gap = Series("Ω", np.arange(4.0), np.array([0.0, 1.0, math.nan, 3.0]), ORANGE, line=True)
    none = Series("none", np.zeros(1), np.array([math.nan]), ORANGE, dot=3)
    wide, middle, empty = [imread(io.BytesIO(Chart("π", "x", "y", [one], "-").png())) for one in (ends, gap, none)]
    assert wide.shape == middle.shape == empty.shape == (540, 960, 3)
    orange = (middle[:, 400:] * 255).round() == ORANGE
    assert orange.all(2).sum() == 0, "nothing joins what the gap parts"
    assert ((wide[:, 300:800] * 255).round() == BLUE).all(2).any(0).all(), "one line from end to end"
    assert not ((empty * 255).round() == ORANGE).all(2).any()


@pytest.mark.parametrize("step", [-1, 2**63 - 1, 2**64])
def test_a_step_that_no_event_holds_is_no_step(step, tmp_path):
    with pytest.raises(Damaged, match="is no step that was logged"):
        TensorBoard(tmp_path).load_state({}, {"step": step})
