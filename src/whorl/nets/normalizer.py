"""Running normalizers. They move only when told to, so that what acted is what learns."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from whorl.functional.statistics import batch_moments, merge_moments
from whorl.spaces import is_image


class Normalizer(nn.Module):
    """x [..., *shape] -> (x - mean) / std, clipped to +-clip. Starts as mean 0, std 1."""

    mean: Tensor
    var: Tensor
    count: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, ...] = (), clip: float = 10.0):
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float32))
        self.register_buffer("var", torch.ones(shape, dtype=torch.float32))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer(
            "scale", torch.ones(shape, dtype=torch.float32)
        )  # 1 / std, kept because acting needs it at every step

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.mean) * self.scale).clamp(-self.clip, self.clip)

    def inverse(self, x: Tensor) -> Tensor:
        return x / self.scale + self.mean

    @torch.no_grad()
    def moments(self, x: Tensor, mask: Tensor | None = None) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Mean, variance and count of x over its leading axes, rows with `mask` False left out."""
        rows = x.reshape(-1, *self.mean.shape) if mask is None else x[mask]
        return [batch_moments(rows if rows.is_floating_point() else rows.to(self.mean.dtype))]

    @torch.no_grad()
    def merge(self, moments: list[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Move the statistics, in place. Takes its own share off the front of the list."""
        mean, var, count = merge_moments(self.mean, self.var, self.count, *moments.pop(0))
        self.mean.copy_(mean)
        self.var.copy_(var)
        self.count.copy_(count)
        self.scale.copy_((var + 1e-8).rsqrt())


class DictNormalizer(nn.Module):
    """One normalizer for each entry of a Dict observation."""

    parts: Any

    def __init__(self, space: spaces.Dict):
        super().__init__()
        self.keys = list(space.spaces)
        self.parts = nn.ModuleList(observation_normalizer(inner) for inner in space.spaces.values())

    def forward(self, x: Any) -> Any:
        return {key: part(x[key]) for key, part in zip(self.keys, self.parts, strict=True)}

    def moments(self, x: Any, mask: Tensor | None = None) -> list:
        return [m for key, part in zip(self.keys, self.parts, strict=True) for m in part.moments(x[key], mask)]

    def merge(self, moments: list) -> None:
        for part in self.parts:
            part.merge(moments)


class NoNormalizer(nn.Identity):
    """Leaves its input as it is: images, discrete observations, or normalizing switched off."""

    def __call__(self, x: Any) -> Any:  # without hooks: it is asked at every step
        return x

    def inverse(self, x: Any) -> Any:
        return x

    def moments(self, x: Any, mask: Tensor | None = None) -> list:
        return []

    def merge(self, moments: list) -> None:
        pass


ObservationNormalizer = Normalizer | DictNormalizer | NoNormalizer


def observation_normalizer(space: spaces.Space, on: bool = True) -> ObservationNormalizer:
    """The normalizer for a space: every Box is normalized but images, which their CNN scales; everything else is left as it is."""
    if not on:
        return NoNormalizer()
    if isinstance(space, spaces.Dict):
        return DictNormalizer(space)
    if isinstance(space, spaces.Box) and not is_image(space):
        return Normalizer(space.shape or ())
    return NoNormalizer()
