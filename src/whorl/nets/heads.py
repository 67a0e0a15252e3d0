"""What sits on top of an encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
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


class Temperature(nn.Module):
    """alpha > 0, the weight of entropy beside reward, learned as log alpha. Haarnoja et al. 2018b, section 5."""

    def __init__(self, initial: float = 1.0):
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(math.log(initial)))

    def forward(self) -> Tensor:
        return self.log_temperature.exp()
