"""Categorical DQN. Bellemare et al. 2017, https://arxiv.org/abs/1707.06887. Deviations: docs/algorithms/c51.md"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from gymnasium import spaces
from torch import Tensor

from whorl.agents.agent import Agent
from whorl.agents.optimizers import adam
from whorl.agents.parts import count_update, loss_of, mean_of
from whorl.batch import Batch, Metrics, Tree, get
from whorl.feeds import Feed, Replay
from whorl.functional.distributional import categorical_projection
from whorl.nets.encoder import EncoderFactory
from whorl.nets.normalizer import observation_normalizer
from whorl.nets.q import CategoricalQ, QNetwork
from whorl.nets.target import Target
from whorl.options import Amount, Bounds, Count, Share
from whorl.policies.greedy import Greedy, best, discrete, taken


@dataclass(frozen=True)
class C51Config:
    # Adam's step size
    learning_rate: Annotated[float, Amount] = 1e-3
    # gamma, per environment step
    discount: Annotated[float, Share] = 0.99
    # K
    atoms: Annotated[int, Bounds(2, sizes="outputs")] = 51
    # the lowest atom, in units of the return
    v_min: float = -10.0
    # the highest: no return that matters may lie outside
    v_max: float = 10.0
    # the online network chooses a', the target network gives its distribution
    double: bool = False
    # one pair of streams for each atom (Wang et al. 2016)
    dueling: bool = False
    # gradient updates between two steps of the target network
    target_every: Annotated[int, Count] = 1
    # how far it goes towards the online network; 1 = all the way, a copy
    target_rate: Annotated[float, Bounds(1e-9, 1)] = 0.02
    # share of uniform actions at the start
    epsilon: Annotated[float, Share] = 1.0
    # at the end
    epsilon_min: Annotated[float, Share] = 0.05
    # environment steps between the two, on a straight line
    epsilon_steps: Annotated[int, Amount] = 10_000
    # environment i of N: epsilon ** (1 + spread i / (N - 1)); 7 in Horgan et al. 2018
    epsilon_spread: Annotated[float, Amount] = 0.0
    # global norm
    max_grad_norm: Annotated[float, Amount] = 10.0
    # units of each hidden layer; the last one twice when dueling
    hidden: Annotated[tuple[int, ...], Count] = (120, 84)

    activation: Literal["tanh", "relu"] = "relu"

    feed: Feed = Replay(batch_size=128, capacity=100_000, replay_ratio=0.125, warmup=1_000)


class C51(Agent[C51Config]):
    """Cross-entropy between the projected distribution of r + gamma Z(s', a*) and Z(s, a)."""

    Config = C51Config
    packed = "packed_values:c51"
    policy: Greedy

    def __init__(self, policy: Greedy, config: C51Config = C51Config()):
        """policy: its `q` is a CategoricalQ."""
        super().__init__(policy, config)
        self.target = Target(policy.q)
        self.optimizer = adam(policy.q.parameters(), config.learning_rate, eps=1e-8, max_grad_norm=config.max_grad_norm)

    @classmethod
    def build(
        cls, observation_space: spaces.Space, action_space: spaces.Space, config: C51Config, *, encoder: EncoderFactory | None = None
    ) -> C51:  # fmt: skip
        c, actions = config, discrete(action_space)
        net = QNetwork(observation_space, actions, c.hidden, c.activation, c.atoms, c.dueling, encoder=encoder)
        q = CategoricalQ(net, c.v_min, c.v_max)
        normalizer = observation_normalizer(observation_space, c.feed.normalize_observation)
        return cls(
            Greedy(q, action_space, epsilon=c.epsilon, epsilon_spread=c.epsilon_spread, normalizer=normalizer), c
        )

    def value(self, observation: Tree) -> Tensor:
        """max_a Q(observation, a)."""
        return self.policy.q(self.policy.normalizer(observation)).amax(-1)

    def prepare(self, rollout: Batch) -> Batch:  # [T, N]
        rollout, c = super().prepare(rollout), self.config
        self.report["epsilon"] = self.policy.anneal(int(self.env_steps), c.epsilon_steps, c.epsilon, c.epsilon_min)
        return rollout

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:  # [B] or [T, B]
        c, normal, next = self.config, self.policy.normalizer, batch["next"]
        z: Any = self.policy.q
        successor = normal(next["observation"])
        log_p = taken(z.logits(normal(batch["observation"])), batch["action"]).log_softmax(-1)  # [B, K]
        with torch.no_grad():
            logits = self.target.module.logits(successor)  # [B, A, K]
            chooser = z(successor) if c.double else z.mean(logits)
            next_p = taken(logits, best(chooser, get(batch, "next.action_mask"))).softmax(-1)
            discount = get(batch, "next.discount", c.discount)
            p = categorical_projection(z.support, next_p, next["reward"], discount, next["terminated"])
            entropy = -torch.xlogy(p, p).sum(-1)
        cross_entropy = -(p * log_p).sum(-1)
        kl = cross_entropy - entropy  # of the target from the prediction: the part that learning can take away
        metrics = {"q_mean": mean_of(log_p.exp() @ z.support, batch), "kl": mean_of(kl, batch)}
        return loss_of(cross_entropy, batch), metrics | {"priority": kl.clamp(min=0)}

    def update(self, batch: Batch) -> Metrics:
        metrics = super().update(batch)
        if count_update(self, self.config.target_every):
            self.target.follow(self.policy.q, self.config.target_rate)
        return metrics
