"""The whole of training."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from whorl.agents.agent import Agent, Metrics

Hook = Callable[[Any, Metrics], None]


def train(agent: Agent, collector: Any, buffer: Any, total_steps: int, hooks: Iterable[Hook] = ()) -> None:
    """Collect, learn and report until `collector.done(total_steps)`. Hooks run once a rollout, in order."""
    if collector.done(total_steps):
        return
    for rollout in collector:  # env -> collector -> rollout [T, N]
        buffer.add(agent.prepare(rollout))  # returns, advantages ... -> buffer
        metrics = agent.learn(buffer)  # buffer -> loss -> optimizer
        collector.sync(agent.policy)  # -> policy
        for hook in hooks:
            hook(rollout, metrics)  # log, evaluate, checkpoint
        if collector.done(total_steps):
            return
