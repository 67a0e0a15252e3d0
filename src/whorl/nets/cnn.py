"""The convolutional network of DQN's Nature paper."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from whorl.nets.mlp import linear
from whorl.nets.precision import Hidden, in_bfloat16


class NatureCNN(Hidden):
    """uint8 images [..., H, W, C], [..., C, H, W] or [..., H, W] -> features [..., 512]. Mnih et al. 2015, "Model architecture".

    The axis of 1, 3 or 4 channels is found from the shape: the last one if it is smaller than the first.
    """

    def __init__(self, shape: tuple[int, ...], width: int = 512):
        super().__init__()
        self.axes = len(shape)
        shape = shape if self.axes == 3 else (1, *shape)
        self.channels_last = shape[2] < shape[0]
        channels = shape[2] if self.channels_last else shape[0]
        layers: list[nn.Module] = []
        for inputs, outputs, kernel, stride in ((channels, 32, 8, 4), (32, 64, 4, 2), (64, 64, 3, 1)):
            convolution = nn.Conv2d(inputs, outputs, kernel, stride, dtype=torch.float32)
            nn.init.orthogonal_(convolution.weight, math.sqrt(2))
            nn.init.constant_(convolution.get_parameter("bias"), 0.0)
            layers += [convolution, nn.ReLU()]
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        with torch.no_grad():
            size = self.convolutions(self._pixels(torch.zeros((1, *shape), dtype=torch.uint8))).shape[1]
        self.head = nn.Sequential(linear(size, width), nn.ReLU())
        self.width = width

    def _pixels(self, image: Tensor) -> Tensor:
        image = image.permute(0, 3, 1, 2) if self.channels_last else image
        # channels last in memory: an update takes 0.7 of the time on a CPU (benchmarks/recurrent.py)
        return (image.float() / 255.0).contiguous(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        image = image if self.axes == 3 else image.unsqueeze(-3)
        leading = image.shape[:-3]
        pixels = self._pixels(image.flatten(0, -4) if len(leading) != 1 else image)
        features = in_bfloat16(self._through, pixels) if self.rounded else self._through(pixels)
        return features.unflatten(0, leading)

    def _through(self, pixels: Tensor) -> Tensor:
        return self.head(self.convolutions(pixels))
