"""The policy: the only thing that travels to workers. It draws nothing and keeps nothing per environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import chain

import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor, nn

from whorl.batch import Arrays, Numbers, State, Tree
from whorl.errors import BadInput
from whorl.nets.normalizer import ObservationNormalizer
from whorl.spaces import like, tree_map

Drawn = Tensor | None  # noise, action masks
Array = np.ndarray | Tensor
Carry = dict[str, Tensor] | None  # memory of N environments, each [N, ...]
Decided = tuple[dict[str, Tensor], Carry]  # what to record for N environments, and the carry after acting
Held = Mapping[str, Array] | None  # a carry in the arrays of an environment
Acted = tuple[Mapping[str, Array], Held]
Actor = Callable[..., Acted]


class Policy(nn.Module):
    """Observation -> action. Everything it needs to act right is saved with it, the observation normalizer included."""

    normalizer: ObservationNormalizer
    greedy: bool = True  # False: it has no greedy action, so evaluation draws noise too
    recurrent: bool = False  # True: the greedy action depends on the carry, too

    def register_bounds(self, space: spaces.Box) -> None:
        """Keep `low` and `high` of the actions as buffers, float32."""
        for name, bound in (("low", space.low), ("high", space.high)):
            self.register_buffer(name, torch.as_tensor(bound, dtype=torch.float32))

    def initial(self, n: int) -> Carry:
        """The carry of n fresh episodes; None when the policy has no memory."""
        return None

    def noise(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Every random number that `act` will use for a rollout of `shape` (T, N), in one draw: [T, N, ...]."""
        raise NotImplementedError

    def act(
        self, observation: Tree, carry: Carry, is_first: Tensor, noise: Drawn, action_mask: Drawn = None
    ) -> Decided:
        """What to record for N environments (`action`, `log_prob`, ...) and the carry after acting.

        Pure: the same arguments give the same bits. `noise=None` is greedy.
        """
        raise NotImplementedError

    def actor(self, num_envs: int) -> Actor:
        """`act` for the arrays of an environment (numpy in, numpy out; tensors in, tensors out), as fast as it gets here.

        What it returns lives until its next call. It sees every later change of the weights, which are only written in place.
        """
        device = next(chain(self.parameters(), self.buffers()), torch.empty(0)).device

        def put(x: Array) -> Tensor:
            return torch.as_tensor(x, device=device)

        def act(
            observation: Array | Mapping, carry: Carry, is_first: Array, noise: Array | None, action_mask: Array | None = None
        ) -> Acted:  # fmt: skip
            drawn = None if noise is None else put(noise)
            allowed = None if action_mask is None else put(action_mask)
            with torch.inference_mode():
                decided, carry = self.act(tree_map(put, observation), carry, put(is_first), drawn, allowed)
            return {key: like(value, is_first) for key, value in decided.items()}, carry

        return act

    def state(self) -> State:
        """All that it acts by: parameters, statistics, exploration."""
        return self.state_dict(), {}

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        """Go on from `state()`, in place. Raises BadInput for numbers that are not finite, but for bounds of actions that have none."""
        own = self.state_dict()
        if not all(
            x.isfinite().all() or (name in own and torch.equal(x, own[name].cpu())) for name, x in arrays.items()
        ):
            raise BadInput("the saved policy holds numbers that are not finite")
        self.load_state_dict(arrays)
        return True
