"""The rows of a board: entries that differ only in their seed are one row, and rows of one environment are ranked.

A row's score is the interquartile mean (IQM) over its seeds of the entries' mean return, with its 95% bootstrap interval (Agarwal et
al. 2021, https://arxiv.org/abs/2108.13264). Rows whose interval meets that of the first of their group share its rank.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from statistics import median
from typing import Any

import numpy as np

from whorl.apps.board.entry import Entry
from whorl.errors import BadInput
from whorl.functional.bands import iqm_band
from whorl.options import to_json
from whorl.training.catalog import find, presets
from whorl.training.plot import flat

FEW = 5  # seeds below which an interval says little
RUN_SETTINGS = (
    "num_envs",
    "total_steps",
    "total_episodes",
    "max_episode_steps",
    "compile",
)  # what a setting is, beside the config


@dataclass(frozen=True)
class Row:
    """One setting. Steps are environment steps, seconds those of training."""

    setting: str  # 12 hex digits
    env: str  # with its options: `Entry.world`
    agent: str
    entries: list[Entry]  # one of each seed, by seed
    repeated: list[
        Entry
    ]  # of a seed or a policy that another entry stands for: more steps, or else earlier. They do not count
    threshold: float | None  # reward threshold that most entries of the environment have
    baseline: str  # what `differences` are from: "preset", "defaults", or "" where this whorl does not know the agent
    differences: dict[str, tuple[Any, Any]]  # option (dotted where nested) -> (value here, value of the baseline)
    iqm: float
    low: float  # 95% bootstrap interval of the IQM; with one seed it is the IQM
    high: float
    reached: int  # seeds that reached the reward threshold during training
    steps_to_threshold: float | None  # median over seeds; None if one did not reach it, or the environment has none
    seconds_to_threshold: float | None
    steps_per_second: float | None  # median over seeds, of those that know it
    rank: int = 1  # 1 + the number of rows above the group that this one is in
    tied: bool = False  # whether the group has other members
    tied_with_best: bool = False  # whether it is the group of the first row, and has other members

    @property
    def seeds(self) -> int:
        return len(self.entries)

    @property
    def few_seeds(self) -> bool:
        return self.seeds < FEW

    @property
    def options(self) -> dict[str, Any]:
        """Every option of the run and of the agent's config, dotted where nested -> value."""
        first = self.entries[0]
        return _options(first.config, first.settings)


def rows(entries: Iterable[Entry]) -> dict[str, list[Row]]:
    """Environment -> its rows, best first. The order of the entries makes no difference."""
    settings: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        settings[entry.world, entry.setting].append(entry)
    of_env: dict[str, Counter] = defaultdict(Counter)
    for members in settings.values():
        of_env[members[0].world].update(entry.reward_threshold for entry in members)
    thresholds = {env: max(found, key=lambda one: (found[one], one is not None, one)) for env, found in of_env.items()}
    tables: dict[str, list[Row]] = defaultdict(list)
    for (env, _), members in sorted(settings.items(), key=lambda item: item[0]):
        tables[env].append(_row(members, thresholds[env]))
    return {env: _ranked(table) for env, table in tables.items()}


def config_difference(a: Row, b: Row) -> dict[str, tuple[Any, Any]]:
    """Option -> (value in row a, value in row b), where they differ; None where a row does not have the option."""
    ours, theirs = ({"agent": row.agent, "env": row.env} | row.options for row in (a, b))
    return _differences(ours, theirs)


def _row(members: list[Entry], threshold: float | None) -> Row:
    chosen, repeated = _once(members)
    first = chosen[0]
    same = [entry if entry.reward_threshold == threshold else None for entry in chosen]
    name, base = _baseline(first.agent, first.env)
    middle, low, high = iqm_band(np.array([[entry.mean] for entry in chosen]))[:, 0]
    return Row(
        setting=first.setting,
        env=first.world,
        agent=first.agent,
        entries=chosen,
        repeated=repeated,
        threshold=threshold,
        baseline=name,
        differences=_differences(_options(first.config, first.settings), base) if name else {},
        iqm=float(middle),
        low=float(low),
        high=float(high),
        reached=sum(entry is not None and entry.steps_to_threshold is not None for entry in same),
        steps_to_threshold=_median_of_all(same, lambda entry: entry.steps_to_threshold),
        seconds_to_threshold=_median_of_all(same, lambda entry: entry.seconds_to_threshold),
        steps_per_second=_median([entry.steps_per_second for entry in chosen]),
    )


def _once(members: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    """(those that count, the others), by seed: each seed and each policy once, for one policy under many seeds is one result.

    All agents without weights have the same policy, so such a setting has one.
    """
    chosen: list[Entry] = []
    repeated: list[Entry] = []
    seen: set[Any] = set()
    for entry in sorted(members, key=lambda entry: (-entry.steps, entry.created, entry.id)):
        marks = {entry.settings["seed"], entry.policy_sha256}
        (repeated if marks & seen else chosen).append(entry)
        if not marks & seen:
            seen |= marks
    by_seed = lambda entry: entry.settings["seed"]  # noqa: E731
    return sorted(chosen, key=by_seed), sorted(repeated, key=by_seed)


def _ranked(table: list[Row]) -> list[Row]:
    """Best first; a row is in the group of the one above as long as its interval meets that of the group's first row."""
    table = sorted(table, key=lambda row: (-row.iqm, -row.low, row.setting))
    groups: list[list[Row]] = []
    for row in table:
        if groups and row.high >= groups[-1][0].low:
            groups[-1].append(row)
        else:
            groups.append([row])
    ranked: list[Row] = []
    for group in groups:
        rank, tied = 1 + len(ranked), len(group) > 1
        ranked += [replace(row, rank=rank, tied=tied, tied_with_best=tied and rank == 1) for row in group]
    return ranked


@cache
def _baseline(agent: str, env: str) -> tuple[str, dict[str, Any]]:
    """Name and options of the agent's preset for the environment, or of its defaults; "" for an agent that this whorl does not know."""
    try:
        preset = find(agent, env)
    except BadInput:
        return "", {}
    of_run = {**dict.fromkeys(RUN_SETTINGS), "compile": False}
    of_run |= {"num_envs": preset.num_envs, "total_steps": preset.total_steps}
    return "preset" if env in presets(agent) else "defaults", _options(to_json(preset.config), of_run)


def _options(config: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    return {name: settings[name] for name in RUN_SETTINGS} | flat(config)


def _differences(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (a.get(name), b.get(name)) for name in a | b if a.get(name) != b.get(name)}


def _median_of_all(entries: list[Entry | None], value: Callable[[Entry], float | None]) -> float | None:
    found = [None if entry is None else value(entry) for entry in entries]
    return None if None in found else _median(found)


def _median(found: list[float | None]) -> float | None:
    known = [number for number in found if number is not None]
    return float(median(known)) if known else None
