"""Categorical DQN. Bellemare et al. 2017, https://arxiv.org/abs/1707.06887. Deviations: docs/algorithms/c51.md"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from whorl.agents.agent import Agent, Metrics, adam
from whorl.batch import get
from whorl.feeds import Replay
from whorl.functional.bellman import weighted_mean
from whorl.functional.distributional import categorical_projection
from whorl.nets.q import CategoricalQ, QNetwork
from whorl.nets.target import Target
from whorl.policies.greedy import Greedy, best, discrete, taken


@dataclass(frozen=True)
class C51Config:
    learning_rate: float = 1e-3  # Adam's step size
    discount: float = 0.99  # gamma, per environment step
    atoms: int = 51  # K
    v_min: float = -10.0  # the lowest atom, in units of the return
    v_max: float = 10.0  # the highest: no return that matters may lie outside
    double: bool = False  # the online network chooses a', the target network gives its distribution
    dueling: bool = False  # one pair of streams for each atom (Wang et al. 2016)
    target_every: int = 1  # gradient updates between two steps of the target network
    target_rate: float = 0.02  # how far it goes towards the online network; 1 = all the way, a copy
    epsilon: float = 1.0  # share of uniform actions at the start
    epsilon_min: float = 0.05  # at the end
    epsilon_steps: int = 10_000  # environment steps between the two, on a straight line
    epsilon_spread: float = 0.0  # environment i of N: epsilon ** (1 + spread i / (N - 1)); 7 in Horgan et al. 2018
    max_grad_norm: float = 10.0  # global norm
    hidden: tuple[int, ...] = (120, 84)  # units of each hidden layer; the last one twice when dueling
    activation: Literal["tanh", "relu"] = "relu"
    feed: Replay = Replay(batch_size=128, capacity=100_000, replay_ratio=0.125, warmup=1_000)


class C51(Agent):
    """Cross-entropy between the projected distribution of r + gamma Z(s', a*) and Z(s, a)."""

    Config = C51Config
    policy: Any  # Greedy on a CategoricalQ
    target: Any

    def __init__(self, policy: Greedy, config: C51Config = C51Config()):
        """policy: its `q` is a CategoricalQ."""
        super().__init__(policy, config)
        self.target = Target(policy.q)
        self.optimizer = adam(policy.q.parameters(), config.learning_rate, eps=1e-8, max_grad_norm=config.max_grad_norm)

    @classmethod
    def build(cls, observation_space, action_space, config: C51Config) -> C51:
        c, actions = config, discrete(action_space)
        net = QNetwork(observation_space, actions, c.hidden, c.activation, c.atoms, c.dueling)
        q = CategoricalQ(net, c.v_min, c.v_max)
        return cls(Greedy(q, action_space, epsilon=c.epsilon, epsilon_spread=c.epsilon_spread), c)

    def value(self, observation: Any) -> Tensor:
        """max_a Q(observation, a)."""
        return self.policy.q(observation).amax(-1)

    def prepare(self, rollout: Any) -> Any:  # [T, N]
        rollout, c = super().prepare(rollout), self.config
        self.report["epsilon"] = self.policy.anneal(int(self.env_steps), c.epsilon_steps, c.epsilon, c.epsilon_min)
        return rollout

    def loss(self, batch: Any) -> tuple[Tensor, Metrics]:  # [B]
        c, z, next = self.config, self.policy.q, batch["next"]
        log_p = taken(z.logits(batch["observation"]), batch["action"]).log_softmax(-1)  # [B, K]
        with torch.no_grad():
            logits = self.target.module.logits(next["observation"])  # [B, A, K]
            chooser = z(next["observation"]) if c.double else z.mean(logits)
            next_p = taken(logits, best(chooser, get(batch, "next.action_mask"))).softmax(-1)
            discount = get(batch, "next.discount", c.discount)
            p = categorical_projection(z.support, next_p, next["reward"], discount, next["terminated"])
            entropy = -torch.xlogy(p, p).sum(-1)
        cross_entropy = -(p * log_p).sum(-1)
        loss = weighted_mean(cross_entropy, get(batch, "weight"))
        kl = cross_entropy - entropy  # of the target from the prediction: the part that learning can take away
        return loss, {"q_mean": (log_p.exp() @ z.support).mean(), "kl": kl.mean(), "priority": kl.clamp(min=0)}

    def update(self, batch: Any) -> Metrics:
        metrics = super().update(batch)
        self.updates += 1
        if self.updates % self.config.target_every == 0:
            self.target.follow(self.policy.q, self.config.target_rate)
        return metrics
