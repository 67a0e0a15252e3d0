"""Observations as a trained network sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from whorl.errors import BadInput, Incompatible, in_words
from whorl.spaces import like
from whorl.transforms.entry import OfPart, lead


class FrozenEncoder(OfPart):
    """What `module` makes of the observation [B, *obs], float32 [B, ...]; pictures of uint8 come to it from 0 to 1. It does not learn.

    module: in evaluation mode from here on; its weights are in no checkpoint. weights: a file of safetensors with all of them, such as
    those of R3M, VIP and VC1, ResNets and vision transformers trained on films; nothing is downloaded.
    A run that is to be written down needs a subclass with plain arguments and a name: see docs/transforms.md.
    TorchRL: R3MTransform, VIPTransform, VC1Transform. Nair et al. 2022, Ma et al. 2023, Majumdar et al. 2023.
    Raises BadInput for a file that does not hold the module's weights.
    """

    def __init__(self, module: nn.Module, weights: str | Path | None = None, key: str | None = None) -> None:
        super().__init__()
        self.weights, self.key = None if weights is None else str(weights), key
        if weights is not None:
            try:
                module.load_state_dict(load_file(weights))
            except (OSError, SafetensorError, RuntimeError) as error:
                raise BadInput(
                    f"{weights} does not hold the weights of {type(module).__name__}: {in_words(error)}"
                ) from error
        self._held = (module.eval().requires_grad_(False),)  # in a tuple it is no part of this one, nor of its state
        self._device = torch.device("cpu")

    @property
    def module(self) -> nn.Module:
        """The network."""
        return self._held[0]

    def outside(self, space: Space) -> Space:
        if not isinstance(space, Box):
            raise Incompatible(f"a network takes arrays, and the observation is {space}")
        self._inside = space
        try:
            seen = self.change(space.low[None] * 0)
        except RuntimeError as error:
            raise Incompatible(
                f"its network does not take observations of shape {space.shape}: {in_words(error)}"
            ) from error
        return Box(-np.inf, np.inf, seen.shape[1:], np.float32)

    def change(self, x: Any) -> Any:
        rows = torch.as_tensor(x)
        if rows.device != self._device:
            self.module.to(rows.device)
            self._device = rows.device
        scale = 1 / 255 if rows.dtype == torch.uint8 else 1.0
        with torch.no_grad():
            seen = self.module(rows.reshape((-1, *self._inside.shape)).float() * scale)
        return like(seen.reshape((*lead(x, self._inside), *seen.shape[1:])), x)
