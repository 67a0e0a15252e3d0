"""Hidden layers whose matrix products are rounded to bfloat16, where a run says so (docs/design/023-bfloat16.md)."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn


class Hidden(nn.Module):
    """Hidden layers; `rounded`, set on one, makes its products bfloat16. What stands on them, heads and losses, is float32 either way."""

    rounded = False


def in_bfloat16(layers: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """`layers(x)`, float32 in and out, with products of bfloat16 numbers inside. Weights and their gradients stay float32."""
    # torch's cache would give weights that were cast without gradient, for a target, to who wants one
    with torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False):
        return layers(x).float()


def supported() -> bool:
    """Whether this processor has instructions for such products."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def cost() -> float:
    """How long a product of 256 x 256 numbers takes in bfloat16, in times of float32: there are processors where it is more than 1."""

    def seconds(x: Tensor) -> float:
        begun = time.process_time()
        for _ in range(5):
            x @ x
        return time.process_time() - begun

    exact, rounded = (torch.ones(256, 256, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    pairs = [(seconds(rounded), seconds(exact)) for _ in range(4)]  # of the first, each makes its code
    return min(slow for slow, _ in pairs) / min(fast for _, fast in pairs)
