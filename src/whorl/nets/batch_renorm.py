"""Batch renormalization (Ioffe 2017, https://arxiv.org/abs/1702.03275) and the networks of CrossQ.

Nothing here changes by being called: a forward in training appends its batch statistics to a list, `follow` moves the running ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from whorl.nets.encoder import EncoderFactory, encoder_for
from whorl.nets.ensemble import EnsembleLinear, PairInput
from whorl.nets.mlp import ACTIVATIONS
from whorl.nets.precision import Hidden, in_bfloat16

EPSILON = 1e-3  # of the variance, and the largest corrections: those of CrossQ's authors
R_MAX, D_MAX = 3.0, 5.0


class BatchRenorm(nn.Module):
    """x [*members, B, width] -> weight * y + bias, each column normalized over the rows, each member by itself.

    moments None (acting): y = (x - mean) / std with the running mean and std = sqrt(var + 1e-3).
    moments a list (training): y = (x - mean_B) / std_B * r + d with the batch's own, where r = clip(std_B / std, 1/3, 3) and
    d = clip((mean_B - mean) / std, -5, 5) carry no gradient, so that where nothing is clipped y is what acting would give; until
    `warmup` batches have been followed r = 1 and d = 0, which is batch normalization. Appends mean_B and var_B. Ioffe, algorithm 1.
    """

    mean: Tensor
    var: Tensor
    batches: Tensor

    def __init__(self, width: int, members: int = 0, momentum: float = 0.99, warmup: int = 100_000):
        super().__init__()
        self.momentum, self.warmup = momentum, warmup
        shape = (members, 1, width) if members else (1, width)
        self.weight, self.bias = (
            nn.Parameter(torch.ones(shape, dtype=torch.float32)),
            nn.Parameter(torch.zeros(shape, dtype=torch.float32)),
        )
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float32))
        self.register_buffer("var", torch.ones(shape, dtype=torch.float32))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor, moments: list[Tensor] | None = None) -> Tensor:
        if moments is None:
            scale = self.weight * (self.var + EPSILON).rsqrt()
            return torch.addcmul(self.bias - self.mean * scale, x, scale)
        var, mean = torch.var_mean(x, -2, correction=0, keepdim=True)
        moments += [mean.detach(), var.detach()]
        std = (var + EPSILON).sqrt()
        with torch.no_grad():
            warm, running = self.batches >= self.warmup, (self.var + EPSILON).sqrt()
            r = torch.where(warm, (std / running).clamp(1 / R_MAX, R_MAX), 1.0)
            d = torch.where(warm, ((mean - self.mean) / running).clamp(-D_MAX, D_MAX), 0.0)
        scale = self.weight * r / std  # folded: one pass over x
        return torch.addcmul(self.bias + self.weight * d - mean * scale, x, scale)


@torch.no_grad()
def follow(module: nn.Module, moments: Tensor) -> None:
    """running <- momentum * running + (1 - momentum) * batch, for all layers inside, in one call.

    moments: one flat tensor of all that a forward of this module appended, in that order.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, BatchRenorm)]
    running = [statistic.view(-1) for layer in layers for statistic in (layer.mean, layer.var)]
    moments = torch.where(moments.isfinite().all(), moments, torch.cat(running))  # a void step leaves no trace
    torch._foreach_lerp_(running, moments.split([len(r) for r in running]), 1 - layers[0].momentum)
    torch._foreach_add_([layer.batches for layer in layers], 1)


def flat(moments: list[Tensor]) -> Tensor:
    """What `follow` takes."""
    return torch.cat([m.flatten() for m in moments])


class BatchRenormMLP(Hidden):
    """BatchRenorm on the input, then linear, activation, BatchRenorm for each hidden size: [*members, B, inputs] -> [..., hidden[-1]]."""

    def __init__(self, inputs: int, hidden: Sequence[int], activation: str, members: int, momentum: float, warmup: int):
        super().__init__()
        sizes = [inputs, *hidden]
        pairs = list(zip(sizes, sizes[1:], strict=False))
        self.norms = nn.ModuleList(BatchRenorm(size, members, momentum, warmup) for size in sizes)
        self.linears = nn.ModuleList(
            EnsembleLinear(members, a, b) if members else nn.Linear(a, b, dtype=torch.float32) for a, b in pairs
        )
        self.activation = ACTIVATIONS[activation]()
        self.width = sizes[-1]

    def forward(self, x: Tensor, moments: list[Tensor] | None = None) -> Tensor:
        x = self.norms[0](x, moments)
        for layer, norm in zip(self.linears, self.norms[1:], strict=True):
            x = norm(self.activation(in_bfloat16(layer, x) if self.rounded else layer(x)), moments)
        return x


class BatchRenormEncoder(nn.Module):
    """Observation [B] -> features [B, width]; images through a CNN, or all through the user's `encoder`, before the first norm."""

    encoder: Any

    def __init__(
        self, space: spaces.Space, hidden: Sequence[int], activation: str = "relu", momentum: float = 0.99, warmup: int = 100_000,
        encoder: EncoderFactory | None = None,
    ):  # fmt: skip
        super().__init__()
        self.encoder = encoder_for(space, encoder, (), activation, "uniform")
        self.mlp = BatchRenormMLP(self.encoder.width, hidden, activation, 0, momentum, warmup)
        self.width = self.mlp.width

    def forward(self, observation: Any, moments: list[Tensor] | None = None) -> Tensor:
        return self.mlp(self.encoder(observation), moments)


class BatchRenormQ(nn.Module):
    """`members` action-value networks: observation [B], action [B, *] -> [members, B]; inputs as those of `QEnsemble`."""

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        members: int = 2,
        hidden: Sequence[int] = (2048, 2048),
        activation: str = "relu",
        momentum: float = 0.99,
        warmup: int = 100_000,
        encoder: EncoderFactory | None = None,
    ):
        super().__init__()
        self.members, self.inputs = members, PairInput(observation_space, action_space, encoder)
        self.mlp = BatchRenormMLP(self.inputs.width, hidden, activation, members, momentum, warmup)
        self.head = EnsembleLinear(members, self.mlp.width, 1)

    def values(self, pairs: Tensor, moments: list[Tensor] | None = None) -> Tensor:
        """[members, B] of `inputs(observation, action)` [B, width]; moments: see BatchRenorm."""
        return self.head(self.mlp(pairs.expand(self.members, *pairs.shape), moments)).squeeze(-1)

    def forward(self, observation: Any, action: Tensor) -> Tensor:
        return self.values(self.inputs(observation, action))
