"""The learning curve of a run as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from whorl.files import write
from whorl.training.drawing import Panel, png
from whorl.training.folder import open_run
from whorl.training.plot import evaluations
from whorl.training.written import read_config, read_episodes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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

    def draw(axes: Axes) -> None:
        if len(steps):
            thin = slice(None, None, -(-len(steps) // DOTS))
            axes.plot(steps[thin], returns[thin], ".", color="C0", markersize=3, alpha=0.25, label="episode")
            axes.plot(steps[thin], moving_mean(returns, WINDOW)[thin], color="C0", label=f"mean of {WINDOW} episodes")
        if len(evaluated.step):
            axes.plot(evaluated.step, evaluated.mean, "o-", color="C1", markersize=4, label="evaluation")
        if axes.has_data():
            axes.legend(loc="best")
        else:
            axes.text(0.5, 0.5, "no episode has finished yet", ha="center", va="center", transform=axes.transAxes)

    title = f"{s.agent} on {s.env or run.parent.parent.name}, seed {s.seed}"
    write(run / "curve.png", png([Panel(title, written.progress, "return", draw)]))
    return run / "curve.png"


def moving_mean(values: np.ndarray, window: int) -> np.ndarray:
    """[n] -> [n]: mean of values[max(0, i - window + 1) .. i]."""
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - window, 0)
    return (total[last] - total[first]) / (last - first)
