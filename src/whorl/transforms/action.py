"""Transforms of actions."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box

from whorl.errors import BadInput, Incompatible
from whorl.transforms.transform import Array, OfAction, Spaces


class ScaleAction(OfAction):
    """Actions from `low` to `high` outside are those of the Box's bounds inside: low_in + (a - low) * (high_in - low_in) / (high - low).

    Gymnasium: RescaleAction; TorchRL: ActionScaling.
    """

    def __init__(self, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__()
        if not low < high:
            raise BadInput(f"ScaleAction needs low < high, got {low} and {high}")
        self.low, self.high = low, high

    def spaces(self, observation: Space, action: Space) -> Spaces:
        if not isinstance(action, Box) or not action.is_bounded():
            raise Incompatible(f"it scales a Box with bounds, and the action is {action}")
        gradient = (action.high - action.low) / np.float32(self.high - self.low)
        for name, x in (("gradient", gradient), ("intercept", action.low - np.float32(self.low) * gradient)):
            self.register_buffer(name, torch.as_tensor(x), persistent=False)
        return observation, Box(self.low, self.high, action.shape, np.float32)

    def action(self, action: Array) -> Array:
        gradient, intercept = self.constants(action)
        return action.clip(self.low, self.high) * gradient + intercept
