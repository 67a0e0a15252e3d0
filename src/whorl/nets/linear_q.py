"""Values that are linear in features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from whorl.nets.tile_coding import Features


class LinearQ(nn.Module):
    """q(s, a) = sum_i weight[a, i] * feature_i(s), float64: observation [..., *obs] -> [..., actions].

    initial_value: of every q before anything is learned (exact for features that are 0 or 1, the bias alone otherwise).
    """

    weight: Tensor

    def __init__(self, features: Features, actions: int, initial_value: float = 0.0):
        super().__init__()
        self.features, self.actions = features, actions
        weight = torch.zeros(actions, features.size, dtype=torch.float64)
        if features.binary:
            weight += initial_value / features.active
        else:
            weight[:, -1] = initial_value
        self.register_buffer("weight", weight)

    def forward(self, observation: Any) -> Tensor:
        index, value = self.features(observation)
        return (self.weight[:, index] * value).sum(-1).movedim(0, -1)
