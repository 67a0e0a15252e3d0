"""The natural gradient and its step size. Schulman et al. 2015, https://arxiv.org/abs/1502.05477, section 6 and appendix C.

With g the gradient of the objective and F the Fisher matrix of the policy, the steepest ascent inside KL <= delta is

    F x = g                       `conjugate_gradient` with `fisher_vector_product`: F itself is never made
    step = sqrt(2 delta / x'Fx) x   `trust_region_step`: the quadratic model of the KL is delta there
    theta + shrink^j step           `line_search`: the first j where the true KL holds and the objective rose

Vectors are flat, [D]. No weight is moved here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """Tensors of any shapes, one after another: [D]."""
    return torch.cat([x.reshape(-1) for x in tensors])


def conjugate_gradient(product: Product, b: Tensor, iterations: int = 10, tolerance: float = 1e-5) -> Tensor:
    """x with A x = b, for a symmetric positive definite A known by product(v) = A v: [D] -> [D]. Hestenes and Stiefel 1952.

    From x = 0, r = p = b:  alpha = r'r / p'Ap,  x += alpha p,  s = r - alpha A p,  p = s + (s's / r'r) p,  r = s.
    Stops after `iterations`, or when |r| <= tolerance |b|; exact after D iterations but for rounding.
    """
    x, r, p = torch.zeros_like(b), b, b
    square = r @ r
    enough = tolerance**2 * square
    for _ in range(iterations):
        if square <= enough:
            break
        curved = product(p)
        alpha = square / (p @ curved)
        x = x + alpha * p
        r = r - alpha * curved
        before, square = square, r @ r
        p = r + (square / before) * p
    return x


def fisher_vector_product(kl: Tensor, parameters: Sequence[Tensor]) -> Product:
    """v -> F v, [D] -> [D], by differentiating twice: F v = d/dtheta ((d KL / dtheta) . v).

    kl: the mean of KL(old || theta), a scalar with its graph, at theta = old. There its gradient is 0 and its Hessian is the Fisher
    matrix F = E[grad log pi grad log pi'] over the same states. Parameters that the KL does not know have rows of zeros.
    """
    gradient = flat(torch.autograd.grad(kl, parameters, create_graph=True, materialize_grads=True))

    def product(v: Tensor) -> Tensor:
        if not gradient.requires_grad:  # a distribution with one choice: KL = 0 everywhere
            return torch.zeros_like(v)
        return flat(torch.autograd.grad(gradient @ v, parameters, retain_graph=True, materialize_grads=True))

    return product


def trust_region_step(product: Product, direction: Tensor, kl_limit: float) -> Tensor:
    """sqrt(2 kl_limit / x'Fx) x for the direction x: where the quadratic model of the KL, step'F step / 2, is `kl_limit`.

    0 for a direction along which the KL does not change (x'Fx <= 0): there is no step size to be had. NaN stays NaN.
    """
    curvature = direction @ product(direction)
    return torch.where(curvature <= 0, torch.zeros_like(direction), (2 * kl_limit / curvature).sqrt() * direction)


def line_search(
    evaluate: Callable[[Tensor], tuple[Tensor, Tensor]],
    step: Tensor,
    kl_limit: float,
    shrink: float = 0.8,
    tries: int = 10,
) -> tuple[Tensor, int]:
    """(shrink^j step, j) for the first j = 0 .. tries - 1 with improvement > 0 and KL <= kl_limit; (0, tries) where there is none.

    evaluate(step) -> (improvement of the objective, KL) of the parameters moved by `step`. NaN never passes.
    """
    for j in range(tries):
        candidate = shrink**j * step
        improvement, kl = evaluate(candidate)
        if improvement > 0 and kl <= kl_limit:
            return candidate, j
    return torch.zeros_like(step), tries
