"""A trained policy that acts for its user: observations and actions in the environment's own form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Dict, Space
from numpy.typing import ArrayLike
from torch import Generator

from whorl.envs.adapters.spaces import discrete_sizes
from whorl.envs.env import Env, Observation
from whorl.envs.own_form import Given, Own, batched
from whorl.errors import BadInput
from whorl.policies.policy import Held, Policy
from whorl.spaces import describe, leaves, numpy_dtype
from whorl.transforms.acting import Acting
from whorl.transforms.env import Transformed
from whorl.transforms.transform import Transform


class TrainedActor:
    """Acts in n environments at once, and keeps the policy's memory of their episodes.

        actor = trained.actor(n)
        action = actor(observation, is_first)

    deterministic: greedily, else as in training, with the numbers of `generator`.

    Observations and actions are those of the environment itself: the transforms around it are run here, with their memory of episodes.
    Their time limits end no episode, and what terminates one is not known here: `is_first` says it.
    """

    def __init__(self, policy: Policy, env: Env, n: int, deterministic: bool, generator: Generator):
        if n < 1:
            raise BadInput(f"an actor acts in at least 1 environment, got {n}")
        if deterministic and not policy.greedy:
            raise BadInput(f"{type(policy).__name__} has no greedy action: pass deterministic=False")
        self._policy, self._env, self._n = policy, env, n
        self._world, around = within(env)
        self._chain = Acting(around, self._world.observation_space, env.action_space, n)
        self._generator = None if deterministic else generator
        self._actor = policy.actor(n)  # as an evaluation acts, to the same bits
        self._carry: Held = policy.initial(n)
        self._begun = np.zeros(n, bool)

    @property
    def remembering(self) -> list[str]:
        """The transforms that remember their episodes, by their classes."""
        return self._chain.remembering

    def __call__(
        self,
        observation: Given,
        is_first: ArrayLike,
        action_mask: ArrayLike | None = None,
        reward: ArrayLike | None = None,
    ) -> Own:
        """The actions of a batch of n observations, in the environment's own action space.

        observation: [n, ...], what the environment gave, nested as its space is; is_first: [n], whether it begins an episode (one bool
        for all will do). action_mask: allowed actions [n, A], where the observation does not hold them. reward: [n] of the step that led
        to the observation, where a transform shows it (0 where an episode begins).
        Raises BadInput for what does not fit the spaces, where an environment's first observation begins no episode, and where rewards
        are shown and none are given.
        """
        batch, single = batched(self._env.own_observation_space, observation)
        if single:
            raise BadInput(
                "expected a batch of observations [n, ...], got a single one: put an axis in front, or use predict"
            )
        return self.act(batch, is_first, action_mask, reward)

    def act(
        self, batch: Own, is_first: ArrayLike, action_mask: ArrayLike | None, reward: ArrayLike | None = None
    ) -> Own:
        """As a call, for a batch that has been checked."""
        seen, mask = self._env.encode(batch)
        rows = len(leaves(seen)[0])
        if rows != self._n:
            raise BadInput(f"this actor acts in {self._n} environments, got {rows} observations")
        first = self._flags(is_first)
        seen = self._chain.see(_arrays(self._world.observation_space, seen), first, self._rewards(reward, first))
        allowed = self._chain.allowed(self._allowed(mask if action_mask is None else action_mask))
        noise = None if self._generator is None else self._policy.noise((1, rows), self._generator)[0]
        decided, self._carry = self._actor(seen, self._carry, first, None if noise is None else noise.numpy(), allowed)
        action = _clipped(np.array(decided["action"]), self._env.action_space)  # the next call writes there again
        return self._world.decode(_clipped(self._chain.action(action), self._world.action_space))

    def _flags(self, is_first: ArrayLike) -> np.ndarray:
        first = np.asarray(is_first)
        if first.dtype != bool or first.shape not in ((), (self._n,)):
            raise BadInput(f"is_first: expected bools of shape ({self._n},), got {first.dtype} of shape {first.shape}")
        first = np.broadcast_to(first, self._n)
        if not (self._begun | first).all():
            raise BadInput(
                f"is_first: environment {int((self._begun | first).argmin())} has begun no episode yet: pass True"
            )
        self._begun |= first
        return first.copy()

    def _rewards(self, reward: ArrayLike | None, first: np.ndarray) -> np.ndarray:
        """float32 [n], checked where they are looked at."""
        if not self._chain.rewards:
            return np.zeros(self._n, np.float32)
        if reward is None and not first.all():
            raise BadInput("what this policy sees shows the reward of the last step: pass it, actor(..., reward=[...])")
        given = np.zeros(self._n) if reward is None else np.asarray(reward)
        if given.shape != (self._n,) or given.dtype.kind not in "biuf" or not np.isfinite(given).all():
            raise BadInput(f"reward: expected {self._n} finite numbers, got {given.dtype} of shape {given.shape}")
        return given.astype(np.float32)

    def _allowed(self, mask: ArrayLike | None) -> np.ndarray | None:
        """The mask as bools [n, A]; [A] is that of a single environment."""
        if mask is None:
            return None
        sizes = discrete_sizes(self._world.action_space)
        if sizes is None:
            raise BadInput(
                f"action_mask is for discrete actions, these are {describe(self._world.action_space)}: leave it out"
            )
        allowed, shape = np.asarray(mask), (self._n, sum(sizes))
        if allowed.shape not in (shape, shape[-1:] if self._n == 1 else shape):
            raise BadInput(f"action_mask: expected the shape {shape}, one entry for each action, got {allowed.shape}")
        allowed = allowed.astype(bool).reshape(shape)
        if not all(part.any(-1).all() for part in np.split(allowed, np.cumsum(sizes)[:-1], -1)):
            raise BadInput("action_mask allows no action at all in some row: expected at least one")
        return allowed


def within(env: Env) -> tuple[Env, list[Transform]]:
    """The environment inside of all transforms, and these, the innermost first."""
    found = list[Transform]()
    while isinstance(env, Transformed):
        found = [*env, *found]
        env = env.env
    return env, found


def _arrays(space: Space, seen: Observation) -> Observation:
    """As the environment hands them on."""
    if isinstance(seen, Mapping):
        assert isinstance(space, Dict)
        return {key: _arrays(space[key], inner) for key, inner in seen.items()}
    return np.array(seen, numpy_dtype(space))


def _clipped(action: Any, space: Space) -> np.ndarray:
    return action.clip(space.low, space.high) if isinstance(space, Box) else action
