"""A population: every episode is acted by a member of its own, a small network whose parameters are drawn when the episode begins."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor

from whorl.errors import Incompatible
from whorl.nets.normalizer import observation_normalizer
from whorl.policies.distributions import MASKED
from whorl.policies.policy import Actor, Policy
from whorl.spaces import describe, flat_size, flatten, is_image


class Population(Policy):
    """theta = mean + std * noise [D], drawn at an episode's first step; the action is that of the network theta.

    The network is linear (`hidden` empty) or has tanh layers; theta holds, layer by layer, the weights [out, in] row by row, then the
    biases [out]. Discrete: the action with the largest output; Box: the output itself. Greedy (`noise=None`) acts with the mean.
    The member of an environment is its carry: `is_first` replaces it, so nothing is kept here. `parameters` [N, D] is recorded.
    Raises Incompatible for actions other than Discrete and one-axis Box, and for image or Dict observations.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        hidden: Sequence[int] = (),
        std: float = 1.0,
        normalize_observation: bool = False,
    ):
        super().__init__()
        if isinstance(observation_space, spaces.Dict) or is_image(observation_space):
            raise Incompatible(f"a population acts on vectors and discrete kinds, got {describe(observation_space)}")
        self.discrete = isinstance(action_space, spaces.Discrete)
        if isinstance(action_space, spaces.Discrete):
            outputs = int(action_space.n)
        elif isinstance(action_space, spaces.Box) and len(action_space.shape) == 1:
            outputs = action_space.shape[0]
        else:
            raise Incompatible(f"a population acts in Discrete or one-axis Box spaces, got {describe(action_space)}")
        self.space = observation_space
        self.sizes = (flat_size(observation_space), *hidden, outputs)
        size = sum((inputs + 1) * outputs for inputs, outputs in pairwise(self.sizes))
        self.normalizer = observation_normalizer(observation_space, normalize_observation)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.full((size,), float(std)))

    def initial(self, n: int) -> dict[str, Tensor]:
        """Nobody: the first step of an episode draws its member."""
        return {"parameters": torch.zeros(n, len(self.mean), device=self.mean.device)}

    def noise(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Standard normal [T, N, D]; only the rows in which an episode begins are used."""
        return torch.randn(*shape, len(self.mean), device=generator.device, generator=generator)

    def act(self, observation, carry, is_first, noise, action_mask=None):
        if noise is None:
            theta = self.mean.expand(len(is_first), -1)
        else:
            theta = torch.where(is_first[:, None], self.mean + self.std * noise, carry["parameters"])
        output, k = flatten(self.space, self.normalizer(observation)), 0
        for i, (ins, outs) in enumerate(pairwise(self.sizes)):
            weight, bias = theta[:, k : k + ins * outs].view(-1, outs, ins), theta[:, k + ins * outs :][:, :outs]
            output = (weight @ output.tanh()[:, :, None] if i else weight @ output[:, :, None])[:, :, 0] + bias
            k += (ins + 1) * outs
        return {"action": self._choose(output, action_mask), "parameters": theta}, {"parameters": theta}

    def _choose(self, output: Tensor, action_mask: Tensor | None) -> Tensor:
        if not self.discrete:
            return output
        return (output if action_mask is None else torch.where(action_mask, output, MASKED)).argmax(-1)

    def actor(self, num_envs: int) -> Actor:
        """On the CPU a float vector goes through a compiled loop over the members; all else is `act`."""
        vector = isinstance(self.space, spaces.Box) and self.space.dtype != np.uint8
        return self._compiled_actor(num_envs) if vector and self.mean.device.type == "cpu" else super().actor(num_envs)

    def _compiled_actor(self, num_envs: int) -> Actor:
        """Equal to `act` to float32 rounding. `mean` and `std` are views: a refit in place is seen at once."""
        mean, std, sizes = self.mean.numpy(), self.std.numpy(), np.array(self.sizes)
        normalized = not isinstance(self.normalizer, torch.nn.Identity)
        everybody = np.broadcast_to(mean, (num_envs, len(mean)))
        output = np.empty((num_envs, self.sizes[-1]), np.float32)

        def act(observation: Any, carry: Any, is_first: Any, noise: Any, action_mask: Any = None) -> tuple[dict, Any]:
            if noise is None:
                theta = everybody
            elif is_first.any():
                theta = np.where(is_first[:, None], mean + std * noise, carry["parameters"])
            else:
                theta = carry["parameters"]
            x = observation
            if normalized:
                x = self.normalizer(torch.from_numpy(x)).numpy()
            _forward(x.reshape(num_envs, -1), theta, sizes, output)
            if self.discrete and action_mask is not None:
                np.copyto(output, np.float32(MASKED), where=~action_mask)
            action = output.argmax(-1) if self.discrete else output
            return {"action": action, "parameters": theta}, {"parameters": theta}

        return act


@numba.njit(cache=True)
def _forward(x, theta, sizes, output):
    """output[i] = the network theta[i] at x[i]."""
    a, b = np.empty(sizes.max(), np.float32), np.empty(sizes.max(), np.float32)
    for i in range(len(x)):
        a[: sizes[0]] = x[i]
        k = 0
        for layer in range(len(sizes) - 1):
            ins, outs = sizes[layer], sizes[layer + 1]
            for o in range(outs):
                total = theta[i, k + ins * outs + o]
                for j in range(ins):
                    total += theta[i, k + o * ins + j] * a[j]
                b[o] = np.tanh(total) if layer < len(sizes) - 2 else total
            k += (ins + 1) * outs
            a, b = b, a
        output[i] = a[: len(output[i])]
