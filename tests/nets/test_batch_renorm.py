"""Batch renormalization against its formulas in float64, its running statistics, members by themselves."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from whorl.nets.batch_renorm import BatchRenorm, BatchRenormEncoder, BatchRenormMLP, BatchRenormQ, flat, follow

BOX, ACTION = spaces.Box(-np.inf, np.inf, (3,)), spaces.Box(-2.0, 2.0, (1,))


def layer(members=0, warmup=0):
    """With statistics and parameters that are not those of the start."""
    torch.manual_seed(0)
    norm = BatchRenorm(4, members, warmup=warmup)
    with torch.no_grad():
        norm.mean.normal_()
        norm.var.uniform_(0.2, 3.0)
        norm.weight.normal_()
        norm.bias.normal_()
    return norm


def by_hand(x, mean, var, weight, bias, warm):
    """Ioffe 2017, algorithm 1, column after column in float64: (y, batch mean, batch variance)."""
    y = np.empty_like(x)
    batch_mean, batch_var = np.empty(x.shape[1]), np.empty(x.shape[1])
    for k in range(x.shape[1]):
        mu = sum(x[:, k]) / len(x)
        sigma2 = sum((v - mu) ** 2 for v in x[:, k]) / len(x)
        sigma, running = np.sqrt(sigma2 + 1e-3), np.sqrt(var[k] + 1e-3)
        r, d = (min(max(sigma / running, 1 / 3), 3), min(max((mu - mean[k]) / running, -5), 5)) if warm else (1, 0)
        y[:, k] = weight[k] * ((x[:, k] - mu) / sigma * r + d) + bias[k]
        batch_mean[k], batch_var[k] = mu, sigma2
    return y, batch_mean, batch_var


@pytest.mark.parametrize("members", [0, 2])
@pytest.mark.parametrize("warmup", [0, 1])
@pytest.mark.parametrize("spread", [1.0, 30.0, 0.01])  # r at neither, the upper and the lower limit
def test_training_equals_the_formulas(members, warmup, spread):
    norm = layer(members, warmup).double()
    x = spread * (torch.randn(max(members, 1), 9, 4, dtype=torch.float64) + 3)
    moments: list = []
    came = norm(x if members else x[0], moments)
    came = came if members else came.unsqueeze(0)
    for e in range(max(members, 1)):
        own = [t.reshape(-1, 4)[e].detach().numpy() for t in (norm.mean, norm.var, norm.weight, norm.bias)]
        y, mean, var = by_hand(x[e].numpy(), *own, warm=warmup == 0)
        np.testing.assert_allclose(came[e].detach().numpy(), y, atol=1e-9, rtol=0)
        for moment, expected in zip(moments, (mean, var), strict=True):
            np.testing.assert_allclose(moment.reshape(-1, 4)[e].numpy(), expected, atol=1e-9, rtol=1e-12)


def test_acting_equals_the_formula():
    norm = layer()
    x = torch.randn(5, 4)
    expected = norm.weight * (x - norm.mean) / (norm.var + 1e-3).sqrt() + norm.bias
    torch.testing.assert_close(norm(x), expected, rtol=0, atol=1e-5)


def test_in_training_with_nothing_clipped_values_are_those_of_acting():
    norm = layer()
    x = norm.mean + 1.3 * norm.var.sqrt() * torch.randn(500, 4)
    torch.testing.assert_close(norm(x, []), norm(x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("warmup", [0, 10])
def test_corrections_carry_no_gradient(warmup):
    """dy/dx is batch normalization's, times r."""
    norm, torch_norm = layer(warmup=warmup), nn.BatchNorm1d(4, eps=1e-3)
    x = torch.randn(9, 4, requires_grad=True)
    coefficients = torch.randn(9, 4)
    came = torch.autograd.grad((norm(x, []) * coefficients).sum(), x)[0]
    plain = torch.autograd.grad((torch_norm(x) * coefficients * norm.weight).sum(), x)[0]
    std, running = (x.detach().var(0, correction=0) + 1e-3).sqrt(), (norm.var + 1e-3).sqrt()
    r = torch.ones(4) if warmup else (std / running).clamp(1 / 3, 3)
    torch.testing.assert_close(came, plain * r, rtol=1e-4, atol=1e-5)


def test_a_forward_changes_nothing_and_follow_moves_the_statistics():
    net = BatchRenormMLP(3, (4, 5), "relu", 2, momentum=0.9, warmup=1)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    moments: list = []
    net(torch.randn(2, 7, 3), moments)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [m.shape[-1] for m in moments] == [3, 3, 4, 4, 5, 5]
    follow(net, flat(moments))
    for i, norm in enumerate(net.norms):
        for name, moment in (("mean", moments[2 * i]), ("var", moments[2 * i + 1])):
            expected = 0.9 * before[f"norms.{i}.{name}"] + 0.1 * moment
            torch.testing.assert_close(getattr(norm, name), expected, rtol=0, atol=1e-6)
        assert int(norm.batches) == 1


def test_members_do_not_see_each_other():
    q = BatchRenormQ(BOX, ACTION, 2, (8, 8))
    observation, action = torch.randn(6, 3), torch.rand(6, 1)
    pairs = q.inputs(observation, action)
    before = q.values(pairs, [])
    with torch.no_grad():
        for p in q.parameters():
            p[1] += 1.0
    after = q.values(pairs, [])
    assert torch.equal(before[0], after[0]) and not torch.equal(before[1], after[1])
    assert q(observation, action).shape == (2, 6)


def test_encoder_takes_dicts_and_images():
    encoder = BatchRenormEncoder(spaces.Dict(a=BOX, b=spaces.Discrete(2)), (8,))
    assert encoder({"a": torch.randn(5, 3), "b": torch.zeros(5, dtype=torch.int64)}).shape == (5, encoder.width)
    encoder = BatchRenormEncoder(spaces.Box(0, 255, (36, 36, 3), np.uint8), (8,))
    assert encoder(torch.zeros(5, 36, 36, 3, dtype=torch.uint8)).shape == (5, 8)
