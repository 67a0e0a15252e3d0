"""What a run tells whoever started it: where it begins, and where it goes on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from whorl.collectors.collector import Collector
from whorl.envs.env import Env
from whorl.feeds import Feed
from whorl.training.sizes import check_replay


def of_start(path: Path, env: Env | None, feed: Feed, slack: int) -> Iterator[str]:
    """The environment, the folder, and what replay takes."""
    yield f"environment: {env!r}" if env is not None else "no environment: it learns from data"
    yield f"run: {path}"
    if env is not None and feed.replays:
        size = check_replay(env, feed, slack)
        where = "on disk" if feed.storage == "memmap" else "in memory"
        yield f"replay: {feed.capacity:,} rows, {size / 2**20:,.0f} MiB {where} when full"


def of_resume(
    path: Path,
    steps: int,
    checkpoint: str,
    changes: Iterable[str],
    exact: Mapping[str, bool],
    collector: Collector | None,
) -> Iterator[str]:
    """How far it had come, what is changed from here on, and why it is not bit-equal to an unbroken run, if it is not. exact: which parts
    went on as they were."""
    yield f"resumed {path} at {steps:,} steps from {checkpoint}"
    for change in changes:
        yield f"changed from here on: {change}"
    if not exact["buffer"]:
        yield (
            "rows of the replay buffer that this checkpoint used have been overwritten since: it goes on with those that are left, "
            "so the run is not bit-equal to an unbroken one"
        )
    if collector is not None and not exact["collector"]:
        yield f"{collector.why_fresh}: fresh episodes begin here, so the run is not bit-equal to an unbroken one"
