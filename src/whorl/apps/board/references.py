"""Published scores, to stand beside the rows of a board: marked as published, and never ranked against them.

They come from other protocols: CleanRL's are returns at the end of training, Tianshou's the best average within the run, the Zoo's those
of one trained agent; some are of an older version of the environment. They stand in `references.json`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Reference:
    """One published score."""

    env: str  # whorl's id
    agent: str  # whorl's name, where whorl has the agent
    score: float  # mean return
    spread: float  # standard deviation, over `seeds`, or over episodes of the one seed
    steps: int  # environment steps of training
    measured_on: str  # the environment's id at the source
    seeds: int
    note: str
    source: str
    url: str


@cache
def every() -> list[Reference]:
    """All of them."""
    data = json.loads((files("whorl.apps.board") / "references.json").read_text())
    return [Reference(*row, **source) for source in data["sources"] for row in source.pop("scores")]


def references(env: str) -> list[Reference]:
    """The published scores for an environment, best first; none for most."""
    return sorted((row for row in every() if row.env == env), key=lambda row: (-row.score, row.agent, row.source))
