"""Noisy layers against the paper's weight noise, their start, and what they explore with."""

import math

import pytest
import torch

from whorl.nets.noisy import NoisyLinear

f = lambda e: math.copysign(math.sqrt(abs(e)), e)  # noqa: E731


def test_forward_by_hand():
    """One input x = 3, one output; W = 2, b = 1, sigmas .5 and .25, e_in = 4, e_out = -9: f = 2, -3.

    y = (2 + .5 (2 . -3)) 3 + (1 + .25 . -3) = -3 + .25
    """
    layer = NoisyLinear(1, 1)
    with torch.no_grad():
        for parameter, value in (
            (layer.weight, 2),
            (layer.bias, 1),
            (layer.weight_sigma, 0.5),
            (layer.bias_sigma, 0.25),
        ):
            parameter.fill_(value)
    assert layer(torch.tensor([[3.0]]), torch.tensor([[4.0, -9.0]])).item() == pytest.approx(-2.75, abs=1e-6)
    assert layer(torch.tensor([[3.0]])).item() == 7.0


def test_forward_equals_the_papers_weight_noise_row_by_row():
    draw = torch.Generator().manual_seed(0)
    layer = NoisyLinear(5, 3).double().requires_grad_(False)
    x, noise = torch.randn(4, 5, generator=draw).double(), torch.randn(4, 8, generator=draw).double()
    y = layer(x, noise)
    for row in range(4):
        for i in range(3):
            e_out = f(float(noise[row, 5 + i]))
            expected = float(layer.bias[i]) + float(layer.bias_sigma[i]) * e_out  # eq. 11: e_b = f(e_out)
            for j in range(5):
                e = f(float(noise[row, j])) * e_out  # eq. 10
                expected += (float(layer.weight[i, j]) + float(layer.weight_sigma[i, j]) * e) * float(x[row, j])
            assert y[row, i].item() == pytest.approx(expected, abs=1e-12)
    assert torch.equal(layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias))


def test_the_start_of_section_3_2():
    layer = NoisyLinear(400, 300)
    assert layer.noise_size == 700
    for parameter in (layer.weight, layer.bias):
        assert parameter.abs().max() <= 1 / 20
    assert layer.weight.std().item() == pytest.approx(1 / 20 / math.sqrt(3), rel=0.02)
    assert (layer.weight_sigma == 0.5 / 20).all() and (layer.bias_sigma == 0.5 / 20).all()


def test_every_parameter_is_learned():
    draw = torch.Generator().manual_seed(1)
    layer = NoisyLinear(3, 2).double()
    x, noise = torch.randn(6, 3, generator=draw).double(), torch.randn(6, 5, generator=draw).double()
    names = [name for name, _ in layer.named_parameters()]
    call = lambda *values: torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x, noise))  # noqa: E731
    assert torch.autograd.gradcheck(call, tuple(p.detach().clone().requires_grad_() for p in layer.parameters()))
