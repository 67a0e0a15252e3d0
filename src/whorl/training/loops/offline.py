"""Learning from data that somebody recorded: no environment is stepped, and progress is counted in updates."""

from __future__ import annotations

from collections.abc import Iterable

from whorl.agents.agent import Agent
from whorl.batch import Buffer
from whorl.collectors.ledger import Ledger
from whorl.training.hooks import Hook

ROUND = 100  # updates between two looks of the hooks


def train(agent: Agent, progress: Ledger, buffer: Buffer, total_steps: int, hooks: Iterable[Hook] = ()) -> None:
    """Learn and report until `progress` has counted `total_steps` updates, or a hook says True. Hooks get None for a rollout."""
    while not progress.done(total_steps):
        count = min(ROUND, total_steps - progress.count)
        metrics = agent.learn(buffer, count=count)
        progress.count += count
        ended = [hook(None, metrics) for hook in hooks]
        if any(ended):
            return
