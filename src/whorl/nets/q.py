"""Action values: one number, a categorical distribution, or quantiles for each action."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from whorl.errors import BadInput
from whorl.functional.distributional import midpoints
from whorl.nets.encoder import EncoderFactory, encoder_for
from whorl.nets.mlp import ACTIVATIONS
from whorl.nets.noisy import NoisyLinear
from whorl.nets.rnn import Choice, with_memory


class Stream(nn.Sequential):
    """Linear layers, or noisy ones, with activations between them."""

    def __init__(self, sizes: Sequence[int], activation: str, noisy: bool):
        layers: list[nn.Module] = []
        for inputs, outputs in zip(sizes, sizes[1:], strict=False):
            layers += [
                NoisyLinear(inputs, outputs) if noisy else nn.Linear(inputs, outputs, dtype=torch.float32),
                ACTIVATIONS[activation](),
            ]
        super().__init__(*layers[:-1])
        self.noise_size = sum(layer.noise_size for layer in self if isinstance(layer, NoisyLinear))

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        taken = 0
        for layer in self._modules.values():  # without their hooks, as in MLP
            if noise is None or not isinstance(layer, NoisyLinear):
                x = layer.forward(x)
            else:
                x = layer.forward(x, noise[..., taken : taken + layer.noise_size])
                taken += layer.noise_size
        return x


class QNetwork(nn.Module):
    """q(s, .): observation -> [..., actions], or [..., actions, outputs] for more than one output of each action.

    dueling: V(s) + A(s, a) - mean_a A(s, a), output by output, from two streams with the last hidden layer to themselves
    (Wang et al. 2016, eq. 9). noisy: the streams' layers are NoisyLinear and take `noise` [..., noise_size], standard normal.
    Weights start as torch's: U(-1/sqrt(inputs), 1/sqrt(inputs)). encoder: makes one of the user's, in place of the shared layers.
    memory: one behind these (gate_bias: see `Memory`).
    """

    encoder: Any

    def __init__(
        self,
        observation_space: spaces.Space,
        actions: int,
        hidden: Sequence[int] = (120, 84),
        activation: str = "relu",
        outputs: int = 1,
        dueling: bool = False,
        noisy: bool = False,
        encoder: EncoderFactory | None = None,
        memory: Choice = "none",
        memory_width: int = 128,
        gate_bias: float = 0.0,
    ):
        super().__init__()
        shared, own = (hidden[:-1], hidden[-1:]) if dueling or noisy else (hidden, ())
        self.actions, self.outputs, self.activation = actions, outputs, activation
        looks = encoder_for(observation_space, encoder, shared, activation, "uniform")
        self.encoder = with_memory(looks, memory, memory_width, gate_bias)
        self.advantage = Stream((self.encoder.width, *own, actions * outputs), activation, noisy)
        self.value = Stream((self.encoder.width, *own, outputs), activation, noisy) if dueling else None
        self.noise_size = self.advantage.noise_size + (self.value.noise_size if self.value is not None else 0)

    def forward(self, observation: Any, noise: Tensor | None = None) -> Tensor:
        features, own = self.encoder.forward(observation), self.advantage.noise_size
        q = self.advantage.forward(features, None if noise is None else noise[..., :own])
        if self.outputs == 1 and self.value is None:
            return q
        q = q.unflatten(-1, (self.actions, self.outputs))
        if self.value is not None:
            value = self.value(features, None if noise is None else noise[..., own:])
            q = value.unsqueeze(-2) + q - q.mean(-2, keepdim=True)
        return q.squeeze(-1) if self.outputs == 1 else q


class CategoricalQ(nn.Module):
    """Returns over the atoms of `support` [K], spaced evenly from v_min to v_max: Bellemare et al. 2017.

    net: observation -> logits [..., A, K]. forward: the mean, q [..., A]. Raises BadInput unless v_min < v_max.
    """

    support: Tensor

    def __init__(self, net: QNetwork, v_min: float, v_max: float):
        super().__init__()
        if v_min >= v_max:
            raise BadInput(f"the atoms go from v_min up to v_max, got v_min = {v_min}, v_max = {v_max}")
        self.net, self.noise_size = net, net.noise_size
        self.register_buffer("support", torch.linspace(v_min, v_max, net.outputs, dtype=torch.float32))

    def logits(self, observation: Any, noise: Tensor | None = None) -> Tensor:
        """[..., A, K]."""
        return self.net(observation, noise)

    def mean(self, logits: Tensor) -> Tensor:
        """q [..., A] of logits [..., A, K]."""
        return logits.softmax(-1) @ self.support

    def forward(self, observation: Any, noise: Tensor | None = None) -> Tensor:
        return self.mean(self.logits(observation, noise))


class QuantileQ(nn.Module):
    """Returns as N equally likely values, Dabney et al. 2018a: net gives [..., A, N], their mean is q [..., A]."""

    def __init__(self, net: QNetwork):
        super().__init__()
        self.net = net

    def quantiles(self, observation: Any) -> Tensor:
        """[..., A, N]: estimates of the quantiles at (i + 1/2) / N."""
        return self.net(observation)

    def forward(self, observation: Any) -> Tensor:
        return self.quantiles(observation).mean(-1)


class ImplicitQuantileQ(nn.Module):
    """Z_tau(s, .) = head(psi(s) * phi(tau)), Dabney et al. 2018b, eq. 4: any quantile of the return, for any tau in [0, 1].

    phi_j(tau) = ReLU(sum_i cos(pi i tau) w_ij + b_j), i = 0 .. cosines - 1. forward: q [..., A], the mean over the midpoints of
    `acting` equal intervals of [0, 1], where the paper draws taus: so acting draws nothing.
    """

    midpoints: Tensor
    multiples: Tensor

    def __init__(self, net: QNetwork, cosines: int = 64, acting: int = 32):
        super().__init__()
        self.net = net
        self.embedding = nn.Linear(cosines, net.encoder.width, dtype=torch.float32)
        self.register_buffer("multiples", math.pi * torch.arange(cosines, dtype=torch.float32), persistent=False)
        self.register_buffer("midpoints", midpoints(acting, torch.zeros((), dtype=torch.float32)), persistent=False)

    def quantiles(self, observation: Any, tau: Tensor) -> Tensor:
        """[..., A, N] for observations [...] and tau [..., N]."""
        phi = self.embedding(torch.cos(tau.unsqueeze(-1) * self.multiples)).relu()  # [..., N, width]
        return self.net.advantage(self.net.encoder(observation).unsqueeze(-2) * phi).transpose(-1, -2)

    def forward(self, observation: Any) -> Tensor:
        return self.quantiles(observation, self.midpoints).mean(-1)
