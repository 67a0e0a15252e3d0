"""The learning curve of a run as a picture."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np

from whorl.files import read_json, write
from whorl.training.folder import open_run

WINDOW = 100  # episodes in the moving mean
DOTS = 20_000  # more are thinned out: they would only cover each other


def draw_curve(run_folder: str | Path) -> Path:
    """Draws `curve.png` into the run folder and returns its path.

    Over environment steps: the return of each training episode (`episodes.csv`) as a dot, the mean of the last 100 (or
    of as many as there are) as a line, and the evaluations (`eval/mean_reward` in `metrics.jsonl`). Works while the run
    goes on and before anything has finished. Raises BadInput when `run_folder` is not a run folder.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    run = open_run(run_folder)
    steps, returns = _episodes(run / "episodes.csv")
    evaluated, scores = _evaluations(run / "metrics.jsonl")
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if len(steps):
        thin = slice(None, None, -(-len(steps) // DOTS))
        axes.plot(steps[thin], returns[thin], ".", color="C0", markersize=3, alpha=0.25, label="episode")
        axes.plot(steps[thin], moving_mean(returns, WINDOW)[thin], color="C0", label=f"mean of {WINDOW} episodes")
    if len(evaluated):
        axes.plot(evaluated, scores, "o-", color="C1", markersize=4, label="evaluation")
    if axes.has_data():
        axes.legend(loc="best")
    else:
        axes.text(0.5, 0.5, "no episode has finished yet", ha="center", va="center", transform=axes.transAxes)
    axes.set(xlabel="environment steps", ylabel="return", title=_title(run))
    axes.grid(alpha=0.3)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    write(run / "curve.png", picture.getvalue())
    return run / "curve.png"


def moving_mean(values: np.ndarray, window: int) -> np.ndarray:
    """[n] -> [n]: mean of values[max(0, i - window + 1) .. i]."""
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - window, 0)
    return (total[last] - total[first]) / (last - first)


def _episodes(path: Path) -> tuple[np.ndarray, np.ndarray]:
    lines = whole_lines(path)[1:]
    table = np.loadtxt(lines, delimiter=",", usecols=(0, 2), ndmin=2) if lines else np.empty((0, 2))
    return table[:, 0], table[:, 1]


def _evaluations(path: Path) -> tuple[list[int], list[float]]:
    rows = [json.loads(line) for line in whole_lines(path) if '"eval/mean_reward"' in line]
    rows = [row for row in rows if row["eval/mean_reward"] is not None]
    return [row["step"] for row in rows], [row["eval/mean_reward"] for row in rows]


def whole_lines(path: Path) -> list[str]:
    """The lines of a file that a running process may be appending to; none if it is not there."""
    text = path.read_text() if path.exists() else ""
    return text[: text.rfind("\n") + 1].splitlines()


def _title(run: Path) -> str:
    config = read_json(run / "config.json")
    agent, env = config.get("agent", run.parent.name), config.get("env", run.parent.parent.name)
    return f"{agent} on {env}, seed {config.get('seed', '?')}"
