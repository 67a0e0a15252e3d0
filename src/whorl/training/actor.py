"""A trained policy that acts for its user: observations and actions in the environment's own form."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Space
from numpy.typing import ArrayLike
from torch import Generator

from whorl.batch import Tree
from whorl.envs.adapters.spaces import discrete_sizes
from whorl.envs.env import Env, Observation
from whorl.envs.own_form import Given, Own, batched
from whorl.errors import BadInput
from whorl.policies.policy import Carry, Policy
from whorl.spaces import describe, leaves, numpy_dtype


class TrainedActor:
    """Acts in n environments at once, and keeps the policy's memory of their episodes.

        actor = trained.actor(n)
        action = actor(observation, is_first)

    deterministic: greedily, else as in training, with the numbers of `generator`.
    """

    def __init__(self, policy: Policy, env: Env, n: int, deterministic: bool, generator: Generator):
        if n < 1:
            raise BadInput(f"an actor acts in at least 1 environment, got {n}")
        if deterministic and not policy.greedy:
            raise BadInput(f"{type(policy).__name__} has no greedy action: pass deterministic=False")
        self._policy, self._env, self._n = policy, env, n
        self._generator = None if deterministic else generator
        self._carry: Carry = policy.initial(n)
        self._begun = np.zeros(n, bool)

    def __call__(self, observation: Given, is_first: ArrayLike, action_mask: ArrayLike | None = None) -> Own:
        """The actions of a batch of n observations, in the environment's own action space.

        observation: [n, ...], what the environment gave, nested as its space is; is_first: [n], whether it begins an episode (one bool
        for all will do). action_mask: allowed actions [n, A], where the observation does not hold them.
        Raises BadInput for what does not fit the spaces, and where an environment's first observation begins no episode.
        """
        batch, single = batched(self._env.own_observation_space, observation)
        if single:
            raise BadInput(
                "expected a batch of observations [n, ...], got a single one: put an axis in front, or use predict"
            )
        return self.act(batch, is_first, action_mask)

    def act(self, batch: Own, is_first: ArrayLike, action_mask: ArrayLike | None) -> Own:
        """As a call, for a batch that has been checked."""
        seen, mask = self._env.encode(batch)
        rows = len(leaves(seen)[0])
        if rows != self._n:
            raise BadInput(f"this actor acts in {self._n} environments, got {rows} observations")
        first = self._flags(is_first)
        allowed = self._allowed(mask if action_mask is None else action_mask)
        noise = None if self._generator is None else self._policy.noise((1, rows), self._generator)[0]
        with torch.inference_mode():
            decided, self._carry = self._policy.act(
                _tensors(self._env.observation_space, seen), self._carry, first, noise, allowed
            )
        action = decided["action"].numpy()
        if isinstance(space := self._env.action_space, Box):
            action = action.clip(space.low, space.high)
        return self._env.decode(action)

    def _flags(self, is_first: ArrayLike) -> torch.Tensor:
        first = np.asarray(is_first)
        if first.dtype != bool or first.shape not in ((), (self._n,)):
            raise BadInput(f"is_first: expected bools of shape ({self._n},), got {first.dtype} of shape {first.shape}")
        first = np.broadcast_to(first, self._n)
        if not (self._begun | first).all():
            raise BadInput(
                f"is_first: environment {int((self._begun | first).argmin())} has begun no episode yet: pass True"
            )
        self._begun |= first
        return torch.from_numpy(first.copy())

    def _allowed(self, mask: ArrayLike | None) -> torch.Tensor | None:
        """The mask as bools [n, A]; [A] is that of a single environment."""
        if mask is None:
            return None
        sizes = discrete_sizes(self._env.action_space)
        if sizes is None:
            raise BadInput(
                f"action_mask is for discrete actions, these are {describe(self._env.action_space)}: leave it out"
            )
        allowed, shape = np.asarray(mask), (self._n, sum(sizes))
        if allowed.shape not in (shape, shape[-1:] if self._n == 1 else shape):
            raise BadInput(f"action_mask: expected the shape {shape}, one entry for each action, got {allowed.shape}")
        allowed = allowed.astype(bool).reshape(shape)
        if not all(part.any(-1).all() for part in np.split(allowed, np.cumsum(sizes)[:-1], -1)):
            raise BadInput("action_mask allows no action at all in some row: expected at least one")
        return torch.from_numpy(allowed)


def _tensors(space: Space, seen: Observation) -> Tree:
    """As a collector hands them to the policy."""
    if isinstance(seen, Mapping):
        assert isinstance(space, Dict)
        return {key: _tensors(space[key], inner) for key, inner in seen.items()}
    return torch.from_numpy(np.array(seen, numpy_dtype(space)))
