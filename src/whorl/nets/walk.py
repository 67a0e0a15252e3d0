"""What is inside a module, for those who ask at every update: torch's own generators cost more than a small network."""

from __future__ import annotations

from torch import Tensor, nn


def modules_in(module: nn.Module) -> list[nn.Module]:
    """The module and all inside it, each once, outermost first."""
    found = {module: None}
    queue = [module]
    for part in queue:  # which grows
        for inner in part._modules.values():
            if inner is not None and inner not in found:
                found[inner] = None
                queue.append(inner)
    return queue


def tensors_in(module: nn.Module) -> list[Tensor]:
    """Parameters, then buffers, each once; in one order for modules of one make."""
    found: dict[int, Tensor] = {}
    parts = modules_in(module)
    for held in ([part._parameters for part in parts], [part._buffers for part in parts]):
        for named in held:
            for tensor in named.values():
                if tensor is not None:
                    found[id(tensor)] = tensor
    return list(found.values())
