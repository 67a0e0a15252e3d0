"""What sits on top of an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gymnasium import spaces
from torch import Tensor, nn

from whorl.nets.encoder import Encoder
from whorl.nets.mlp import initialize, linear


class Critic(nn.Module):
    """State value: observation -> [...], its own encoder and one linear output."""

    def __init__(
        self,
        space: spaces.Space,
        hidden: Sequence[int] = (64, 64),
        activation: str = "tanh",
        initialization: str = "orthogonal",
    ):
        super().__init__()
        self.encoder = Encoder(space, hidden, activation)
        self.head = linear(self.encoder.width, 1, gain=1.0)
        initialize(self, initialization)

    def forward(self, observation: Any) -> Tensor:
        return self.head(self.encoder(observation)).squeeze(-1)
