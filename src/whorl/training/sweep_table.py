"""What came out of a sweep: one row per setting over its seeds, as CSV and as a picture."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from whorl.errors import Damaged
from whorl.files import write
from whorl.folders import Folder
from whorl.functional.statistics import bootstrap_interval, iqm
from whorl.options import CHANGED
from whorl.training.drawing import Panel, png
from whorl.training.grid import Setting, describe, text
from whorl.training.written import read_result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LAST = 100  # training episodes at the end of each run
COLUMNS = ("iqm", "low", "high", "seeds", "last_100")


@dataclass(frozen=True)
class Row:
    """One setting. Numbers are None while no run of it is finished."""

    setting: Setting
    iqm: float | None  # interquartile mean over the seeds of the best checkpoint's mean return in the final evaluation
    low: float | None  # 95% bootstrap interval of the IQM
    high: float | None
    seeds: int  # finished runs
    last_100: float | None  # mean return of the last 100 training episodes, averaged over the seeds that finished any

    def cells(self) -> list[str]:
        """As text, one cell per column of the table."""
        interval = "-" if self.low is None else f"{self.low:.1f} to {self.high:.1f}"
        numbers = ["-" if number is None else f"{number:.1f}" for number in (self.iqm, self.last_100)]
        return [*map(text, self.setting.values()), numbers[0], interval, str(self.seeds), numbers[1]]


def header(fields: list[str]) -> list[str]:
    """The names above `Row.cells`."""
    return [*fields, "IQM", "95% interval", "seeds", f"last {LAST} episodes"]


def table(finished: list[tuple[Setting, list[Path]]]) -> list[Row]:
    """Settings with the folders of their finished runs -> rows, best first; settings without a finished run at the end."""
    rows = [_row(setting, runs) for setting, runs in finished]
    return sorted(rows, key=lambda row: -np.inf if row.iqm is None else row.iqm, reverse=True)


def _row(setting: Setting, runs: list[Path]) -> Row:
    if not runs:
        return Row(setting, None, None, None, 0, None)
    found = [read_result(run) for run in runs]
    scores = [one.best.mean for one in found if one and one.best]  # a run that was never evaluated has none
    if not scores:
        return Row(setting, None, None, None, len(runs), None)
    last = [newest[:, 1].mean() for run in runs if len(newest := last_episodes(run / "episodes.csv"))]
    low, high = bootstrap_interval(scores)
    return Row(setting, iqm(scores), low, high, len(scores), float(np.mean(last)) if last else None)


def last_episodes(path: Path, number: int = LAST) -> np.ndarray:
    """[n, 2] step and return of the newest episodes, at most `number`, in an `episodes.csv`. Reads the end of the file only."""
    with Folder(path.parent) as folder, folder.file(path.name) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 200 * number))  # a line is shorter than 200 bytes
        lines = file.read().splitlines()[1:]  # without the header, or a line cut in two
    try:
        cells = [line.split(b",") for line in lines[-number:]]
        return np.array([(float(cell[0]), float(cell[2])) for cell in cells]).reshape(-1, 2)
    except (ValueError, IndexError) as error:
        raise Damaged(f"{path} should hold four numbers a line ({error}): {CHANGED}") from None


def write_csv(path: Path, rows: list[Row]) -> None:
    """Full precision; an empty cell for what is not known."""
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow([*rows[0].setting, *COLUMNS])
    lines.writerows([*map(text, row.setting.values()), *(getattr(row, name) for name in COLUMNS)] for row in rows)
    write(path, out.getvalue().encode())


def draw(path: Path, rows: list[Row], title: str) -> None:
    """The IQM of each setting with its interval, best on top."""
    known = [row for row in rows if row.iqm is not None][::-1]
    middle = np.array([row.iqm for row in known])
    reach = [middle - [row.low for row in known], [row.high for row in known] - middle]

    def dots(axes: Axes) -> None:
        axes.errorbar(middle, np.arange(len(known)), xerr=np.maximum(reach, 0), fmt="o", color="C0", capsize=3)
        axes.set_yticks(range(len(known)), [describe(row.setting) for row in known])

    write(path, png([Panel(title, "return: IQM over seeds with 95% interval", "", dots)], 1.5 + 0.3 * len(rows)))
