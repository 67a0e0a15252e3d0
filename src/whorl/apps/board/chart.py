"""The geometry of the page's pictures: learning curves, histograms and intervals as numbers and SVG paths.

No markup here: the templates draw, and escape. Lengths are in the units of the picture's view box.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from whorl.errors import BadInput
from whorl.functional.bands import iqm_band
from whorl.training.plot import Curves, Evaluations, over_seeds
from whorl.training.scales import decimals as decimals
from whorl.training.scales import number as number
from whorl.training.scales import ticks as ticks
from whorl.training.scales import widened

POINTS = 40  # of a line: more would not be seen

Tick = tuple[float, str]  # where, and what is written there
Scale = Callable[[Any], Any]  # a number or an array of them to places


@dataclass(frozen=True)
class Curve:
    """One setting as SVG paths: the IQM over its seeds ("" if they have no stretch in common), its 95% bootstrap interval ("" with
    one seed), and each seed."""

    line: str
    band: str
    seeds: list[str]


@dataclass(frozen=True)
class Chart:
    """Learning curves over one x axis."""

    unit: str  # steps or seconds
    curves: list[Curve]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    threshold: float | None  # y of the reward threshold, where it can be seen

    width, height, left, right, top, bottom = 640.0, 340.0, 66.0, 630.0, 10.0, 298.0


@dataclass(frozen=True)
class Histogram:
    bars: str  # all of them, one SVG path
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    mean: float  # x of the mean

    width, height, left, right, top, bottom = 640.0, 340.0, 66.0, 630.0, 10.0, 298.0


@dataclass(frozen=True)
class Whisker:
    """A point with its interval: three places on one line."""

    low: float
    middle: float
    high: float

    width, height = 120.0, 12.0


def chart(unit: str, settings: Sequence[Curves], threshold: float | None = None) -> Chart | None:
    """The learning curves of `settings` over steps or seconds. None if no seed has two evaluations there."""
    settings = [replace(s, seeds=[seed for seed in s.seeds if _drawable(seed, unit)]) for s in settings]
    seeds = [seed for setting in settings for seed in setting.seeds]
    if not seeds:
        return None
    low, high = float(min(seed.mean.min() for seed in seeds)), float(max(seed.mean.max() for seed in seeds))
    if threshold is not None and low - (high - low) <= threshold <= high + (high - low):
        low, high = min(low, threshold), max(high, threshold)
    else:
        threshold = None  # far away: it would press the curves together
    low, high = widened(low, high)
    last = widened(0.0, float(max(_x(seed, unit)[-1] for seed in seeds)))[1]
    x, y = _scale((0.0, last), (Chart.left, Chart.right)), _scale((low, high), (Chart.bottom, Chart.top))
    return Chart(
        unit,
        [_curve(setting, unit, x, y) for setting in settings],
        [(float(x(at)), text) for at, text in _labels(unit, last)],
        [(float(y(at)), number(at)) for at in ticks(low, high, 6)],
        None if threshold is None else float(y(threshold)),
    )


def _x(seed: Evaluations, unit: str) -> np.ndarray:
    x = seed.x(unit)
    return np.empty(0) if x is None else x


def _drawable(seed: Evaluations, unit: str) -> bool:
    return len(_x(seed, unit)) > 1


def _scale(numbers: tuple[float, float], places: tuple[float, float]) -> Scale:
    """The linear map that takes the ends of `numbers` to those of `places`."""
    (low, high), (begin, end) = numbers, places
    return lambda value: begin + (value - low) / ((high - low) or 1) * (end - begin)


def _curve(setting: Curves, unit: str, x: Scale, y: Scale) -> Curve:
    def path(at: np.ndarray, values: np.ndarray) -> str:
        return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x(at), y(values)))

    seeds = []
    for seed in setting.seeds:
        keep = _thin(len(seed.mean))
        seeds.append(path(_x(seed, unit)[keep], seed.mean[keep]))
    try:
        grid, returns = over_seeds(setting, unit)
    except (BadInput, ValueError):  # the seeds have no stretch in common; there is no seed
        return Curve("", "", seeds)
    keep = _thin(len(grid))
    grid, (middle, low, high) = grid[keep], iqm_band(returns[:, keep])
    around = path(np.concatenate([grid, grid[::-1]]), np.concatenate([high, low[::-1]])) + "Z"
    return Curve(path(grid, middle), around if len(returns) > 1 else "", seeds)


def _thin(points: int) -> np.ndarray:
    """Which of so many points are drawn: at most POINTS, the first and the last among them."""
    return np.linspace(0, points - 1, min(POINTS, points)).round().astype(int)


def _labels(unit: str, last: float) -> list[Tick]:
    """Round numbers up to `last`: 50k steps, or seconds, minutes or hours."""
    if unit == "steps":
        return [(at, steps_text(at)) for at in ticks(0, last, 7)]
    size, name = next((s, n) for s, n in ((3600, "h"), (60, "min"), (0, "s")) if last >= 2 * s)
    return [(at * (size or 1), f"{at:.4g} {name}") for at in ticks(0, last / (size or 1), 7)]


def histogram(values: Sequence[float], bars: int = 20) -> Histogram:
    """How often which return came, in bars of equal width."""
    count, edges = np.histogram(values, bars, widened(min(values), max(values)))
    most = int(count.max())
    x = _scale((float(edges[0]), float(edges[-1])), (Histogram.left, Histogram.right))
    y = _scale((0, most), (Histogram.bottom, Histogram.top))
    width = (Histogram.right - Histogram.left) / bars
    drawn = "".join(
        f"M{Histogram.left + i * width + 1:.1f} {Histogram.bottom}V{y(n):.1f}h{width - 2:.1f}V{Histogram.bottom}Z"
        for i, n in enumerate(count.tolist())
        if n
    )
    marks = [(float(x(at)), number(at)) for at in ticks(edges[0], edges[-1], 8)]
    heights = [(float(y(at)), number(at)) for at in ticks(0, most, 5) if at == int(at)]
    return Histogram(drawn, marks, heights, float(x(np.mean(values))))


def whisker(low: float, middle: float, high: float, span: tuple[float, float]) -> Whisker:
    """An interval on the scale `span`, which all rows of a table share."""
    x = _scale(span, (4, Whisker.width - 4))
    return Whisker(*(float(x(value)) for value in (low, middle, high)))


def steps_text(value: float) -> str:
    """50k, 1.2M."""
    size, letter = next((s, n) for s, n in ((1e9, "G"), (1e6, "M"), (1e3, "k"), (0, "")) if abs(value) >= s)
    return f"{float(f'{value / (size or 1):.3g}'):g}{letter}"


def seconds_text(value: float) -> str:
    """40 s, 12 min, 3.5 h."""
    if value < 120:
        return f"{value:.3g} s"
    return f"{value / 60:.3g} min" if value < 7200 else f"{value / 3600:.3g} h"
