"""Curves of many runs in one picture: which runs, which settings, which numbers."""

from __future__ import annotations

import json
import os

import imageio.v3 as imageio
import numpy as np
import pytest

import whorl
from tests.training import run_folders
from whorl.errors import BadInput
from whorl.functional.bands import iqm_band
from whorl.functional.statistics import bootstrap_interval, iqm
from whorl.training import curve
from whorl.training import plot as plot_module
from whorl.training.chart import Chart
from whorl.training.drawing import Panel
from whorl.training.plot import Curves, Evaluations, evaluations, find_runs, labels, over_seeds, plot, settings


@pytest.fixture
def write(tmp_path):
    """(rows of (step, mean), options) -> a run folder with what a plot looks at."""
    count = iter(range(1000))

    def one(rows, agent="ppo", env="CartPole-v1", num_envs=8, seconds=True, seed=None, limit=None, **config):
        number = next(count)
        path = tmp_path / "runs" / env / agent / f"{number:03d}"
        path.mkdir(parents=True)
        settings = {"seed": number if seed is None else seed, "num_envs": num_envs, "max_episode_steps": limit}
        run_folders.write(path, run_folders.CONFIG | config, agent=agent, env=env, **settings)
        lines = [{"step": 1, "time/fps": 3.0, "time/seconds": 0.1}]
        for step, mean in rows:
            time = {"time/seconds": step / 10} if seconds else {}
            lines.append({"step": step, "eval/mean_reward": mean, "eval/std_reward": 1.0} | time)
        (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    return one


def size(picture):
    return imageio.imread(picture).shape[:2]


def test_a_real_run_is_drawn(tmp_path):
    run = whorl.train(
        "a2c", "CartPole-v1", total_steps=600, num_envs=8, eval_every=200, eval_episodes=8, quiet=True, runs=tmp_path
    )
    found = evaluations(run.path)
    assert len(found.step) >= 3 and found.seconds is not None and (np.diff(found.seconds) > 0).all()
    for x in ("steps", "seconds"):
        assert plot(run.path, tmp_path / "new" / f"{x}.png", x) == tmp_path / "new" / f"{x}.png"
    pictures = [imageio.imread(tmp_path / "new" / f"{x}.png") for x in ("steps", "seconds")]
    assert pictures[0].std() > 10 and (pictures[0] != pictures[1]).any()


def test_the_x_axis_is_the_progress_of_the_run_in_its_unit(write, tmp_path, monkeypatch):
    shown: list[Chart | Panel] = []
    monkeypatch.setattr(Chart, "png", lambda chart: shown.append(chart) or b"")
    monkeypatch.setattr(plot_module, "png", lambda panels: shown.extend(panels) or b"")
    online, offline = write([(10, 1.0)]), write([(10, 1.0)])
    run_folders.change(offline, progress="updates")
    for run in (online, offline):
        curve.draw_curve(run)
    plot([online, offline], tmp_path / "steps.png")
    plot([online, offline], tmp_path / "seconds.png", "seconds")
    assert [panel.x for panel in shown] == ["environment steps", "updates"] * 2 + ["seconds of training"]


def test_every_environment_has_a_panel(write, tmp_path):
    for env in ("CartPole-v1", "Pendulum-v1", "Acrobot-v1"):
        write([(10, 1.0), (20, 2.0)], env=env)
    one = plot(str(tmp_path / "runs" / "CartPole-v1" / "*" / "*"), tmp_path / "one.png")
    three = plot(str(tmp_path / "runs" / "**"), tmp_path / "three.png")
    assert size(three) == (3 * size(one)[0], size(one)[1])


def test_seeds_of_one_setting_are_one_curve(write):
    write([(10, 1.0)], discount=0.9)
    runs = [write([(10, 1.0)]) for _ in range(3)] + [write([(10, 1.0)], num_envs=4), write([(10, 1.0)], agent="a2c")]
    runs.append(write([(10, 1.0)], discount=0.9))
    found = settings(runs)
    assert [(c.agent, c.options["num_envs"], c.options["discount"], len(c.seeds)) for c in found] == [
        ("a2c", 8, 0.99, 1),
        ("ppo", 8, 0.9, 1),
        ("ppo", 4, 0.99, 1),
        ("ppo", 8, 0.99, 3),
    ]
    assert found[0].options == {
        "num_envs": 8,
        "max_episode_steps": None,
        "discount": 0.99,
        "hidden": [64, 64],
        "feed.steps": 5,
    }


def test_a_seed_counts_once_and_a_time_limit_makes_another_setting(write):
    long, short = write([(10, 1.0), (90, 5.0)], seed=0), write([(10, 2.0)], seed=0)
    old, new = write([(10, 3.0)], seed=1), write([(10, 4.0)], seed=1)
    os.utime(old / "metrics.jsonl", (1, 1))
    limited = write([(10, 6.0)], seed=0, limit=50)
    for runs in ([long, short, old, new, limited], [limited, new, old, short, long]):
        found = settings(runs)
        means = [sorted(seed.mean[-1] for seed in curves.seeds) for curves in found]
        assert sorted(means) == [[4.0, 5.0], [6.0]], "the longest, then the newest"
        assert sorted(labels(found)) == ["ppo max_episode_steps=50, 1 seed", "ppo max_episode_steps=none, 2 seeds"]


def test_matches_that_were_never_evaluated_are_left_out(write, tmp_path, caplog):
    run, empty = write([(10, 1.0), (20, 2.0)]), write([])
    pattern = str(tmp_path / "runs" / "*" / "*" / "*")
    assert find_runs(pattern) == [run.resolve()]
    assert caplog.messages == [f"whorl: not drawn, they have no evaluations: {empty.resolve()}"]
    with pytest.raises(BadInput, match="has no evaluations to plot"):
        plot([pattern, str(empty)], tmp_path / "out.png")
    with pytest.raises(BadInput, match="no run that matches '.*' has evaluations to plot"):
        plot(f"{empty}*", tmp_path / "out.png")


def test_the_legend_says_what_differs_between_settings_of_an_agent(write):
    runs = [
        write([(10, 1.0)], hidden=hidden, feed={"steps": steps})
        for hidden, steps in (([64, 64], 5), ([32], 7), ([32], 7))
    ]
    assert labels(settings([*runs, write([(10, 1.0)], agent="a2c")])) == [
        "a2c, 1 seed",
        "ppo hidden=64x64 feed.steps=5, 1 seed",
        "ppo hidden=32 feed.steps=7, 2 seeds",
    ]


def test_a_curve_is_where_every_seed_was_evaluated_with_straight_lines_between():
    def points(step, mean):
        step = np.array(step)
        return Evaluations(step, step / 2, np.array(mean, float), np.zeros(len(step)))

    curves = Curves("ppo", "E", {}, [points([0, 10, 20], [0, 10, 30]), points([5, 15, 40], [1, 3, 8])])
    grid, returns = over_seeds(curves, "steps")
    assert grid.tolist() == [5, 10, 15, 20]
    assert returns.tolist() == [[5, 10, 20, 30], [1, 2, 3, 4]]
    assert over_seeds(curves, "seconds")[0].tolist() == [2.5, 5, 7.5, 10]
    long = points(range(100_000), range(100_000))
    grid, returns = over_seeds(Curves("ppo", "E", {}, [long]), "steps")
    assert len(grid) == 200 and grid[0] == 0 and grid[-1] == 99_999 and (returns[0] == grid).all()


def test_a_band_is_the_bootstrap_interval_of_the_iqm_at_each_place():
    values = np.random.default_rng(1).normal(size=(7, 3))
    middle, low, high = iqm_band(values)
    for i in range(3):
        assert middle[i] == iqm(values[:, i])
        assert (low[i], high[i]) == pytest.approx(bootstrap_interval(values[:, i]), rel=1e-12)
    assert iqm_band(values[:1]).tolist() == [values[0].tolist()] * 3
    assert (iqm_band(np.array([[1.0], [2.0]]))[1:, 0] == [1.0, 2.0]).all()


def test_runs_are_found_by_path_and_pattern_each_once(write, tmp_path):
    runs = [write([(10, 1.0)]), write([(10, 1.0)])]
    (tmp_path / "runs" / "last").symlink_to(runs[0])
    (tmp_path / "runs" / "CartPole-v1" / "ppo" / "notes").mkdir()
    pattern = str(tmp_path / "runs" / "CartPole-v1" / "*" / "*")
    assert (
        find_runs([pattern, runs[0], tmp_path / "runs" / "last"]) == find_runs(pattern) == [r.resolve() for r in runs]
    )
    assert find_runs(runs[1]) == [runs[1].resolve()]
    odd = runs[0].rename(runs[0].with_name("a[1]"))
    assert find_runs(str(odd)) == [odd.resolve()], "a folder that exists is no pattern"
    (tmp_path / "runs").rename(tmp_path / "runs [1]")
    moved = [tmp_path / "runs [1]" / "CartPole-v1" / "ppo" / name for name in (runs[1].name, odd.name)]
    inside = str(tmp_path / "runs [1]" / "CartPole-v1" / "*" / "[0a]*")
    assert find_runs(inside) == [run.resolve() for run in moved], "the folders that are there are not, either"


def test_a_row_that_is_being_written_and_one_that_was_not_finite_are_passed_over(write):
    run = write([(10, 1.0), (20, None), (30, 3.0)])
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 40, "eval/mean_reward": 4')
    assert evaluations(run).step.tolist() == [10, 30] and evaluations(run).mean.tolist() == [1.0, 3.0]
    assert evaluations(run / "nowhere").step.tolist() == []


def test_what_cannot_be_plotted(write, tmp_path):
    run, out = write([(10, 1.0)]), tmp_path / "out.png"
    for runs, message in (
        (str(tmp_path / "none" / "*"), "no run folder matches '.*none/\\*'"),
        (tmp_path / "none", "is not a run folder: there is no folder"),
        ([], "there is nothing to plot: name at least one run folder"),
        (write([]), "has no evaluations to plot: it was not evaluated yet, or trained with eval_every=0"),
        (
            [run, write([(20, 1.0), (30, 1.0)])],
            "the runs of ppo on CartPole-v1 were evaluated over different steps: the last begins at 20",
        ),
    ):
        with pytest.raises(BadInput, match=message):
            plot(runs, out)
    with pytest.raises(BadInput, match="did not write down the time of its evaluations: plot it over steps"):
        plot(write([(10, 1.0)], seconds=False), out, "seconds")
    with pytest.raises(BadInput, match="x is 'steps' or 'seconds', got 'episodes'"):
        plot(run, out, "episodes")
    with pytest.raises(BadInput, match=r"its name ends in .png, got .*out.pdf"):
        plot(run, tmp_path / "out.pdf")
    assert not out.exists()
