"""The whole of training."""

from __future__ import annotations

from collections.abc import Iterable

from whorl.agents.agent import Agent
from whorl.batch import Buffer
from whorl.collectors.collector import Collector
from whorl.training.hooks import Hook


def train(agent: Agent, collector: Collector, buffer: Buffer, total_steps: int, hooks: Iterable[Hook] = ()) -> None:
    """Collect, learn and report until `collector.done(total_steps)`, or a hook says True. Hooks run once a rollout, in order."""
    if collector.done(total_steps):
        return
    for rollout in collector:  # env -> collector -> rollout [T, N]
        buffer.add(agent.prepare(rollout))  # returns, advantages ... -> buffer
        metrics = agent.learn(buffer)  # buffer -> loss -> optimizer
        collector.sync(agent.policy)  # -> policy
        ended = [hook(rollout, metrics) for hook in hooks]  # log, evaluate, checkpoint
        if any(ended) or collector.done(total_steps):
            return
