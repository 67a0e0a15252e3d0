"""What looks at a run after every rollout."""

from __future__ import annotations

from typing import Protocol

from whorl.batch import Batch, Metrics


class Hook(Protocol):
    """Anything that is called after each rollout, in order: log, evaluate, checkpoint."""

    def __call__(self, rollout: Batch | None, metrics: Metrics) -> bool | None:
        """Look at a rollout (None where there is none) and at what was learned from it. True ends the run, after the other hooks."""
