"""The learning curve of a run as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from whorl.files import write
from whorl.training.chart import BLUE, ORANGE, PALE_BLUE, Chart, Series
from whorl.training.folder import open_run
from whorl.training.plot import evaluations
from whorl.training.written import read_config, read_episodes

WINDOW = 100  # episodes in the moving mean
DOTS = 20_000  # more are thinned out: they would only cover each other


def draw_curve(run_folder: str | Path) -> Path:
    """Draws `curve.png` into the run folder and returns its path.

    Over the progress of the run: the return of each training episode (`episodes.csv`) as a dot, the mean of the last 100 (or
    of as many as there are) as a line, and the evaluations (`eval/mean_reward` in `metrics.jsonl`). Works while the run
    goes on and before anything has finished. Raises BadInput when `run_folder` is not a run folder.
    """
    run = open_run(run_folder)
    written = read_config(run)
    s, episodes = written.settings, read_episodes(run / "episodes.csv")
    steps, returns = episodes[:, 0], episodes[:, 2]
    evaluated = evaluations(run)

    thin = slice(None, None, -(-len(steps) // DOTS) or None)
    x, mean = steps[thin], moving_mean(returns, WINDOW)[thin]
    series = [
        Series("episode", x, returns[thin], PALE_BLUE, dot=2.5),
        Series(f"mean of {WINDOW} episodes", x, mean, BLUE, line=True),
        Series("evaluation", evaluated.step, evaluated.mean, ORANGE, line=True, dot=3.5),
    ]
    title = f"{s.agent} on {s.env or run.parent.parent.name}, seed {s.seed}"
    chart = Chart(title, written.progress, "return", series, "no episode has finished yet")
    write(run / "curve.png", chart.png())
    return run / "curve.png"


def moving_mean(values: np.ndarray, window: int) -> np.ndarray:
    """[n] -> [n]: mean of values[max(0, i - window + 1) .. i]."""
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - window, 0)
    return (total[last] - total[first]) / (last - first)
