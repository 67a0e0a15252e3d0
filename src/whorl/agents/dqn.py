"""Deep Q-learning. Mnih et al. 2015, https://doi.org/10.1038/nature14236. Deviations: docs/algorithms/dqn.md"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from whorl.agents.agent import Agent, Metrics, adam
from whorl.batch import get
from whorl.feeds import Replay
from whorl.functional.bellman import td_target, weighted_mean
from whorl.nets.q import QNetwork
from whorl.nets.target import Target
from whorl.policies.greedy import Greedy, best, discrete, taken


@dataclass(frozen=True)
class DQNConfig:
    learning_rate: float = 1e-3  # Adam's step size
    discount: float = 0.99  # gamma, per environment step
    double: bool = True  # the online network chooses a', the target network values it (van Hasselt et al. 2016)
    dueling: bool = False  # V(s) + A(s, a) - mean A (Wang et al. 2016)
    target_every: int = 1  # gradient updates between two steps of the target network
    target_rate: float = 0.02  # how far it goes towards the online network; 1 = all the way, a copy
    epsilon: float = 1.0  # share of uniform actions at the start
    epsilon_min: float = 0.05  # at the end
    epsilon_steps: int = 10_000  # environment steps between the two, on a straight line
    epsilon_spread: float = 0.0  # environment i of N: epsilon ** (1 + spread i / (N - 1)); 7 in Horgan et al. 2018
    huber: float = 1.0  # TD error from which the loss is linear; 0 = squared everywhere
    max_grad_norm: float = 10.0  # global norm
    hidden: tuple[int, ...] = (120, 84)  # units of each hidden layer; the last one twice when dueling
    activation: Literal["tanh", "relu"] = "relu"
    feed: Replay = Replay(batch_size=128, capacity=100_000, replay_ratio=0.125, warmup=1_000)


class DQN(Agent):
    """Q-learning from replayed transitions, with a target network."""

    Config = DQNConfig
    policy: Greedy

    def __init__(self, policy: Greedy, config: DQNConfig = DQNConfig()):
        super().__init__(policy, config)
        self.target = Target(policy.q)
        self.optimizer = adam(policy.q.parameters(), config.learning_rate, eps=1e-8, max_grad_norm=config.max_grad_norm)

    @classmethod
    def build(cls, observation_space, action_space, config: DQNConfig) -> DQN:
        c = config
        q = QNetwork(observation_space, discrete(action_space), c.hidden, c.activation, dueling=c.dueling)
        return cls(Greedy(q, action_space, epsilon=c.epsilon, epsilon_spread=c.epsilon_spread), c)

    def value(self, observation: Any) -> Tensor:
        """max_a Q(observation, a)."""
        return self.policy.q(observation).amax(-1)

    def prepare(self, rollout: Any) -> Any:  # [T, N]
        rollout, c = super().prepare(rollout), self.config
        self.report["epsilon"] = self.policy.anneal(int(self.env_steps), c.epsilon_steps, c.epsilon, c.epsilon_min)
        return rollout

    def loss(self, batch: Any) -> tuple[Tensor, Metrics]:  # [B]
        c, q, next = self.config, self.policy.q, batch["next"]
        value = taken(q(batch["observation"]), batch["action"])  # [B]
        with torch.no_grad():
            next_q = self.target(next["observation"])  # [B, A]
            chooser = q(next["observation"]) if c.double else next_q
            next_value = taken(next_q, best(chooser, get(batch, "next.action_mask")))
            discount = get(batch, "next.discount", c.discount)
            target = td_target(next["reward"], next["terminated"], next_value, discount)
        loss = weighted_mean(F.huber_loss(value, target, reduction="none", delta=c.huber or inf), get(batch, "weight"))
        size = (target - value.detach()).abs()
        return loss, {"q_mean": value.detach().mean(), "td_error": size.mean(), "priority": size}

    def update(self, batch: Any) -> Metrics:
        metrics = super().update(batch)
        self.updates += 1
        if self.updates % self.config.target_every == 0:
            self.target.follow(self.policy.q, self.config.target_rate)
        return metrics
