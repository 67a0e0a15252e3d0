"""Small networks without torch: numpy over zero-copy views of the weights. At N = 8 a torch forward is all overhead.

All of them see an optimizer's step in place at once, and what they return lives until their next call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from torch import nn

from whorl.nets.encoder import Encoder
from whorl.nets.mlp import alternate
from whorl.nets.normalizer import NoNormalizer, Normalizer, ObservationNormalizer

Rows = np.ndarray
Given = Rows | None
Memory = dict[str, Rows]  # None for policies without
Network = Callable[[Rows], tuple[Rows, Rows]]


def numpy_mlp(modules: Iterable[nn.Module], activation: str, num_envs: int) -> Network:
    """x [N, inputs] -> (what the last layer sees, its output): the linear layers among `modules`, `activation` between them."""
    layers = [module for module in modules if isinstance(module, nn.Linear)]
    weights = [layer.weight.detach().numpy().T for layer in layers]
    biases = [layer.bias.detach().numpy() for layer in layers]
    outs = [np.empty((num_envs, len(bias)), np.float32) for bias in biases]
    steps, last, relu = list(zip(weights, biases, outs, strict=True)), outs[-1], activation == "relu"

    def forward(x: Rows) -> tuple[Rows, Rows]:
        features = x
        for weight, bias, out in steps:
            features = x
            np.matmul(x, weight, out=out)
            np.add(out, bias, out=out)
            if out is not last:
                np.maximum(out, 0, out=out) if relu else np.tanh(out, out=out)
            x = out
        return features, x

    return forward


def numpy_normalizer(normalizer: ObservationNormalizer, num_envs: int) -> Callable[[Rows], Rows]:
    """observation [N, ...] -> normalized [N, inputs], of a `Normalizer` or none."""
    if not isinstance(normalizer, Normalizer):
        return lambda observation: observation.reshape(num_envs, -1)
    mean, scale, clip = normalizer.mean.numpy().reshape(-1), normalizer.scale.numpy().reshape(-1), normalizer.clip
    inputs = np.empty((num_envs, mean.size), np.float32)

    def forward(observation: Rows) -> Rows:
        np.subtract(observation.reshape(num_envs, -1), mean, out=inputs)
        np.multiply(inputs, scale, out=inputs)
        return np.clip(inputs, -clip, clip, out=inputs)

    return forward


def numpy_network(
    normalizer: ObservationNormalizer, encoder: nn.Module, top: Iterable[nn.Module], num_envs: int
) -> Network | None:
    """observation [N, ...] -> (features [N, width], output [N, outputs]): normalizer, encoder, the layers of `top`.

    None where that is more than numpy can do: on another device, and unless one float vector goes straight into an MLP.
    """
    if not isinstance(encoder, Encoder) or not encoder.plain or not isinstance(normalizer, Normalizer | NoNormalizer):
        return None
    modules = [*encoder.mlp, *top]
    if not alternate(modules, encoder.mlp.activation):
        return None
    if any(parameter.device.type != "cpu" for module in modules for parameter in module.parameters()):
        return None
    normalize, mlp = numpy_normalizer(normalizer, num_envs), numpy_mlp(modules, encoder.mlp.activation, num_envs)
    return lambda observation: mlp(normalize(observation))
