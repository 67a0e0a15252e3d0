"""Several networks of one shape as one: every layer is one batched matrix product."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.func import functional_call

from whorl.errors import BadInput
from whorl.nets.encoder import EncoderFactory, encoder_for
from whorl.nets.mlp import ACTIVATIONS, initialize, linear
from whorl.nets.precision import Hidden, in_bfloat16
from whorl.nets.rnn import Choice, with_memory
from whorl.spaces import flat_size, flatten


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


class EnsembleLayers(Hidden, nn.Sequential):
    """Hidden layers, then the output layer."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.rounded:
            return super().forward(x)
        *hidden, head = self._modules.values()
        return head(in_bfloat16(lambda x: reduce(lambda x, layer: layer(x), hidden, x), x))


class QEnsemble(nn.Module):
    """`members` action-value networks q_e(s, a), each initialised by itself: observation [*rows], action [*rows, *] -> [members, *rows].

    outputs: more than one number for each pair, [members, *rows, outputs] (quantiles). action_space None: a function of the observation
    alone, such as the values of all Discrete actions, always [members, *rows, outputs]. Actions of a bounded Box enter in units of half
    its range around its centre. Images go through one CNN, and observations through one `encoder` of the user's, for all members, and
    so they do through one `memory` of `memory_width`.
    Raises BadInput for fewer than one member.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space | None,
        members: int = 2,
        hidden: Sequence[int] = (256, 256),
        activation: str = "relu",
        outputs: int = 1,
        encoder: EncoderFactory | None = None,
        memory: Choice = "none",
        memory_width: int = 128,
    ):
        super().__init__()
        if members < 1:
            raise BadInput(f"an ensemble needs at least 1 member, got {members}")
        self.inputs = PairInput(observation_space, action_space, encoder, memory, memory_width)
        self.members, self.outputs = members, outputs
        self.scalar = outputs == 1 and action_space is not None
        sizes = [self.inputs.width, *hidden]
        layers: list[nn.Module] = []
        for a, b in zip(sizes, sizes[1:], strict=False):
            layers += [EnsembleLinear(members, a, b), ACTIVATIONS[activation]()]
        self.layers = EnsembleLayers(*layers, EnsembleLinear(members, sizes[-1], outputs))

    def forward(self, observation: Any, action: Tensor | None = None) -> Tensor:
        x = self.inputs(observation, action)
        return self._rows(self.layers(x.flatten(0, -2)), x)

    def _rows(self, q: Tensor, x: Tensor) -> Tensor:
        q = q if x.ndim == 2 else q.unflatten(1, x.shape[:-1])
        return q.squeeze(-1) if self.scalar else q

    def some(self, members: Tensor, observation: Any, action: Tensor | None = None) -> Tensor:
        """`forward` of these members only, members [M] of their numbers: [M, *rows], [M, *rows, outputs]. The others cost nothing."""
        x = self.inputs(observation, action)
        chosen = {name: parameter[members] for name, parameter in self.layers.named_parameters()}
        return self._rows(functional_call(self.layers, chosen, (x.flatten(0, -2),)), x)


class PairInput(nn.Module):
    """(observation, action) -> one vector [B, width]: features of the one, and the other in units of half a bounded Box's range.

    An image's features are those of a CNN, vectors are their own; or all are those of the user's `encoder`.
    """

    encoder: Any
    centre: Tensor
    half_range: Tensor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space | None,
        encoder: EncoderFactory | None = None,
        memory: Choice = "none",
        memory_width: int = 128,
    ):
        super().__init__()
        looks = encoder_for(observation_space, encoder, (), "relu", "uniform")
        self.encoder, self.action_space = with_memory(looks, memory, memory_width), action_space
        self.width = self.encoder.width + (flat_size(action_space) if action_space is not None else 0)
        box = action_space if isinstance(action_space, spaces.Box) else None
        bounded = box is not None and np.isfinite([box.low, box.high]).all()
        self.scaled = bool(bounded and ((box.low != -1).any() or (box.high != 1).any()))  # type: ignore[union-attr]
        if self.scaled:
            low, high = (torch.as_tensor(b, dtype=torch.float32) for b in (box.low, box.high))  # type: ignore[union-attr]
            self.register_buffer("centre", (low + high) / 2, persistent=False)
            self.register_buffer("half_range", (high - low) / 2, persistent=False)

    def forward(self, observation: Any, action: Tensor | None = None) -> Tensor:
        x = self.encoder(observation)
        if self.action_space is None or action is None:
            return x
        action = (action - self.centre) / self.half_range if self.scaled else action
        return torch.cat([x, flatten(self.action_space, action)], -1)
