"""The CPU kernels: one thread, one pass, float32 or float64 throughout. Compiled on first use, then cached on disk."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from whorl.functional.kernels import eager
from whorl.functional.shapes import plain
from whorl.jit import jit

compiled: Any = jit(nogil=True, error_model="numpy")


def recurrence(coefficient: Tensor, increment: Tensor, final: Tensor) -> Tensor:
    if torch.is_grad_enabled() and (coefficient.requires_grad or increment.requires_grad or final.requires_grad):
        return _Recurrence.apply(coefficient, increment, final)
    y = torch.empty(increment.shape, dtype=increment.dtype)
    _recurrence(_rows(coefficient), _rows(increment), _rows(final.unsqueeze(0)), _rows(y))
    return y


class _Recurrence(torch.autograd.Function):
    """dL/d increment obeys the same recurrence, forward in time: g[t] = dL/dy[t] + coefficient[t - 1] * g[t - 1]."""

    @staticmethod
    def forward(ctx: Any, coefficient: Tensor, increment: Tensor, final: Tensor) -> Tensor:
        y = recurrence(coefficient, increment, final)
        ctx.save_for_backward(coefficient, y, final)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        coefficient, y, final = ctx.saved_tensors
        zero = torch.zeros_like(final)
        before = torch.cat([zero.unsqueeze(0), coefficient[:-1]])  # coefficient[t - 1]
        chosen = (
            recurrence if plain(before, grad, zero) else eager.recurrence
        )  # a gradient of a gradient may be in a transform
        g = chosen(before.flip(0), grad.flip(0), zero).flip(0)
        return g * torch.cat([y[1:], final.unsqueeze(0)]), g, coefficient[-1] * g[-1]


def gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    discount: float | Tensor,
    trace_decay: float,
) -> Tensor:
    advantage = torch.empty(reward.shape, dtype=reward.dtype)
    out = _rows(advantage)
    rows = [_rows(x) for x in (reward, value, next_value, terminated, truncated)]
    gamma = _rows(discount) if isinstance(discount, Tensor) else np.full((1, out.shape[1]), discount, out.dtype)
    _gae(*rows, gamma, out.dtype.type(trace_decay), out)  # a Python float would lift float32 arithmetic to float64
    return advantage


def _rows(x: Tensor) -> np.ndarray:
    """[T, ...] as a C-contiguous array [T, M], of the same memory where that is possible."""
    array = x.detach().contiguous().numpy()
    return array if array.ndim == 2 else array.reshape(len(x), prod(x.shape[1:]))


# Columns at a time: their carries stay in L1, and LLVM makes SIMD of loops over such slices (2 to 3 times faster).
BLOCK = 2048


@compiled
def _recurrence(coefficient: np.ndarray, increment: np.ndarray, final: np.ndarray, y: np.ndarray) -> None:
    steps, width = y.shape
    carry = np.empty(BLOCK, y.dtype)
    for left in range(0, width, BLOCK):
        right = min(left + BLOCK, width)
        carry[: right - left] = final[0, left:right]
        for t in range(steps - 1, -1, -1):
            a, b, out = coefficient[t, left:right], increment[t, left:right], y[t, left:right]
            for i in range(right - left):
                carry[i] = out[i] = b[i] + a[i] * carry[i]


@compiled
def _gae(
    reward: np.ndarray, value: np.ndarray, next_value: np.ndarray, terminated: np.ndarray, truncated: np.ndarray,
    discount: np.ndarray, trace_decay: float, advantage: np.ndarray,
) -> None:  # fmt: skip
    """`discount` has one row for all t, or one for each."""
    steps, width = advantage.shape
    zero = advantage.dtype.type(0)
    carry = np.empty(BLOCK, advantage.dtype)
    for left in range(0, width, BLOCK):
        right = min(left + BLOCK, width)
        carry[:] = zero
        for t in range(steps - 1, -1, -1):
            r, v, v_next = reward[t, left:right], value[t, left:right], next_value[t, left:right]
            dead, cut = terminated[t, left:right], truncated[t, left:right]
            gamma, out = discount[t % len(discount), left:right], advantage[t, left:right]
            for i in range(right - left):
                bootstrap = zero if dead[i] else v_next[i]
                later = zero if dead[i] | cut[i] else carry[i]
                carry[i] = out[i] = r[i] + gamma[i] * bootstrap - v[i] + gamma[i] * trace_decay * later
