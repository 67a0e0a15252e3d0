"""A population: every episode is acted by a member of its own, a small network whose parameters are drawn when the episode begins."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from gymnasium import spaces
from torch import Generator, Tensor

from whorl.batch import Tree
from whorl.errors import Incompatible
from whorl.nets.normalizer import observation_normalizer
from whorl.policies.distributions import MASKED
from whorl.policies.policy import Actor, Carry, Decided, Drawn, Policy
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
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float32))
        self.register_buffer("std", torch.full((size,), float(std), dtype=torch.float32))

    def initial(self, n: int) -> Carry:
        """Nobody: the first step of an episode draws its member."""
        return {"parameters": torch.zeros(n, len(self.mean), dtype=torch.float32, device=self.mean.device)}

    def noise(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Standard normal [T, N, D]; only the rows in which an episode begins are used."""
        return torch.randn(*shape, len(self.mean), dtype=torch.float32, device=generator.device, generator=generator)

    def act(
        self, observation: Tree, carry: Carry, is_first: Tensor, noise: Drawn, action_mask: Drawn = None
    ) -> Decided:
        if noise is None:
            theta = self.mean.expand(is_first.shape[0], -1)
        else:
            assert carry is not None
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
        from whorl.policies.actors.population import population

        vector = isinstance(self.space, spaces.Box) and self.space.dtype != np.uint8
        if not vector or self.mean.device.type != "cpu":
            return super().actor(num_envs)
        mean, std = self.mean.numpy(), self.std.numpy()
        return population(self.normalizer, mean, std, self.sizes, self.discrete, num_envs)
