"""A chain without its environment: for whoever steps one himself, and asks a policy what to do."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import cast

import numpy as np
import torch
from gymnasium import Space

from whorl.errors import BadInput
from whorl.functional.streams import stream
from whorl.spaces import leaves, tree_map
from whorl.spaces import zeros as space_zeros
from whorl.transforms.transform import Array, Observation, Result, Transform, merged


class Acting:
    """What an agent sees of n environments through transforms (the innermost first), and what its actions are inside.

    observation, action: spaces of ONE environment, the former inside of the transforms, the latter outside. Those that hand on both as they
    are have no part in it. Raises BadInput for a transform that makes several steps of one action, or shows how the environment looks: only
    an environment can do that.
    """

    def __init__(self, transforms: Sequence[Transform], observation: Space, action: Space, n: int) -> None:
        for each in transforms:
            if each.several:
                raise BadInput(
                    f"{type(each).__name__} makes several steps of one action, which only the environment can: step "
                    "whorl.make_env(..., transforms=[...]), or repeat the actions yourself and leave it out"
                )
            if each.draws:
                raise BadInput(
                    f"{type(each).__name__} shows how the environment looks, which only the environment knows: step "
                    "whorl.make_env(..., transforms=[...])"
                )
        self.rewards = False  # whether what is seen depends on rewards
        self.transforms = self._taking_part(list(deepcopy(tuple(transforms))), observation, action)
        for place, each in enumerate(self.transforms):
            each.eval()
            each.begin(n, "cpu")
            each.seed(stream(0, "transform", place))

    def _taking_part(self, transforms: list[Transform], observation: Space, action: Space) -> list[Transform]:
        """Tried once, on zeros, with a reward that is no number."""
        if not transforms:
            return []
        zeros = tree_map(torch.Tensor.numpy, space_zeros(observation, (1,)))
        seen, taken = zeros, cast(Array, space_zeros(action, (1,)).numpy())
        changed = set[int]()
        for place, each in enumerate(transforms):
            each.eval()
            each.begin(1, "cpu")
            each.seed(0)
            before, seen = seen, each.reset(seen, np.ones(1, bool))
            changed |= {place} if seen is not before else set()
        for each in reversed(transforms):
            taken = each.action(taken)
        none = np.zeros(1, bool)
        result = Result(zeros, np.full(1, np.nan, np.float32), none, none)
        for place, each in enumerate(transforms):
            before, result = result.observation, each.step(result)
            asked = type(each).action is not Transform.action or type(each).allowed is not Transform.allowed
            changed |= {place} if asked or result.observation is not before else set()
        self.rewards = any(x.dtype.kind == "f" and bool(np.isnan(x).any()) for x in leaves(result.observation))
        return [transforms[place] for place in sorted(changed)]

    @property
    def remembering(self) -> list[str]:
        """Those with a memory of the episode, by their classes."""
        return [type(each).__name__ for each in self.transforms if each.state()]

    def see(self, observation: Observation, first: np.ndarray, reward: np.ndarray) -> Observation:
        """What is seen of observations [n, ...] inside. first: [n] whether they begin an episode; reward: [n] that led to the others."""
        here = observation
        if not first.all():
            none = np.zeros(len(first), bool)
            result = Result(observation, reward, none, none)
            for each in self.transforms:
                result = each.step(result)
            here = result.observation
        if first.any():
            fresh = observation
            for each in self.transforms:
                fresh = each.reset(fresh, first)
            here = fresh if first.all() else merged(here, first, fresh)
        return here

    def allowed(self, mask: Array | None) -> Array | None:
        """The action mask [n, A] outside from the one inside, after `see`."""
        for each in self.transforms:
            mask = each.allowed(mask)
        return mask

    def action(self, action: Array) -> Array:
        """The action [n, ...] inside from the one outside."""
        for each in reversed(self.transforms):
            action = each.action(action)
        return action
