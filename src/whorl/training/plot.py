"""Learning curves of many runs in one picture: evaluations during training, over the seeds of each setting."""

from __future__ import annotations

import glob
import io
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from whorl.errors import BadInput
from whorl.functional.statistics import bootstrap_interval, iqm
from whorl.training import folder
from whorl.training.grid import text

POINTS = 200  # of the common grid
PANEL = (8.0, 4.5)  # inches


@dataclass(frozen=True)
class Evaluations:
    """What a run was found worth during training, one number for each evaluation, in order."""

    step: np.ndarray  # [n] environment steps
    seconds: np.ndarray | None  # [n] of training so far; None if the run did not write them down
    mean: np.ndarray  # [n] over the episodes of the evaluation
    std: np.ndarray  # [n]

    def x(self, unit: str) -> np.ndarray | None:
        return self.seconds if unit == "seconds" else self.step


@dataclass(frozen=True)
class Curves:
    """One setting: what distinguishes it, and its seeds."""

    agent: str
    env: str
    options: dict[str, Any]  # num_envs and the agent's config, dotted where nested
    seeds: list[Evaluations]


def plot(runs: str | Path | Iterable[str | Path], out: str | Path, x: Literal["steps", "seconds"] = "steps") -> Path:
    """Draws the evaluation curves of runs into the PNG `out` and returns its path.

    runs: run folders, or patterns such as "runs/CartPole-v1/ppo/*" (matches that are no run are passed over). Runs that differ only
    in seed and length are one setting: a line for the IQM over its seeds with a 95% bootstrap band, a thin dashed one for the mean,
    where all of its seeds were evaluated; seeds are joined by straight lines between their evaluations. One panel per environment.
    x: environment steps, or seconds of training.

    Raises BadInput when there is no run, a run was never evaluated or (for seconds) did not write down the time, or the seeds of a
    setting have no stretch in common.
    """
    if x not in ("steps", "seconds"):
        raise BadInput(f"x is 'steps' or 'seconds', got {x!r}")
    if Path(out).suffix.lower() != ".png":
        raise BadInput(f"the picture is a PNG: its name ends in .png, got {out}")
    panels: dict[str, list[Curves]] = defaultdict(list)
    for curves in settings(find_runs(runs), x):
        panels[curves.env].append(curves)
    folder.make(Path(out).absolute().parent)
    folder.write(out, _draw(panels, x))
    return Path(out)


def find_runs(runs: str | Path | Iterable[str | Path]) -> list[Path]:
    """The run folders that paths and patterns name, each once, sorted. Raises BadInput for one that names none."""
    found: set[Path] = set()
    for name in [runs] if isinstance(runs, str | Path) else runs:
        if glob.has_magic(str(name)) and not Path(name).exists():
            matches = [Path(match) for match in glob.glob(str(name), recursive=True)]
            here = {match.resolve() for match in matches if (match / "config.json").is_file()}
            if not here:
                raise BadInput(f"no run folder matches {str(name)!r}; `whorl list runs` shows those that exist")
            found |= here
        else:
            found.add(folder.open_run(name))
    if not found:
        raise BadInput("there is nothing to plot: name at least one run folder")
    return sorted(found)


def evaluations(run: Path) -> Evaluations:
    """The rows of `metrics.jsonl` that an evaluation wrote, also while the run goes on."""
    path = run / "metrics.jsonl"
    whole = path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []
    rows = [json.loads(line) for line in whole if '"eval/mean_reward"' in line]
    rows = [row for row in rows if row["eval/mean_reward"] is not None]
    step, mean, std, seconds = (
        np.array([row.get(key) for row in rows], float)  # None becomes NaN
        for key in ("step", "eval/mean_reward", "eval/std_reward", "time/seconds")
    )
    return Evaluations(step.astype(np.int64), None if np.isnan(seconds).any() else seconds, mean, std)


def settings(runs: Iterable[Path], x: str = "steps") -> list[Curves]:
    """Runs by setting, in a fixed order. Raises BadInput as `plot` does."""
    found: dict[str, Curves] = {}
    for run in runs:
        data, curve = folder.read_json(run / "config.json"), evaluations(run)
        if not len(curve.step):
            raise BadInput(f"{run} has no evaluations to plot: it was not evaluated yet, or trained with eval_every=0")
        if curve.x(x) is None:
            raise BadInput(f"{run} did not write down the time of its evaluations: plot it over steps")
        options = {"num_envs": data["num_envs"]} | flat(data["config"])
        key = json.dumps([data["env"], data["agent"], options], sort_keys=True)
        found.setdefault(key, Curves(data["agent"], data["env"], options, [])).seeds.append(curve)
    return [found[key] for key in sorted(found)]


def over_seeds(curves: Curves, x: str) -> tuple[np.ndarray, np.ndarray]:
    """(grid [P], returns [seeds, P]) where every seed was evaluated, on a common grid of at most POINTS places.

    The places are those of the evaluations, thinned out; between its own, a seed's return is interpolated linearly. BadInput if there
    is no such stretch.
    """
    places: list[Any] = [seed.x(x) for seed in curves.seeds]
    begin, end = max(at[0] for at in places), min(at[-1] for at in places)
    grid = np.unique(np.concatenate(places))
    grid = grid[(begin <= grid) & (grid <= end)]
    if not len(grid):
        raise BadInput(
            f"the runs of {curves.agent} on {curves.env} were evaluated over different {x}: the last begins at {begin:.6g}, when one "
            f"has ended at {end:.6g}. Plot runs of similar length together"
        )
    grid = grid[np.linspace(0, len(grid) - 1, min(POINTS, len(grid))).round().astype(int)]
    return grid, np.stack([np.interp(grid, at, seed.mean) for at, seed in zip(places, curves.seeds)])


def band(values: np.ndarray) -> np.ndarray:
    """[runs, P] -> [3, P]: at each place the IQM over runs, and the ends of its 95% bootstrap interval.

    The numbers are those of `iqm` and `bootstrap_interval`, which take one place at a time.
    """
    if len(values) == 1:
        return np.repeat(values, 3, 0).astype(float)
    cut, resamples, found = len(values) // 4, _resamples(len(values)), []
    for scores in values.T:
        kept = np.sort(scores[resamples], 1)[:, cut : len(scores) - cut]
        found.append([iqm(scores), *np.quantile(kept.mean(1), [0.025, 0.975])])
    return np.array(found).T


@cache
def _resamples(runs: int) -> np.ndarray:
    """[resamples, runs]: which runs are in each of the samples that `bootstrap_interval` draws."""
    drawn: list[np.ndarray] = []

    def note(sample: np.ndarray) -> float:
        drawn.append(sample.astype(np.int64))
        return 0.0

    bootstrap_interval(np.arange(runs), note)
    return np.array(drawn)


def labels(panel: list[Curves]) -> list[str]:
    """Agent, the options in which it differs from the other settings of the same agent, and the number of seeds."""
    found = []
    for curves in panel:
        same = [other.options for other in panel if other.agent == curves.agent]
        names = [name for name in curves.options if any(other.get(name) != curves.options[name] for other in same)]
        options = "".join(f" {name}={text(curves.options[name])}" for name in names)
        n = len(curves.seeds)
        found.append(f"{curves.agent}{options}, {n} seed{'s' if n > 1 else ''}")
    return found


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"feed": {"steps": 5}} -> {"feed.steps": 5}."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _draw(panels: dict[str, list[Curves]], x: str) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(PANEL[0], PANEL[1] * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    for number, (env, panel) in enumerate(sorted(panels.items()), 1):
        axes = figure.add_subplot(len(panels), 1, number)
        for i, (curves, label) in enumerate(zip(panel, labels(panel))):
            grid, returns = over_seeds(curves, x)
            middle, low, high = band(returns)
            color, mark = f"C{i % 10}", "o" if len(grid) == 1 else ""
            axes.plot(grid, middle, color=color, marker=mark, label=label)
            if len(returns) > 1:
                axes.fill_between(grid, low, high, color=color, alpha=0.2, linewidth=0)
                axes.plot(grid, returns.mean(0), color=color, marker=mark, linewidth=0.8, linestyle="--")
        axes.legend(loc="best", fontsize="small", title="IQM, 95% interval; dashed: mean", title_fontsize="small")
        unit = "environment steps" if x == "steps" else "seconds of training"
        axes.set(xlabel=unit, ylabel="return in evaluation", title=env)
        axes.grid(alpha=0.3)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    return picture.getvalue()
