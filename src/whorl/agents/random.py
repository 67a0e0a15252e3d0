"""Acts uniformly at random and learns nothing: the baseline of every leaderboard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from whorl.agents.agent import Agent, Metrics
from whorl.feeds import Rollouts
from whorl.policies.random import Random as RandomPolicy


@dataclass(frozen=True)
class RandomConfig:
    feed: Rollouts = Rollouts(steps=128)


class Random(Agent):
    """Uniform actions. Its evaluation is random too: it has no greedy action."""

    Config = RandomConfig

    @classmethod
    def build(cls, observation_space, action_space, config: RandomConfig) -> Random:
        return cls(RandomPolicy(action_space), config)

    def learn(self, buffer: Any, count: int | None = None) -> Metrics:
        return {}
