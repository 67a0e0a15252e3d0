"""Recursions over time, one file per backend with the same names: `eager` (any device; the reference), `numba_` (CPU).

The tensors choose the backend: plain CPU tensors of one dtype, float32 or float64, go to numba; all others, and what
runs inside torch.compile or a torch.func transform, go to eager. `backend=` chooses by name.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from whorl.errors import BadInput
from whorl.functional.kernels import eager
from whorl.functional.shapes import plain, same_shape

BACKENDS = ("eager", "numba")


def recurrence(
    coefficient: Tensor, increment: Tensor, final: Tensor | None = None, backend: str | None = None
) -> Tensor:
    """y[t] = increment[t] + coefficient[t] * y[t + 1], for t = T - 1 ... 0, with y[T] = `final` (0 if not given).

    coefficient, increment: [T, ...], T >= 1; final: [...]; returns y [T, ...]. Differentiable in all three, and again.
    Discounted returns, lambda-returns, GAE, V-trace and Retrace are of this form.
    Raises BatchError for unequal shapes, BadInput for a backend that is unknown or cannot take these tensors.
    """
    same_shape(coefficient=coefficient, increment=increment)
    if final is None:
        final = increment.new_zeros(increment.shape[1:])
    elif final.shape != increment.shape[1:]:
        same_shape(**{"increment[0]": increment[0], "final": final})
    return _backend(backend, coefficient, increment, final).recurrence(coefficient, increment, final)


@torch.no_grad()
def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    discount: float | Tensor,
    trace_decay: float,
    backend: str | None = None,
) -> Tensor:
    """The recurrence of `advantages.gae` in one pass over memory. Shapes and dtypes are checked there."""
    numbers = (reward, value, next_value, discount) if isinstance(discount, Tensor) else (reward, value, next_value)
    chosen = _backend(backend, *numbers)
    return chosen.gae(reward, value, next_value, terminated, truncated, discount, trace_decay)


def _backend(name: str | None, *tensors: Tensor) -> Any:
    """The module that shall compute on these tensors."""
    if name == "eager":
        return eager
    if name not in (None, "numba"):
        raise BadInput(
            f"there is no backend {name!r}: choose one of {', '.join(BACKENDS)}, or None for the fastest that fits"
        )
    if plain(*tensors):
        return _numba()
    if name is None:
        return eager
    raise BadInput(
        "backend 'numba' takes CPU tensors of one dtype, float32 or float64, outside torch.compile and torch.func; got "
        + ", ".join(f"{tensor.dtype} on {tensor.device}" for tensor in tensors)
    )


@cache
def _numba() -> Any:
    return import_module("whorl.functional.kernels.numba_")  # numba is slow to import: on first use
