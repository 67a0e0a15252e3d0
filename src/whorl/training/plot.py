"""Learning curves of many runs in one picture: evaluations during training, over the seeds of each setting."""

from __future__ import annotations

import glob
import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from whorl import files, folders
from whorl.errors import BadInput
from whorl.functional.bands import iqm_band
from whorl.training import folder
from whorl.training.drawing import Panel, png
from whorl.training.grid import text
from whorl.training.written import read_config, read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 200  # of the common grid
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluations:
    """What a run was found worth during training, one number for each evaluation, in order."""

    step: np.ndarray  # [n] progress of the run so far, in its unit
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
    options: dict[str, Any]  # num_envs, max_episode_steps and the agent's config, dotted where nested
    seeds: list[Evaluations]
    progress: str = "environment steps"  # or "updates": the unit of Evaluations.step


def plot(runs: str | Path | Iterable[str | Path], out: str | Path, x: Literal["steps", "seconds"] = "steps") -> Path:
    """Draws the evaluation curves of runs into the PNG `out` and returns its path.

    runs: run folders, folders of sweeps, or patterns such as "runs/CartPole-v1/ppo/*" (matches that are no run, or were never
    evaluated, are passed over). Runs that differ only in seed and length are one setting, in which a seed counts once (the longest run,
    then the newest): a line for the IQM over its seeds with a 95% bootstrap band, a thin dashed one for the mean, where all of its seeds
    were evaluated; seeds are joined by straight lines between their evaluations. One panel per environment, and per unit in which the
    progress of its runs is counted.
    x: steps (the progress of a run, in its unit), or seconds of training.

    Raises BadInput when there is no run, a run was never evaluated or (for seconds) did not write down the time, or the seeds of a
    setting have no stretch in common.
    """
    if x not in ("steps", "seconds"):
        raise BadInput(f"x is 'steps' or 'seconds', got {x!r}")
    if Path(out).suffix.lower() != ".png":
        raise BadInput(f"the picture is a PNG: its name ends in .png, got {out}")
    found: dict[tuple[str, str], list[Curves]] = defaultdict(list)
    for curves in settings(find_runs(runs), x):
        found[curves.env, curves.progress if x == "steps" else "seconds of training"].append(curves)
    panels = [
        _panel(*key, [(label, *over_seeds(one, x)) for label, one in zip(labels(panel), panel)])
        for key, panel in sorted(found.items())
    ]
    folders.make(Path(out).absolute().parent)
    files.write(out, png(panels))
    return Path(out)


def find_runs(runs: str | Path | Iterable[str | Path]) -> list[Path]:
    """The run folders that paths and patterns name, each once, sorted. Raises BadInput for one that names none.

    Of the matches of a pattern, those without evaluations are left out with a warning; BadInput if that leaves none.
    """
    found: set[Path] = set()
    for name in [runs] if isinstance(runs, str | Path) else runs:
        of_sweep = (Path(name) / "sweep.json").is_file()
        if of_sweep or (glob.has_magic(str(name)) and not Path(name).exists()):
            matches = folder.runs_in(name) if of_sweep else _matches(Path(name))
            here = {match.resolve() for match in matches if (match / "config.json").is_file()}
            if not here:
                raise BadInput(f"no run folder matches {str(name)!r}; `whorl list runs` shows those that exist")
            empty = {run for run in here if not len(evaluations(run).step)}
            if empty == here:
                raise BadInput(
                    f"no run that matches {str(name)!r} has evaluations to plot: was it trained with eval_every=0?"
                )
            if empty:
                _log.warning("whorl: not drawn, they have no evaluations: %s", ", ".join(map(str, sorted(empty))))
            found |= here - empty
        else:
            found.add(folder.open_run(name))
    if not found:
        raise BadInput("there is nothing to plot: name at least one run folder")
    return sorted(found)


def _matches(pattern: Path) -> list[Path]:
    """What matches. The folders that are there as they are written are no part of the pattern, whatever is in their names."""
    parts = pattern.parts
    known = next(n for n in range(len(parts), -1, -1) if Path(*parts[:n]).exists())
    inside = Path(*parts[:known])
    return [inside / match for match in glob.glob(str(Path(*parts[known:])), root_dir=inside, recursive=True)]


def evaluations(run: Path) -> Evaluations:
    """The rows of `metrics.jsonl` that an evaluation wrote, also while the run goes on."""
    rows = read_metrics(run, "eval/mean_reward")
    step, mean, std, seconds = (
        np.array([row.get(key) for row in rows], float)  # None becomes NaN
        for key in ("step", "eval/mean_reward", "eval/std_reward", "time/seconds")
    )
    return Evaluations(step.astype(np.int64), None if np.isnan(seconds).any() else seconds, mean, std)


def settings(runs: Iterable[Path], x: str = "steps") -> list[Curves]:
    """Runs by setting, in a fixed order; of several runs of one seed the longest, then the newest. Raises BadInput as `plot` does."""
    found: dict[str, tuple[Curves, dict[Any, Any]]] = {}  # setting -> seed -> (how long and new, its evaluations)
    for run in runs:
        written, curve = read_config(run).check(), evaluations(run)
        if not len(curve.step):
            raise BadInput(f"{run} has no evaluations to plot: it was not evaluated yet, or trained with eval_every=0")
        if curve.x(x) is None:
            raise BadInput(f"{run} did not write down the time of its evaluations: plot it over steps")
        s = written.settings
        options = {name: getattr(s, name) for name in ("num_envs", "max_episode_steps")} | flat(written.config)
        key = json.dumps([s.env, s.agent, options, written.progress], sort_keys=True)
        _, seeds = found.setdefault(key, (Curves(s.agent, s.env, options, [], written.progress), {}))
        age = (int(curve.step[-1]), (run / "metrics.jsonl").stat().st_mtime_ns)
        if s.seed not in seeds or age >= seeds[s.seed][0]:
            seeds[s.seed] = age, curve
    for curves, seeds in found.values():
        curves.seeds.extend(curve for _, curve in seeds.values())
    return [found[key][0] for key in sorted(found)]


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


def flat(config: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """{"feed": {"steps": 5}} -> {"feed.steps": 5}."""
    found: dict[str, object] = {}
    for name, value in config.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _panel(title: str, x: str, lines: list[tuple[str, np.ndarray, np.ndarray]]) -> Panel:
    """lines: (label, grid, returns) of each setting."""

    def draw(axes: Axes) -> None:
        for i, (label, grid, returns) in enumerate(lines):
            middle, low, high = iqm_band(returns)
            color, mark = f"C{i % 10}", "o" if len(grid) == 1 else ""
            axes.plot(grid, middle, color=color, marker=mark, label=label)
            if len(returns) > 1:
                axes.fill_between(grid, low, high, color=color, alpha=0.2, linewidth=0)
                axes.plot(grid, returns.mean(0), color=color, marker=mark, linewidth=0.8, linestyle="--")
        axes.legend(loc="best", fontsize="small", title="IQM, 95% interval; dashed: mean", title_fontsize="small")

    return Panel(title, x, "return in evaluation", draw)
