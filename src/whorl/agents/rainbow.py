"""Rainbow. Hessel et al. 2018, https://arxiv.org/abs/1710.02298. Deviations: docs/algorithms/rainbow.md"""

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
class RainbowConfig:
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
    # gradient updates between two steps of the target network
    target_every: Annotated[int, Count] = 1
    # how far it goes towards the online network; 1 = all the way, a copy
    target_rate: Annotated[float, Bounds(1e-9, 1)] = 0.02
    # global norm
    max_grad_norm: Annotated[float, Amount] = 10.0
    # units of each hidden layer; the last is each stream's own
    hidden: Annotated[tuple[int, ...], Count] = (120, 84)

    activation: Literal["tanh", "relu"] = "relu"

    feed: Feed = Replay(
        batch_size=128,
        capacity=100_000,
        replay_ratio=0.125,
        warmup=1_000,
        n_step=3,
        prioritized=True,
        alpha=0.5,
        beta=0.4,
    )


class Rainbow(Agent[RainbowConfig]):
    """C51 with double Q-learning, dueling streams, noisy layers, prioritized replay and n-step returns.

    It explores by the noise of its layers alone, each environment by its own. In the loss, the two online passes and the target's
    have a noise each, which all rows share.
    """

    Config = RainbowConfig
    policy: Greedy

    def __init__(self, policy: Greedy, config: RainbowConfig = RainbowConfig()):
        """policy: its `q` is a CategoricalQ on a noisy net."""
        super().__init__(policy, config)
        self.target = Target(policy.q)
        self.optimizer = adam(policy.q.parameters(), config.learning_rate, eps=1e-8, max_grad_norm=config.max_grad_norm)

    @classmethod
    def build(
        cls, observation_space: spaces.Space, action_space: spaces.Space, config: RainbowConfig, *, encoder: EncoderFactory | None = None
    ) -> Rainbow:  # fmt: skip
        c, actions = config, discrete(action_space)
        net = QNetwork(
            observation_space, actions, c.hidden, c.activation, c.atoms, dueling=True, noisy=True, encoder=encoder
        )
        normalizer = observation_normalizer(observation_space, c.feed.normalize_observation)
        return cls(Greedy(CategoricalQ(net, c.v_min, c.v_max), action_space, normalizer=normalizer), c)

    def value(self, observation: Tree) -> Tensor:
        """max_a Q(observation, a), with the mean weights."""
        return self.policy.q(self.policy.normalizer(observation)).amax(-1)

    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:  # [B] or [T, B]
        c, normal, next = self.config, self.policy.normalizer, batch["next"]
        z: Any = self.policy.q
        successor = normal(next["observation"])
        noise, target_noise, choice_noise = batch["noise"].flatten(0, -3)[0]  # each [noise_size], of all rows
        log_p = taken(z.logits(normal(batch["observation"]), noise), batch["action"]).log_softmax(-1)  # [B, K]
        with torch.no_grad():
            action = best(z(successor, choice_noise), get(batch, "next.action_mask"))
            next_p = taken(self.target.module.logits(successor, target_noise), action).softmax(-1)
            discount = get(batch, "next.discount", c.discount)
            p = categorical_projection(z.support, next_p, next["reward"], discount, next["terminated"])
            entropy = -torch.xlogy(p, p).sum(-1)
        cross_entropy = -(p * log_p).sum(-1)
        kl = cross_entropy - entropy  # of the target from the prediction: the part that learning can take away
        metrics = {"q_mean": mean_of(log_p.exp() @ z.support, batch), "kl": mean_of(kl, batch)}
        return loss_of(cross_entropy, batch), metrics | {"priority": kl.clamp(min=0)}

    def update(self, batch: Batch) -> Metrics:
        batch["noise"] = self.noise((3, self.policy.noise_size)).expand(*batch.shape, -1, -1)
        metrics = super().update(batch)
        if count_update(self, self.config.target_every):
            self.target.follow(self.policy.q, self.config.target_rate)
        return metrics
