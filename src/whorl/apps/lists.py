"""`whorl list`: what there is. Torch is imported only for what needs it, so that `whorl list agents` answers at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from whorl.apps import arguments
from whorl.apps.board.forms import printable
from whorl.envs.ids import known_envs
from whorl.errors import BadInput, Damaged
from whorl.training.catalog import known_agents, presets
from whorl.transforms.words import described

Rows = Sequence[Sequence[str]]


def list(o: arguments.List) -> None:
    if o.compat or o.markdown:
        _compatibility(o)
    elif o.what == "runs":
        _runs(o.runs)
    else:
        print_table(TABLES[o.what]())


def _agents() -> Rows:
    return [("agent", "what it is"), *((name, listed.about) for name, listed in known_agents().items())]


def _envs() -> Rows:
    return [("environment", "stepped by"), *sorted(known_envs().items())]


def _presets() -> Rows:
    tuned = (
        (a, e, str(p.num_envs), f"{p.total_steps:,}", described(p.transforms), p.source)
        for a in known_agents()
        for e, p in presets(a).items()
    )
    return [("agent", "environment", "envs", "steps", "transforms", "source"), *tuned]


def _transforms() -> Rows:
    from whorl.transforms.chain import known_transforms

    return [("transform", "arguments", "what it does"), *((name, *row) for name, row in known_transforms().items())]


TABLES = {"agents": _agents, "envs": _envs, "transforms": _transforms, "presets": _presets}


def _runs(runs: Path) -> None:
    from whorl.training import folder

    rows: Any = [("run", "agent", "environment", "seed", "progress", "best mean")]
    problems = []
    for path in folder.runs_in(runs):
        try:
            rows.append(_run_row(path))
        except (BadInput, Damaged) as error:
            problems.append(error)
    print_table(rows)
    for problem in problems:
        print(f"whorl: {printable(str(problem))}", file=sys.stderr)
    if problems:
        sys.exit(Damaged.exit_code)


def print_table(rows: Rows, width: int = 160) -> None:
    """Print a table. rows: names of the columns first. width: where the output is no terminal."""
    table = Table(box=None, header_style="bold")
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows[1:]:
        table.add_row(*map(escape, row))
    Console(width=None if sys.stdout.isatty() else width).print(table)


def _compatibility(o: arguments.List) -> None:
    if o.what != "envs":
        raise BadInput(f"--compat and --markdown are about environments: whorl list envs, not {o.what}")
    from whorl.training import compatibility

    rows = compatibility.table()
    if o.markdown:
        print(compatibility.markdown(rows), end="")
        return
    body, notes = compatibility.cells(rows)
    print_table([compatibility.header(rows), *body], width=250)
    print("\n".join(["", *notes] if notes else []))


def _run_row(path: Path) -> tuple[str, ...]:
    from whorl.training.written import Result, read_config, read_result

    written = read_config(path).check()
    s, done = written.settings, read_result(path) or Result(_saved(path))
    progress = f"{done.steps:,} of {s.total_steps:,} {written.progress}"
    return str(path), s.agent, s.env, str(s.seed), progress, f"{done.best.mean:.1f}" if done.best else "-"


def _saved(path: Path) -> int:
    """How far the newest checkpoint of a run is."""
    from whorl.training import checkpoint

    return max((int(name.removeprefix("step_")) for name in checkpoint.steps(path / "checkpoints")), default=0)
