"""Layers whose noise is learned. Fortunato et al. 2018, https://arxiv.org/abs/1706.10295"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class Noisy(Protocol):
    """A network that explores by noise of its own: q(observation, noise [..., noise_size]), standard normal."""

    noise_size: int  # 0: none


class NoisyLinear(nn.Module):
    """y = (W x + b) + f(e_out) * (W_sigma (f(e_in) * x) + b_sigma), with f(e) = sign(e) sqrt|e|: factorised noise, eq. 10-11.

    The paper's weight noise f(e_out) f(e_in)^T never exists as a matrix, so every row may have noise of its own at no more cost.
    At the start W, b ~ U(-1/sqrt(inputs), 1/sqrt(inputs)) and W_sigma, b_sigma = sigma / sqrt(inputs), section 3.2.
    """

    def __init__(self, inputs: int, outputs: int, sigma: float = 0.5):
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.noise_size = inputs + outputs
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(nn.init.uniform_(torch.empty(outputs, inputs, dtype=torch.float32), -bound, bound))
        self.bias = nn.Parameter(nn.init.uniform_(torch.empty(outputs, dtype=torch.float32), -bound, bound))
        self.weight_sigma = nn.Parameter(torch.full((outputs, inputs), sigma * bound, dtype=torch.float32))
        self.bias_sigma = nn.Parameter(torch.full((outputs,), sigma * bound, dtype=torch.float32))

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """x [..., inputs], noise [..., inputs + outputs] standard normal -> [..., outputs]. None: the mean weights (evaluation)."""
        y = nn.functional.linear(x, self.weight, self.bias)
        if noise is None:
            return y
        into, out = scale(noise).split([self.inputs, self.outputs], -1)
        return y + out * nn.functional.linear(into * x, self.weight_sigma, self.bias_sigma)


def scale(noise: Tensor) -> Tensor:
    """f(e) = sign(e) sqrt|e|."""
    return noise.sign() * noise.abs().sqrt()
