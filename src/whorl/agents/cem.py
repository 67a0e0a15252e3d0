"""The cross-entropy method with extra noise. Szita and Lorincz 2006, https://doi.org/10.1162/neco.2006.18.12.2936

Deviations: docs/algorithms/cem.md
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from gymnasium import spaces
from torch import Tensor

from whorl.agents.agent import Agent
from whorl.batch import Batch, Metrics, get, make
from whorl.errors import BadInput, Incompatible, NotFinite
from whorl.feeds import Rollouts
from whorl.functional import reward_to_go
from whorl.nets.encoder import EncoderFactory, refuse
from whorl.options import Amount, Count, Share
from whorl.policies.population import Population


@dataclass(frozen=True)
class CEMConfig:
    """The population is one episode in every environment, so its size is num_envs."""

    # share of the population that the next one is fitted to
    elite: Annotated[float, Share] = 0.2
    # of every parameter before the first iteration
    initial_std: Annotated[float, Amount] = 1.0
    # its square is added to the fitted variance, so that the search does not end too soon ...
    extra_std: Annotated[float, Amount] = 1.0
    # ... falling linearly to 0 over so many iterations
    extra_iterations: Annotated[int, Amount] = 10
    # by running mean and std, inside the policy
    normalize_observation: bool = False
    # units of each tanh layer; () = linear
    hidden: Annotated[tuple[int, ...], Count] = ()

    feed: Rollouts = Rollouts(steps=1, unit="episode")


class CEM(Agent[CEMConfig]):
    """Draw a population, let each member play an episode, fit the normal distribution to the best of them. No gradient.

    Raises Incompatible for a feed without whole episodes, or one that cuts or repeats a population; BadInput for impossible numbers.
    """

    Config = CEMConfig
    uncompiled = "CEM takes no gradient step, so there is nothing to compile"
    policy: Population
    iteration: Tensor

    def __init__(self, policy: Population, config: CEMConfig = CEMConfig()):
        super().__init__(policy, config)
        self.register_buffer("iteration", torch.zeros((), dtype=torch.int64))

    @classmethod
    def build(
        cls, observation_space: spaces.Space, action_space: spaces.Space, config: CEMConfig, *, encoder: EncoderFactory | None = None
    ) -> CEM:  # fmt: skip
        refuse(encoder, "a population is drawn as the weights of small networks of its own")
        c, feed = config, config.feed
        if feed.unit != "episode" or feed.epochs != 1 or feed.minibatches != 1:
            raise Incompatible(
                "CEM refits once to a population of whole episodes: feed.unit must be 'episode', feed.epochs and feed.minibatches 1, "
                f"got {feed.unit!r}, {feed.epochs} and {feed.minibatches}"
            )
        if not c.elite:
            raise BadInput(f"elite is a share of the population above 0 and at most 1, got {c.elite}")
        policy = Population(observation_space, action_space, c.hidden, c.initial_std, c.normalize_observation)
        return cls(policy, c)

    def prepare(self, rollout: Batch) -> Batch:  # [T, N], whole episodes -> one row for each of them
        rollout = super().prepare(rollout)
        next, begins, mask = rollout["next"], rollout["is_first"], get(rollout, "mask")
        ends = next["terminated"], next["truncated"]
        if mask is not None:  # of episodes that were lost no return is known
            begins = begins & mask & (reward_to_go((ends[1] & ~mask).float(), *ends, 1.0) == 0)
        ret = reward_to_go(next["reward"], *ends, 1.0)[begins]
        return make({"parameters": rollout["parameters"][begins], "return": ret}, tuple(ret.shape))

    @torch.no_grad()
    def update(self, batch: Batch) -> Metrics:  # [episodes]
        """mean = mean(elite), std^2 = var(elite) + extra_std^2 max(0, 1 - k / extra_iterations), k = iterations before this one."""
        c, ret, policy = self.config, batch["return"], self.policy
        count = round(c.elite * len(ret))
        if count < 2:
            raise BadInput(
                f"elite = {c.elite} of {len(ret)} episodes is {count}, but a variance needs at least 2: "
                "use more environments or a larger elite"
            )
        if not ret.isfinite().all():
            raise NotFinite(
                f"the returns of {int((~ret.isfinite()).sum())} of {len(ret)} episodes are NaN or infinite; nothing was learned from them"
            )
        best = ret.argsort(descending=True, stable=True)[:count]
        left = max(0.0, 1 - int(self.iteration) / c.extra_iterations) if c.extra_iterations else 0.0
        var, mean = torch.var_mean(batch["parameters"][best], 0, correction=0)
        policy.mean.copy_(mean)
        policy.std.copy_((var + left * c.extra_std**2).sqrt())
        self.iteration += 1
        return {
            "return": ret.mean(),
            "elite_return": ret[best].mean(),
            "elite_threshold": ret[best[-1]],
            "std": policy.std.mean(),
            "extra_std": torch.tensor(left**0.5 * c.extra_std, dtype=torch.float32),
        }
