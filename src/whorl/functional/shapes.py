"""Equal shapes or an error: nothing in `functional` broadcasts one array of rows against another. And which tensors are plain."""

from __future__ import annotations

import torch
from torch import Tensor

from whorl.errors import BatchError


def same_shape(**tensors: Tensor) -> None:
    """That all of them have one shape; free under torch.compile.

    Raises BatchError naming two that differ, and their shapes.
    """
    first, *_ = tensors
    shape = tensors[first].shape
    for name, tensor in tensors.items():
        if tensor.shape != shape:
            raise BatchError(
                f"{first} has shape {list(shape)}, but {name} has shape {list(tensor.shape)}: they must be equal. "
                f"Nothing is broadcast here; expand, or squeeze a trailing 1, where {name} is made"
            )


def check_rows(terminated: Tensor, truncated: Tensor, discount: float | Tensor, **tensors: Tensor) -> None:
    """Checks that flags, tensors and a discount per row have one shape [T, ...].

    Raises BatchError for unequal shapes and for flags that are not bool.
    """
    if isinstance(discount, Tensor):
        tensors["discount"] = discount
    same_shape(**tensors, terminated=terminated, truncated=truncated)
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if flag.dtype != torch.bool:
            raise BatchError(f"{name} has dtype {flag.dtype}, expected torch.bool: convert it where it is made")


def plain(*tensors: Tensor) -> bool:
    """Whether a CPU kernel can take them: of one dtype, float32 or float64, outside torch.compile and torch.func transforms."""
    if torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    dtype = tensors[0].dtype
    if dtype is not torch.float32 and dtype is not torch.float64:
        return False
    return all(type(x) is Tensor and x.is_cpu and x.dtype is dtype for x in tensors)
