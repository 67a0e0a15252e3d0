"""`progress.csv`: one table of all metrics, as rllab wrote it and its plot tools (viskit) read it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from whorl.batch import Arrays, Numbers, State
from whorl.files import Lines, whole_lines, write
from whorl.training.loggers import Logger


class ProgressCsv(Logger):
    """A header and one row per call, `step` first; a cell is empty where a call had no such metric. A metric that comes up later is a
    new last column: the file is written anew at once, so that a reader always finds a whole table."""

    def __init__(self, path: str | Path):
        self._path = Path(path)
        self._open()

    def _open(self) -> None:
        lines = whole_lines(self._path)
        self._columns = next(csv.reader(lines[:1]), ["step"])
        self._rows = max(0, len(lines) - 1)
        self._lines = Lines(self._path)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Raises OSError, leaving no half line, when the disk is full."""
        new = [name for name in metrics if name not in self._columns]
        if new or not self._rows:
            self._write(self._columns + new, self._rows)
        values = {"step": int(step), **metrics}
        self._lines.append(_line([_text(values.get(name)) for name in self._columns]))
        self._rows += 1

    def _write(self, columns: list[str], rows: int) -> None:
        """The first `rows` rows, under these columns."""
        table = list(csv.reader(whole_lines(self._path)))[1 : rows + 1]
        self._lines.close()
        try:
            padded = [row + [""] * (len(columns) - len(row)) for row in table]
            write(self._path, "".join(map(_line, [columns, *padded])).encode())
        finally:
            self._open()

    def state(self) -> State:
        return {}, {"rows": self._rows} | self._lines.position()

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        """Takes the later rows out."""
        if numbers["rows"] < self._rows:
            self._write(self._columns, numbers["rows"])
        return True

    def close(self) -> None:
        self._lines.close()


def _text(value: float | None) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else repr(float(value))


def _line(cells: list[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow(cells)
    return out.getvalue()
