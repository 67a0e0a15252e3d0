"""The uniformly random policy."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor

from whorl.batch import Tree
from whorl.errors import Incompatible
from whorl.nets.normalizer import NoNormalizer
from whorl.policies.policy import Carry, Decided, Drawn, Policy
from whorl.spaces import action_sizes, describe


class Random(Policy):
    """Uniform over the action space (a Box must be bounded), over the allowed actions where a mask is given.

    Greedy (`noise=None`) means the first allowed choice, or the middle of the Box.
    """

    greedy = False
    low: Tensor
    high: Tensor

    def __init__(self, action_space: spaces.Space):
        super().__init__()
        self.normalizer = NoNormalizer()
        self.sizes = action_sizes(action_space)
        self.shape = action_space.shape or ()
        self.scalar = isinstance(action_space, spaces.Discrete)
        if self.sizes is None:
            if not isinstance(action_space, spaces.Box) or not np.isfinite([action_space.low, action_space.high]).all():
                raise Incompatible(
                    f"a random policy needs discrete actions or a bounded Box, got {describe(action_space)}"
                )
            self.register_bounds(action_space)

    def noise(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        size = self.shape if self.sizes is None else (sum(self.sizes),)
        return torch.rand(*shape, *size, dtype=torch.float32, device=generator.device, generator=generator)

    def act(
        self, observation: Tree, carry: Carry, is_first: Tensor, noise: Drawn, action_mask: Drawn = None
    ) -> Decided:
        n = is_first.shape
        if self.sizes is None:
            u = (
                torch.full((*n, *self.shape), 0.5, dtype=torch.float32, device=is_first.device)
                if noise is None
                else noise
            )
            return {"action": self.low + (self.high - self.low) * u}, carry
        scores = (
            torch.zeros(*n, sum(self.sizes), dtype=torch.float32, device=is_first.device) if noise is None else noise
        )
        if action_mask is not None:
            scores = torch.where(action_mask, scores, -1.0)
        chosen = [part.argmax(-1) for part in scores.split(self.sizes, -1)]
        return {"action": chosen[0] if self.scalar else torch.stack(chosen, -1).reshape(*n, *self.shape)}, carry
