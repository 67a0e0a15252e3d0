"""Several networks of one shape as one: every layer is one batched matrix product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.func import functional_call

from whorl.errors import BadInput, Incompatible
from whorl.nets.mlp import ACTIVATIONS, initialize, linear
from whorl.spaces import describe, flat_size, flatten, has_image


class EnsembleLinear(nn.Module):
    """x [E, B, inputs] (or [B, inputs], the same for all) -> [E, B, outputs]: member e has its own weight and bias, torch's."""

    def __init__(self, members: int, inputs: int, outputs: int):
        super().__init__()
        layers = [linear(inputs, outputs) for _ in range(members)]
        for layer in layers:
            initialize(layer, "uniform")
        self.weight = nn.Parameter(torch.stack([layer.weight.detach().T for layer in layers]).contiguous())
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]).unsqueeze(1))

    def forward(self, x: Tensor) -> Tensor:
        x = x if x.ndim == 3 else x.expand(len(self.weight), *x.shape)
        if self.weight.shape[-1] == 1:  # MKL takes five times as long for a product with a single column
            return (x * self.weight.transpose(1, 2)).sum(-1, keepdim=True) + self.bias
        return torch.baddbmm(self.bias, x, self.weight)


class QEnsemble(nn.Module):
    """`members` action-value networks q_e(s, a), each initialised by itself: observation [*rows], action [*rows, *] -> [members, *rows].

    outputs: more than one number for each pair, [members, *rows, outputs] (quantiles). action_space None: a function of the observation
    alone, such as the values of all Discrete actions, always [members, *rows, outputs]. Actions of a bounded Box enter in units of half
    its range around its centre.
    Raises Incompatible for image observations, BadInput for fewer than one member.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space | None,
        members: int = 2,
        hidden: Sequence[int] = (256, 256),
        activation: str = "relu",
        outputs: int = 1,
    ):
        super().__init__()
        if members < 1:
            raise BadInput(f"an ensemble needs at least 1 member, got {members}")
        self.inputs = PairInput(observation_space, action_space)
        self.members, self.outputs = members, outputs
        self.scalar = outputs == 1 and action_space is not None
        sizes = [self.inputs.width, *hidden]
        layers: list[nn.Module] = []
        for a, b in zip(sizes, sizes[1:], strict=False):
            layers += [EnsembleLinear(members, a, b), ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers, EnsembleLinear(members, sizes[-1], outputs))

    def forward(self, observation: Any, action: Tensor | None = None) -> Tensor:
        x = self.inputs(observation, action)
        q = self.layers(x.flatten(0, -2))
        q = q if x.ndim == 2 else q.unflatten(1, x.shape[:-1])
        return q.squeeze(-1) if self.scalar else q

    def some(self, members: Tensor, observation: Any, action: Tensor | None = None) -> Tensor:
        """`forward` of these members only, members [M] of their numbers: [M, *rows], [M, *rows, outputs]. The others cost nothing."""
        chosen = {name: parameter[members] for name, parameter in self.named_parameters()}
        return functional_call(self, chosen, (observation, action))


class PairInput(nn.Module):
    """(observation, action) -> one vector [B, width]; the actions of a bounded Box in units of half its range around its centre."""

    centre: Tensor
    half_range: Tensor

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space | None):
        super().__init__()
        if has_image(observation_space):
            raise Incompatible(f"a critic of observation and action takes vectors, got {describe(observation_space)}")
        self.spaces = observation_space, action_space
        self.width = flat_size(observation_space) + (flat_size(action_space) if action_space is not None else 0)
        box = action_space if isinstance(action_space, spaces.Box) else None
        bounded = box is not None and np.isfinite([box.low, box.high]).all()
        self.scaled = bool(bounded and ((box.low != -1).any() or (box.high != 1).any()))  # type: ignore[union-attr]
        if self.scaled:
            low, high = (torch.as_tensor(b, dtype=torch.float32) for b in (box.low, box.high))  # type: ignore[union-attr]
            self.register_buffer("centre", (low + high) / 2, persistent=False)
            self.register_buffer("half_range", (high - low) / 2, persistent=False)

    def forward(self, observation: Any, action: Tensor | None = None) -> Tensor:
        observation_space, action_space = self.spaces
        x = flatten(observation_space, observation)
        if action_space is None or action is None:
            return x
        action = (action - self.centre) / self.half_range if self.scaled else action
        return torch.cat([x, flatten(action_space, action)], -1)
