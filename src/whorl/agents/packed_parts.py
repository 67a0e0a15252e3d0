"""What losses by rows are made of, whoever's they are: networks that are plain, and columns of a batch as numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
from torch import nn
from torch.optim import Optimizer

from whorl.agents.step import Loss
from whorl.batch import Batch, Metrics, get
from whorl.errors import Incompatible
from whorl.nets.encoder import Encoder
from whorl.nets.mlp import alternate
from whorl.nets.normalizer import NoNormalizer, Normalizer, ObservationNormalizer
from whorl.nets.packed import CHUNK, Rows, Tower, Vector, linear_layers, normalize

NOTHING = np.empty((0, 0), bool)  # no action mask
Vectors = Callable[[Optimizer], Vector]  # the vector of an optimizer


class RowLoss(Protocol):
    """A loss of an agent's without autograd."""

    def __call__(self, batch: Batch, share: float) -> tuple[float, Metrics]:
        """(loss, metrics) of a batch, those of the agent; share * gradient is added to that of the vector."""


class Part(NamedTuple):
    """One loss of an agent, with the optimizer that steps on it. rows: the same by rows, given the vector of each optimizer."""

    loss: Loss
    optimizer: Optimizer
    rows: Callable[[Vectors], RowLoss]


class Inputs:
    """Observations of a batch as a plain network sees them, chunk by chunk. Raises Incompatible for others than one float vector."""

    def __init__(self, normalizer: ObservationNormalizer, *encoders: nn.Module):
        for encoder in encoders:
            if type(encoder) is not Encoder:
                raise Incompatible(f"{type(encoder).__name__} is not one of whorl's MLPs")
            if not encoder.plain:
                raise Incompatible("its observations are not one float vector")
        if type(normalizer) not in (Normalizer, NoNormalizer):
            raise Incompatible(f"its normalizer is a {type(normalizer).__name__}")
        self._statistics = None
        if isinstance(normalizer, Normalizer):
            self._statistics = (
                normalizer.mean.numpy().reshape(-1),
                normalizer.scale.numpy().reshape(-1),
                normalizer.clip,
            )
            self._memory = np.empty((CHUNK, normalizer.mean.numel()), np.float32)

    def __call__(self, x: Rows) -> Rows:
        """x [n, ...] -> [n, inputs], n <= CHUNK; valid until the next call."""
        x = x.reshape(len(x), -1)
        if self._statistics is None:
            return x
        out = self._memory[: len(x)]
        normalize(x, *self._statistics, out)
        return out


def layers(*modules: Iterable[nn.Module] | nn.Module) -> list[nn.Module]:
    """Their layers, in order. Raises Incompatible for one that is no plain linear layer or activation."""
    found: list[nn.Module] = []
    for module in modules:
        found += module if isinstance(module, nn.Sequential) else [module]  # type: ignore[list-item]
    for layer in found:
        if type(layer) not in (nn.Linear, nn.Tanh, nn.ReLU):
            raise Incompatible(f"a {type(layer).__name__} is more than a linear layer or an activation")
    return found


def tower(encoder: nn.Module, head: nn.Module, vector: Vector | None) -> Tower:
    """An encoder's MLP and what stands on it."""
    assert isinstance(encoder, Encoder)
    return tower_of(layers(encoder.mlp, head), encoder.mlp.activation, vector)


def tower_of(modules: list[nn.Module], activation: str, vector: Vector | None, open: bool = False) -> Tower:
    """Of these layers. Raises Incompatible unless they alternate, see `nets.mlp.alternate`."""
    if not alternate(modules, activation, open=open):
        raise Incompatible(f"its networks are more than linear layers with biases and {activation} between them")
    return Tower(linear_layers(modules, vector), activation, open)


def column(batch: Batch, key: str, rows: int) -> Rows:
    """A column [rows, *] of a batch, whose axes become one."""
    return batch[key].numpy().reshape(rows, -1)


@lru_cache(64)
def constant(value: float, rows: int) -> Rows:
    """float32 [rows] of one number, to be read only: made once."""
    return np.full(rows, value, np.float32)


@lru_cache(64)
def every(rows: int) -> Rows:
    """True [rows], to be read only."""
    return np.ones(rows, bool)


def row_weights(batch: Batch, rows: int) -> tuple[Rows, Rows, float]:
    """(what each row counts in a mean, the mask, how many rows count)."""
    mask = get(batch, "mask")
    if mask is None:
        return constant(1 / rows, rows), every(rows), rows
    counts = mask.numpy().reshape(rows)
    total = max(1, int(counts.sum()))
    return counts.astype(np.float32) / np.float32(total), counts, total
