"""Rounded hidden layers: float32 in and out, gradients of every weight, near those that are exact."""

import pytest
import torch

from whorl.nets.batch_renorm import BatchRenormMLP
from whorl.nets.cnn import NatureCNN
from whorl.nets.ensemble import EnsembleLayers, EnsembleLinear
from whorl.nets.mlp import MLP
from whorl.nets.precision import cost, in_bfloat16


def numbers(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


NETS = {
    "mlp": (lambda: MLP(8, (64, 64), "relu"), numbers(32, 8)),
    "cnn": (lambda: NatureCNN((4, 44, 44)), (255 * torch.sigmoid(numbers(8, 4, 44, 44))).byte()),
    "ensemble": (lambda: EnsembleLayers(EnsembleLinear(3, 8, 64), torch.nn.ReLU(), EnsembleLinear(3, 64, 5)), numbers(32, 8)),
    "batch renorm": (lambda: BatchRenormMLP(8, (64,), "relu", 0, 0.99, 10), numbers(32, 8)),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_rounded_layers(name):
    make, x = NETS[name]
    torch.manual_seed(1)
    net, found = make(), []
    for rounded in (False, True):
        net.rounded = rounded
        with torch.no_grad():  # as for a target: torch must not keep weights that it cast without gradient
            net(x)
        net.zero_grad()
        y = net(x)
        y.square().mean().backward()
        assert y.dtype == torch.float32
        found.append((y.detach(), torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])))
    for exact, rough in zip(*found, strict=True):
        assert rough.shape == exact.shape and rough.dtype == torch.float32
        assert 1e-5 < (exact - rough).norm() / exact.norm() < 0.05


def test_what_it_does_not_touch():
    """Weights that are cast stay float32, and what comes after is no longer rounded."""
    layer = torch.nn.Linear(4, 4)
    assert in_bfloat16(layer, numbers(2, 4)).dtype == layer.weight.dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu") and cost() > 0
