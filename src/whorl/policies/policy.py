"""The policy: the only thing that travels to workers. It draws nothing and keeps nothing per environment."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Generator, Tensor, nn

from whorl.nets.normalizer import ObservationNormalizer
from whorl.spaces import like, tree_map

Actor = Callable[..., tuple[dict[str, Any], Any]]


class Policy(nn.Module):
    """Observation -> action. Everything it needs to act right is saved with it, the observation normalizer included."""

    normalizer: ObservationNormalizer
    greedy: bool = True  # False: it has no greedy action, so evaluation draws noise too

    def initial(self, n: int) -> Any:
        """The recurrent carry of n fresh episodes; None when the policy has no memory."""
        return None

    def noise(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Every random number that `act` will use for a rollout of `shape` (T, N), in one draw: [T, N, ...]."""
        raise NotImplementedError

    def act(
        self, observation: Any, carry: Any, is_first: Tensor, noise: Tensor | None, action_mask: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Any]:
        """What to record for N environments (`action`, `log_prob`, ...) and the carry after acting.

        Pure: the same arguments give the same bits. `noise=None` is greedy.
        """
        raise NotImplementedError

    def actor(self, num_envs: int) -> Actor:
        """`act` for the arrays of an environment (numpy in, numpy out; tensors in, tensors out), as fast as it gets here.

        What it returns lives until its next call. It sees every later change of the weights, which are only written in place.
        """
        device = next(chain(self.parameters(), self.buffers()), torch.empty(0)).device

        def put(x: Any) -> Tensor:
            return torch.as_tensor(x, device=device)

        def act(observation: Any, carry: Any, is_first: Any, noise: Any, action_mask: Any = None) -> tuple[dict, Any]:
            noise = None if noise is None else put(noise)
            action_mask = None if action_mask is None else put(action_mask)
            with torch.inference_mode():
                decided, carry = self.act(tree_map(put, observation), carry, put(is_first), noise, action_mask)
            return {key: like(value, is_first) for key, value in decided.items()}, carry

        return act

    def encode(self, batch: Any) -> Tensor:
        """Features [..., width] of a batch's observations."""
        raise NotImplementedError

    def distribution(self, features: Tensor, action_mask: Tensor | None = None) -> Any:
        """The distribution over actions: `log_prob`, `entropy`, `kl`, `sample(noise)`, `mode`. None for a policy without one."""
        raise NotImplementedError
