"""What the templates show: rows and entries as texts and numbers. Nothing here is markup."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from whorl.apps.board import chart
from whorl.apps.board.entry import Entry
from whorl.apps.board.forms import OF_ENV
from whorl.apps.board.rank import Row
from whorl.apps.board.references import Reference
from whorl.training.plot import Curves, Evaluations, flat

DRAWN = 8  # rows with a learning curve: as many as there are line styles
SHOWN = 6  # options of a row that stand beside its agent
OTHERS = 100  # rows that a run's config can be compared with
COMPARED = 200  # options in such a comparison
DASH, NONE = "\N{EN DASH}", "(no such option)"

View = dict[str, Any]


def slugs(envs: Iterable[str]) -> dict[str, str]:
    """Environment -> the name of its page's file: letters, digits, "." "_" "-", no two alike on any file system."""
    names = {env: re.sub(r"[^A-Za-z0-9._-]+", "_", env).lstrip(".")[:80] for env in envs}
    taken = Counter(name.lower() for name in names.values())
    return {
        env: name if name == env and taken[name.lower()] == 1 else f"{name}-{_digest(env)}"
        for env, name in names.items()
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:8]


def count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def counts(entries: Sequence[Entry], rows: int) -> View:
    return {
        "runs": count(len(entries), "run"),
        "settings": count(rows, "setting"),
        "envs": count(len({entry.world for entry in entries}), "environment"),
    }


def text(value: Any) -> str:
    """A value of a config as JSON, so that the string "1" is not the number. What is cut off leaves its hash."""
    whole = json.dumps(value, ensure_ascii=False)
    return whole if len(whole) <= 300 else f"{whole[:280]}... #{_digest(whole)}"


def short(value: Any) -> str:
    """A value where there is little room: lists as 64x64."""
    if isinstance(value, list) and value and all(type(item) is int for item in value):
        found = "x".join(map(str, value))
    elif type(value) is int:
        found = f"{value:,}"
    else:
        found = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found if len(found) <= 60 else f"{found[:57]}..."


# ------------------------------------------------------------------------------------------------ an environment


def environment(rows: Sequence[Row], published: Sequence[Reference] = ()) -> View:
    """One environment's tables and curves. rows: ranked."""
    entries = [entry for row in rows for entry in [*row.entries, *row.repeated]]
    numbers = [number for row in rows for number in (row.low, row.iqm, row.high)]
    scale = _Scale((min(numbers), max(numbers)), chart.decimals(max(map(abs, numbers))))
    drawn = [row for row in rows if any(len(entry.curve["step"] or ()) > 1 for entry in row.entries)][:DRAWN]
    styles = {row.setting: style for style, row in enumerate(drawn)}
    table = [_row(row, order, styles.get(row.setting), scale) for order, row in enumerate(rows)]
    names = Counter(label(row) for row in table)
    for row in table:  # two settings of an agent whose defaults are not known here look alike
        if names[label(row)] > 1:
            row["differences"] = [*row["differences"], ("setting", row["setting"][:6])]
    threshold = rows[0].threshold
    curves = [Curves(row.agent, row.env, {}, [_evaluations(entry) for entry in row.entries]) for row in drawn]
    charts = [chart.chart(unit, curves, threshold) for unit in ("steps", "seconds")]
    return {
        "name": rows[0].env,
        "rows": table,
        "counts": counts(entries, len(rows)),
        "settings": len(rows),
        "runs": len(entries),
        "newest": max(entry.created for entry in entries),
        "threshold": threshold,
        "threshold_text": DASH if threshold is None else chart.number(threshold),
        "charts": [found for found in charts if found],
        "styles": list(styles.values()),
        "drawn": [row for row in table if row["style"] is not None],
        "not_drawn": len(rows) - len(drawn),
        "published": _published(published),
    }


class _Scale(NamedTuple):
    """What the rows of a table share, so that their numbers can be compared at a glance."""

    span: tuple[float, float]
    places: int  # decimals

    def text(self, value: float) -> str:
        return chart.number(value, self.places)


def _published(references: Sequence[Reference]) -> list[View]:
    places = chart.decimals(max((abs(reference.score) for reference in references), default=0))
    return [
        asdict(reference)
        | {
            "score_text": chart.number(reference.score, places),
            "spread_text": chart.number(reference.spread, places),
            "steps_text": chart.steps_text(reference.steps),
        }
        for reference in references
    ]


def _row(row: Row, order: int, style: int | None, scale: _Scale) -> View:
    several, known = row.seeds > 1, row.options  # a run of another version has no option that came later
    reached = f"{row.reached} of {count(row.seeds, 'seed')}" if row.reached else DASH
    return {
        "setting": row.setting,
        "order": order,
        "rank": f"={row.rank}" if row.tied else f"{row.rank}",
        "style": style,
        "agent": row.agent,
        "differences": [(name, short(here)) for name, (here, _) in row.differences.items() if name in known][:SHOWN],
        "iqm": row.iqm,
        "iqm_text": scale.text(row.iqm),
        "low": row.low if several else None,
        "high": row.high if several else None,
        "interval": f"{scale.text(row.low)} to {scale.text(row.high)}" if several else "",
        "whisker": chart.whisker(row.low, row.iqm, row.high, scale.span),
        "seed_count": row.seeds,
        "few": row.few_seeds,
        "seeds": [(entry.settings["seed"], f"run/{entry.id}.html") for entry in row.entries],
        "repeated": [(entry.settings["seed"], f"run/{entry.id}.html") for entry in row.repeated],
        "steps": _empty(row.steps_to_threshold),
        "steps_text": reached if row.steps_to_threshold is None else chart.steps_text(row.steps_to_threshold),
        "seconds": _empty(row.seconds_to_threshold),
        "seconds_text": DASH if row.seconds_to_threshold is None else chart.seconds_text(row.seconds_to_threshold),
        "rate": _empty(row.steps_per_second),
        "rate_text": DASH if row.steps_per_second is None else f"{row.steps_per_second:,.0f}",
    }


def _empty(value: float | None) -> float | str:
    return "" if value is None else value


def _evaluations(entry: Entry) -> Evaluations:
    step, mean, std = (np.array(entry.curve[name], float) for name in ("step", "mean", "std"))
    seconds = entry.curve["seconds"]
    return Evaluations(step, None if seconds is None else np.array(seconds, float), mean, std)


COLUMNS = (
    "rank",
    "agent",
    "differences",
    "iqm",
    "low",
    "high",
    "seeds",
    "steps_to_threshold",
    "seconds_to_threshold",
    "steps_per_second",
)


def csv_rows(rows: Sequence[View]) -> list[list[Any]]:
    """The table of an environment for `csv.writer`, header first. No text of an entry begins a formula in a spreadsheet."""
    table: list[list[Any]] = [list(COLUMNS)]
    for row in rows:
        differences = " ".join(f"{name}={value}" for name, value in row["differences"])
        numbers = [
            row["iqm"],
            _empty(row["low"]),
            _empty(row["high"]),
            row["seed_count"],
            row["steps"],
            row["seconds"],
            row["rate"],
        ]
        table.append([row["rank"].removeprefix("="), _plain(row["agent"]), _plain(differences), *numbers])
    return table


def _plain(cell: str) -> str:
    return f"'{cell}" if cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


# ------------------------------------------------------------------------------------------------ a run


def options(rows: Sequence[Row]) -> dict[str, dict[str, str]]:
    """Setting -> {option: value as text}: at most COMPARED options, those that differ somewhere among the rows of an environment."""
    all_of = {row.setting: {"agent": row.agent} | row.options for row in rows}
    texts = {
        setting: {
            name: text(value) for name, value in found.items() if value is not None
        }  # as where there is no such option
        for setting, found in all_of.items()
    }
    names = list(dict.fromkeys(name for found in texts.values() for name in found))
    differ = [name for name in names if len({found.get(name) for found in texts.values()}) > 1][:COMPARED]
    return {setting: {name: found[name] for name in differ if name in found} for setting, found in texts.items()}


def label(row: View) -> str:
    """A row in one line."""
    return " ".join([row["agent"], *(f"{name}={value}" for name, value in row["differences"])])


def run(entry: Entry, row: Row, env: View, differing: dict[str, dict[str, str]]) -> View:
    """One run's page. differing: `options` of all rows of its environment."""
    others = [other for other in env["rows"] if other["setting"] != row.setting][:OTHERS]
    here = differing[row.setting]
    there = differing[others[0]["setting"]] if others else here
    curves = Curves(entry.agent, entry.world, {}, [_evaluations(entry)])
    return {
        "agent": entry.agent,
        "env": entry.world,
        "seed": entry.settings["seed"],
        "author": entry.author,
        "note": entry.note,
        "mean": chart.number(entry.mean),
        "std": chart.number(entry.std),
        "episodes": len(entry.returns),
        "command": entry.command,
        "histogram": chart.histogram(entry.returns),
        "returns": ", ".join(map(chart.number, entry.returns)),
        "chart": chart.chart("steps", [curves], entry.reward_threshold),
        "others": [f"{other['rank'].removeprefix('=')}. {label(other)}" for other in others],
        "difference": [
            (name, here.get(name, NONE), there.get(name, NONE))
            for name in here | there
            if here.get(name) != there.get(name)
        ],
        "data": {  # pairs and not objects: an option may be called "constructor"
            "here": list(here.items()),
            "others": [list(differing[other["setting"]].items()) for other in others],
            "none": NONE,
        },
        "config": [(name, text(value)) for name, value in flat(entry.config).items()],
        "origin": _origin(entry),
    }


def _origin(entry: Entry) -> list[tuple[str, str]]:
    """Pairs of name and text: the run's settings, where it was trained, and how it was scored."""
    versions = ", ".join(f"{name} {version}" for name, version in entry.versions.items() if version)
    machine = entry.machine
    protocol = entry.protocol
    known = [
        ("entry", entry.id),
        ("setting", entry.setting),
        ("submitted by", entry.author),
        ("started", entry.created),
        ("environment", entry.world),
        *((name, text(value)) for name, value in entry.settings.items() if value is not None and name not in OF_ENV),
        ("steps", f"{entry.steps:,}"),
        ("time", "" if entry.seconds is None else chart.seconds_text(entry.seconds)),
        ("steps/s", "" if entry.steps_per_second is None else f"{entry.steps_per_second:,.0f}"),
        ("reward threshold", "" if entry.reward_threshold is None else chart.number(entry.reward_threshold)),
        ("reached after", "" if entry.steps_to_threshold is None else f"{entry.steps_to_threshold:,} steps"),
        ("versions", versions),
        ("commit", entry.commit or ""),
        ("machine", f"{machine['cpu']}, {machine['cpu_count'] or '?'} cores, {machine['system']}"),
        ("policy scored", f"{entry.which} checkpoint, SHA-256 {entry.policy_sha256}"),
        (
            "protocol",
            f"{protocol['episodes']} episodes, seed {protocol['seed']}, {'greedy' if protocol['greedy'] else 'sampled'} actions",
        ),
    ]
    return [(name, value) for name, value in known if value]
