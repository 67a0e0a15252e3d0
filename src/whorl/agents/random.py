"""Acts uniformly at random and learns nothing: the baseline of every leaderboard."""

from __future__ import annotations

from dataclasses import dataclass

from gymnasium import spaces

from whorl.agents.agent import Agent
from whorl.batch import Buffer, Metrics
from whorl.feeds import Rollouts
from whorl.nets.encoder import EncoderFactory, refuse
from whorl.policies.mixed import MixedRandom
from whorl.policies.random import Random as RandomPolicy


@dataclass(frozen=True)
class RandomConfig:
    feed: Rollouts = Rollouts(steps=128)


class Random(Agent[RandomConfig]):
    """Uniform actions. Its evaluation is random too: it has no greedy action."""

    Config = RandomConfig

    @classmethod
    def build(
        cls, observation_space: spaces.Space, action_space: spaces.Space, config: RandomConfig, *, encoder: EncoderFactory | None = None
    ) -> Random:  # fmt: skip
        refuse(encoder, "the random agent looks at nothing")
        policy = MixedRandom if isinstance(action_space, spaces.Tuple) else RandomPolicy
        return cls(policy(action_space), config)

    def learn(self, buffer: Buffer, count: int | None = None) -> Metrics:
        return {}
