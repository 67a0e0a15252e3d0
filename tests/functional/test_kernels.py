"""One recurrence, several backends: the same numbers, the same gradients, and the right one chosen."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import seeds
from tests.functional.rollouts import rollouts
from whorl.errors import BadInput
from whorl.functional import kernels
from whorl.functional.kernels import eager, numba_, recurrence

BACKENDS = kernels.BACKENDS
DTYPES = [torch.float32, torch.float64]


def sample(*shape: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seeds.seed(seed)), dtype=torch.float64).to(dtype)


def powers(coefficient, increment, final):
    """y[t] = sum_k (product of coefficient[t .. k - 1]) increment[k], `final` being the increment at T. O(T^2)."""
    increment = torch.cat([increment, final.unsqueeze(0)])
    steps = range(len(coefficient))
    return torch.stack([sum(coefficient[t:k].prod(0) * increment[k] for k in range(t, len(increment))) for t in steps])


@pytest.mark.parametrize("backend", BACKENDS)
def test_numbers_by_hand(backend):
    # y[2] = 3 + 0.5 * 8 = 7;  y[1] = 2 + 0 * 7 = 2;  y[0] = 1 + 2 * 2 = 5
    y = recurrence(torch.tensor([2.0, 0.0, 0.5]), torch.tensor([1.0, 2.0, 3.0]), torch.tensor(8.0), backend=backend)
    assert y.tolist() == [5, 2, 7]
    # without `final`: y[2] = 3
    assert recurrence(torch.ones(3), torch.tensor([1.0, 2.0, 3.0]), backend=backend).tolist() == [6, 5, 3]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1,), (7,), (40, 3), (5, 2, 3), (3, 512), (3, 1100), (4, 0)])
def test_every_shape_against_the_sum(backend, dtype, shape):
    coefficient, increment = sample(*shape, dtype=dtype), sample(*shape, seed=1, dtype=dtype)
    final = sample(*shape[1:], seed=2, dtype=dtype)
    y = recurrence(coefficient, increment, final, backend=backend)
    assert y.dtype == dtype and y.is_contiguous()
    reference = powers(coefficient.double(), increment.double(), final.double())
    torch.testing.assert_close(y.double(), reference, rtol=1e-4 if dtype == torch.float32 else 1e-10, atol=1e-4)


@given(st.integers(1, 20), st.integers(1, 600), st.sampled_from(DTYPES))
def test_the_backends_agree_to_the_bit(steps, width, dtype):
    arguments = sample(steps, width, dtype=dtype), sample(steps, width, seed=1, dtype=dtype), sample(width, dtype=dtype)
    assert torch.equal(*(recurrence(*arguments, backend=backend) for backend in BACKENDS))


@given(rollouts(), st.sampled_from(DTYPES))
def test_gae_agrees_to_the_bit(rollout, dtype):
    del rollout["log_ratio"]
    rollout = {k: x.to(dtype) if torch.is_tensor(x) and x.is_floating_point() else x for k, x in rollout.items()}
    assert torch.equal(*(kernels.gae(**rollout, backend=backend) for backend in BACKENDS))


@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_order_does_not_matter_and_inputs_are_left_alone(backend):
    coefficient, increment = sample(6, 4).T, sample(8, 12)[::2, ::2]
    before = coefficient.clone(), increment.clone()
    assert not coefficient.is_contiguous() and not increment.is_contiguous()
    y = recurrence(coefficient, increment, backend=backend)
    assert torch.equal(y, recurrence(coefficient.contiguous(), increment.contiguous(), backend=backend))
    assert torch.equal(coefficient, before[0]) and torch.equal(increment, before[1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(1,), (5,), (4, 2), (3, 2, 2)])
def test_gradients(backend, shape):
    inputs = [sample(*shape), sample(*shape, seed=1), sample(*shape[1:], seed=2)]
    inputs = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(lambda *x: recurrence(*x, backend=backend), inputs)
    assert torch.autograd.gradgradcheck(lambda *x: recurrence(*x, backend=backend), inputs)


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_a_gradient_in_one_input_alone(wanted):
    inputs = [sample(5, 3), sample(5, 3, seed=1), sample(3, seed=2)]
    gradients = []
    for backend in BACKENDS:
        x = inputs[wanted].clone().requires_grad_()
        y = recurrence(*(x if i == wanted else other for i, other in enumerate(inputs)), backend=backend)
        gradients += torch.autograd.grad(y.square().sum(), x)
    torch.testing.assert_close(*gradients)


def test_inside_transforms_and_graphs():
    a, b, final = sample(5, 3), sample(5, 3, seed=1), sample(3, seed=2)
    y = recurrence(a, b, final)
    assert torch.equal(torch.compile(recurrence, fullgraph=True, backend="aot_eager")(a, b, final), y)
    mapped = torch.func.vmap(recurrence, in_dims=(1, 1, 0), out_dims=1)(a, b, final)
    torch.testing.assert_close(mapped, y)
    x = b.clone().requires_grad_()
    expected = torch.autograd.grad(recurrence(a, x, final).square().sum(), x)[0]
    torch.testing.assert_close(torch.func.grad(lambda x: recurrence(a, x, final).square().sum())(b), expected)
    y = recurrence(a, x, final)  # outside the transform, its gradients inside
    cotangents = sample(4, 5, 3, seed=3)
    several = torch.vmap(lambda v: torch.autograd.grad(y, x, v, retain_graph=True)[0])(cotangents)
    torch.testing.assert_close(several[2], torch.autograd.grad(y, x, cotangents[2])[0])


def test_the_backend_is_chosen_by_the_tensors():
    x = torch.ones(2)
    assert kernels._backend(None, x, x) is numba_
    assert kernels._backend("numba", x, x) is numba_
    assert kernels._backend("eager", x, x) is eager
    for other in (x.half(), x.long(), x.to("meta")):
        assert kernels._backend(None, other, other) is eager
    assert kernels._backend(None, x, x.double()) is eager
    assert recurrence(x, x.double()).dtype == torch.float64


def test_backends_that_cannot_be_had():
    x = torch.ones(2)
    with pytest.raises(BadInput, match="no backend 'cuda': choose one of eager, numba"):
        recurrence(x, x, backend="cuda")
    with pytest.raises(
        BadInput, match=r"'numba' takes CPU tensors of one dtype.* got torch.float32 on cpu, torch.float64"
    ):
        recurrence(x, x.double(), backend="numba")


def test_numba_is_imported_by_the_first_kernel_only():
    code = (
        "import sys, torch, whorl.functional as F\n"
        "assert 'numba' not in sys.modules and 'tensordict' not in sys.modules\n"
        "F.recurrence(torch.ones(2), torch.ones(2)); assert 'numba' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
