"""What sits on top of an encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from whorl.errors import BadInput
from whorl.nets.encoder import EncoderFactory, HasWidth, check_sized, encoder_for
from whorl.nets.mlp import initialize, linear


def output_layer(model: nn.Module, outputs: int, initialization: str) -> nn.Linear:
    """A policy's last layer: features [..., model.width] -> [..., outputs]; the first outputs of orthogonal weights are near 0.

    Raises BadInput for a model that does not say its `width`, or has lazy layers without sizes, and for an unknown initialization.
    """
    if not isinstance(model, HasWidth):
        raise BadInput(
            f"the model of a policy says in `width` how many features it gives; {type(model).__name__} does not"
        )
    check_sized(model.parameters())
    layer = linear(model.width, outputs, gain=0.01)
    initialize(layer, initialization)
    return layer


class Critic(nn.Module):
    """State value: observation -> [...], its own encoder (one of the user's where `encoder` makes it) and one linear output."""

    encoder: Any

    def __init__(
        self,
        space: spaces.Space,
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        initialization: str = "orthogonal",
        encoder: EncoderFactory | None = None,
    ):
        super().__init__()
        self.encoder = encoder_for(space, encoder, hidden, activation)
        self.head = linear(self.encoder.width, 1, gain=1.0)
        initialize(self if encoder is None else self.head, initialization)

    def forward(self, observation: Any) -> Tensor:
        return self.head(self.encoder(observation)).squeeze(-1)


class ValueHead(nn.Module):
    """State value on features of a torso that it shares with the policy: [..., width] -> [...]."""

    def __init__(self, width: int):
        super().__init__()
        self.head = linear(width, 1, gain=1.0)
        initialize(self.head, "orthogonal")

    def forward(self, features: Tensor) -> Tensor:
        return self.head(features).squeeze(-1)


class Temperature(nn.Module):
    """alpha > 0, the weight of entropy beside reward, learned as log alpha. Haarnoja et al. 2018b, section 5."""

    def __init__(self, initial: float = 1.0):
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(math.log(initial), dtype=torch.float32))

    def forward(self) -> Tensor:
        return self.log_temperature.exp()
