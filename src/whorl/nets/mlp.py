"""Multi-layer perceptron."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from whorl.errors import BadInput
from whorl.nets.precision import Hidden, in_bfloat16

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


def linear(inputs: int, outputs: int, gain: float = math.sqrt(2)) -> nn.Linear:
    """A linear layer with orthogonal weights and zero bias (Saxe et al. 2014); the default gain suits hidden layers."""
    layer = nn.Linear(inputs, outputs, dtype=torch.float32)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def initialize(module: nn.Module, initialization: str) -> None:
    """ "orthogonal": the weights that whorl's layers are built with. "uniform": those of torch, for every layer inside.

    Uniform: weights and biases ~ U(-1/sqrt(inputs), 1/sqrt(inputs)), which was torch7's default too.
    Raises BadInput for any other name.
    """
    if initialization not in ("orthogonal", "uniform"):
        raise BadInput(f"initialization must be 'orthogonal' or 'uniform', got {initialization!r}")
    if initialization == "uniform":
        for layer in module.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.reset_parameters()


def alternate(
    modules: Iterable[nn.Module], activation: str, kind: type[nn.Module] = nn.Linear, open: bool = False
) -> bool:
    """Whether these are layers of one kind with `activation` between them, and after the last one if `open`, and nothing else.

    That is what is written for numpy computes: it reads weights and biases, and looks at no module's `forward`.
    """
    found, kinds = [*modules], (kind, ACTIVATIONS[activation])
    if len(found) % 2 == open or any(type(module) is not kinds[i % 2] for i, module in enumerate(found)):
        return False
    return all(isinstance(parameter, nn.Parameter) for layer in found[::2] for parameter in (layer.weight, layer.bias))


class MLP(Hidden, nn.Sequential):
    """[..., inputs] -> [..., hidden[-1]]: linear and activation for each hidden size."""

    def __init__(self, inputs: int, hidden: Sequence[int], activation: str = "tanh"):
        sizes = [inputs, *hidden]
        layers: list[nn.Module] = []
        for a, b in zip(sizes, sizes[1:], strict=False):
            layers += [linear(a, b), ACTIVATIONS[activation]()]
        super().__init__(*layers)
        self.activation = activation
        self.width = sizes[-1]

    def forward(self, x: Tensor) -> Tensor:
        """As Sequential, but layers are called without their hooks: a third of the time of a small network."""
        return in_bfloat16(self._through, x) if self.rounded else self._through(x)

    def _through(self, x: Tensor) -> Tensor:
        for layer in self._modules.values():
            x = layer.forward(x)
        return x
