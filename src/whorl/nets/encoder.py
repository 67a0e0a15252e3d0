"""From any observation to one vector of features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from whorl.nets.cnn import NatureCNN
from whorl.nets.mlp import MLP, initialize
from whorl.spaces import flat_size, flatten, is_image, numpy_dtype


def _leaf_spaces(space: spaces.Space, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], spaces.Space]]:
    if isinstance(space, spaces.Dict):
        for key, inner in space.spaces.items():
            yield from _leaf_spaces(inner, (*path, key))
    else:
        yield path, space


def _at(observation: Any, path: tuple[str, ...]) -> Tensor:
    for key in path:
        observation = observation[key]
    return observation


class Encoder(nn.Module):
    """Observation -> features [..., width]: images through a Nature CNN each, all else flattened, side by side, then an MLP.

    A single image goes through its CNN only, as in the Nature paper.
    """

    def __init__(
        self,
        space: spaces.Space,
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        initialization: str = "orthogonal",
    ):
        super().__init__()
        parts = list(_leaf_spaces(space))
        images = [(path, NatureCNN(leaf.shape)) for path, leaf in parts if is_image(leaf)]  # type: ignore[arg-type]
        self.images = [path for path, _ in images]
        self.vectors = [(path, leaf) for path, leaf in parts if not is_image(leaf)]
        self.cnns = nn.ModuleList(cnn for _, cnn in images)
        size = sum(flat_size(leaf) for _, leaf in self.vectors) + sum(cnn.width for _, cnn in images)
        self.mlp = MLP(size, () if not self.vectors and len(self.cnns) == 1 else hidden, activation)
        self.width = self.mlp.width
        initialize(self, initialization)
        _, first = self.vectors[0] if self.vectors else (None, None)
        self.straight = self.plain and len(first.shape or ()) == 1 and numpy_dtype(first) == "float32"  # type: ignore[union-attr,arg-type]

    @property
    def plain(self) -> bool:
        """One float vector straight into the MLP: what the numpy actor can do."""
        return (
            not self.images
            and [path for path, _ in self.vectors] == [()]
            and isinstance(self.vectors[0][1], spaces.Box)
        )

    def forward(self, observation: Any) -> Tensor:
        if self.straight:
            return self.mlp.forward(observation)
        parts = [flatten(space, _at(observation, path)) for path, space in self.vectors]
        parts += [cnn(_at(observation, path)) for cnn, path in zip(self.cnns, self.images, strict=True)]
        return self.mlp(parts[0] if len(parts) == 1 else torch.cat(parts, -1))
