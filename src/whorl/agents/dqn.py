"""Deep Q-learning. Mnih et al. 2015, https://doi.org/10.1038/nature14236. Deviations: docs/algorithms/dqn.md"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from gymnasium import spaces
from torch import Tensor

from whorl.agents.agent import Agent
from whorl.agents.optimizers import adam
from whorl.agents.parts import count_update, loss_of, mean_of
from whorl.agents.recall import after, here, learned_rows, td_along
from whorl.batch import Batch, Metrics, Tree, get
from whorl.feeds import Feed, Replay
from whorl.functional.bellman import rescaled, unrescaled
from whorl.nets.encoder import EncoderFactory
from whorl.nets.normalizer import observation_normalizer
from whorl.nets.q import QNetwork
from whorl.nets.rnn import at_first
from whorl.nets.target import Target
from whorl.options import Amount, Bounds, Count, Share
from whorl.policies.greedy import Greedy, best, discrete, taken


@dataclass(frozen=True)
class DQNConfig:
    # Adam's step size
    learning_rate: Annotated[float, Amount] = 1e-3
    # gamma, per environment step
    discount: Annotated[float, Share] = 0.99
    # the online network chooses a', the target network values it (van Hasselt et al. 2016)
    double: bool = True
    # V(s) + A(s, a) - mean A (Wang et al. 2016)
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
    # TD error from which the loss is linear; 0 = squared everywhere
    huber: Annotated[float, Amount] = 1.0
    # global norm
    max_grad_norm: Annotated[float, Amount] = 10.0
    # units of each hidden layer; the last one twice when dueling
    hidden: Annotated[tuple[int, ...], Count] = (120, 84)

    activation: Literal["tanh", "relu"] = "relu"
    # Q learns h(return) = sign(x) (sqrt(|x| + 1) - 1) + 0.001 x, for returns of many sizes (Pohlen et al. 2018)
    rescale: bool = False
    # what the networks remember of an episode: nothing, or a recurrent cell's state; needs `feed = Sequences(...)`
    memory: Literal["none", "gru", "lstm"] = "none"
    # units of the cell
    memory_width: Annotated[int, Count] = 128
    # of a gru's update gate at the start: above 0 it keeps what it knows for longer
    gate_bias: float = 0.0

    feed: Feed = Replay(batch_size=128, capacity=100_000, replay_ratio=0.125, warmup=1_000)


class DQN(Agent[DQNConfig]):
    """Q-learning from replayed transitions, with a target network."""

    Config = DQNConfig
    packed = "packed_values:dqn"
    policy: Greedy

    def __init__(self, policy: Greedy, config: DQNConfig = DQNConfig()):
        super().__init__(policy, config)
        self.target = Target(policy.q)
        self.optimizer = adam(policy.q.parameters(), config.learning_rate, eps=1e-8, max_grad_norm=config.max_grad_norm)

    @classmethod
    def build(
        cls, observation_space: spaces.Space, action_space: spaces.Space, config: DQNConfig, *, encoder: EncoderFactory | None = None
    ) -> DQN:  # fmt: skip
        c, actions = config, discrete(action_space)
        q = QNetwork(
            observation_space, actions, c.hidden, c.activation, dueling=c.dueling, encoder=encoder,
            memory=c.memory, memory_width=c.memory_width, gate_bias=c.gate_bias,
        )  # fmt: skip
        normalizer = observation_normalizer(observation_space, c.feed.normalize_observation)
        return cls(
            Greedy(q, action_space, epsilon=c.epsilon, epsilon_spread=c.epsilon_spread, normalizer=normalizer), c
        )

    def value(self, observation: Tree) -> Tensor:
        """max_a Q(observation, a); with a memory, where an episode begins."""
        q = self.policy.q
        value = q(at_first(q, self.policy.normalizer(observation))).amax(-1)
        return unrescaled(value) if self.config.rescale else value

    def prepare(self, rollout: Batch) -> Batch:  # [T, N]
        rollout, c = super().prepare(rollout), self.config
        self.report["epsilon"] = self.policy.anneal(int(self.env_steps), c.epsilon_steps, c.epsilon, c.epsilon_min)
        return rollout

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:  # [B] or [T, B]
        c, q, rows = self.config, self.policy.q, learned_rows(self, batch)
        value = taken(q(here(self, q, batch)), rows["action"])  # [B]
        with torch.no_grad():
            next_q = self.target(after(self, self.target, batch))  # [B, A]
            chooser = q(after(self, q, batch)) if c.double else next_q
            next_value = taken(next_q, best(chooser, get(rows, "next.action_mask")))
            if c.rescale:
                target = rescaled(td_along(self, rows, unrescaled(next_value), c.discount))
            else:
                target = td_along(self, rows, next_value, c.discount)
        loss = loss_of(F.huber_loss(value, target, reduction="none", delta=c.huber or inf), rows)
        size = (target - value.detach()).abs()
        return loss, {"q_mean": mean_of(value.detach(), rows), "td_error": mean_of(size, rows), "priority": size}

    def update(self, batch: Batch) -> Metrics:
        metrics = super().update(batch)
        if count_update(self, self.config.target_every):
            self.target.follow(self.policy.q, self.config.target_rate)
        return metrics
