"""The target network."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from whorl.nets.walk import tensors_in


class Target(nn.Module):
    """A frozen copy of a module that follows it slowly. Equal to it from the start; calls go to the copy. Mnih et al. 2015.

    Its parameters take no gradient, so nothing computed from it alone builds a graph.
    live: a part of the module that is not copied: the target uses it as it stands, such as a policy's normalizer.
    """

    module: Any

    def __init__(self, module: nn.Module, live: nn.Module | None = None):
        super().__init__()
        self.module = copy.deepcopy(module, {id(live): live}).requires_grad_(False)

    def forward(self, *arguments: Any) -> Any:
        return self.module.forward(*arguments)

    @torch.no_grad()
    def follow(self, module: nn.Module, rate: float = 1.0) -> None:
        """own <- own + rate * (its - own) for all parameters and float buffers, in one call; rate 1 copies.

        Buffers that are not floats are copied. Lillicrap et al. 2016.
        """
        own, its = tensors_in(self.module), tensors_in(module)
        if rate == 1.0:  # lerp with weight 1 may differ from the end by rounding; a copy is a copy
            torch._foreach_copy_(own, its)
            return
        floats = [i for i, tensor in enumerate(own) if tensor.is_floating_point()]
        if len(floats) < len(own):
            for mine, other in zip(own, its, strict=True):
                if not mine.is_floating_point():
                    mine.copy_(other)
            own, its = [own[i] for i in floats], [its[i] for i in floats]
        torch._foreach_lerp_(own, its, rate)
