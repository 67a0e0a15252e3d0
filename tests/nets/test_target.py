"""The target network: equal at the start, follows by the formula, builds no graph."""

import pytest
import torch
from torch import nn

from whorl.nets.target import Target


def net():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    module[1].running_mean.uniform_()
    return module.eval()


def everything(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_equal_from_the_start_and_frozen():
    module = net()
    target = Target(module)
    x = torch.randn(5, 3)
    assert torch.equal(target(x), module(x))
    assert not target(x).requires_grad
    assert not any(p.requires_grad for p in target.parameters()) and all(p.requires_grad for p in module.parameters())
    with torch.no_grad():
        module[0].weight.add_(1.0)
    assert not torch.equal(target(x), module(x))


@pytest.mark.parametrize("rate", [0.005, 0.7])
def test_follows_by_the_formula(rate):
    module = net()
    target = Target(module)
    old = everything(target.module)
    with torch.no_grad():
        for tensor in [*module.parameters(), module[1].running_mean]:
            tensor.add_(torch.randn_like(tensor))
        module[1].num_batches_tracked.add_(3)
    new = everything(module)
    target.follow(module, rate)
    for name, value in target.module.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (1 - rate) * old[name] + rate * new[name], rtol=0, atol=1e-6)
        else:
            assert torch.equal(value, new[name])  # a counter is copied
    assert everything(module).keys() == new.keys() and all(
        torch.equal(a, new[n]) for n, a in everything(module).items()
    )


def test_rate_one_copies_to_the_bit():
    module = net()
    target = Target(module)
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(1e7).add_(0.1)
    target.follow(module)
    assert all(torch.equal(a, b) for a, b in zip(target.parameters(), module.parameters(), strict=True))


def test_following_is_one_call(monkeypatch):
    module = net()
    target = Target(module)
    calls = []
    lerp = torch._foreach_lerp_
    monkeypatch.setattr(torch, "_foreach_lerp_", lambda *a: (calls.append(len(a[0])), lerp(*a)))
    target.follow(module, 0.5)
    assert calls == [8]  # 2 + 2 + 2 parameters, running mean and variance
    assert all(p.grad_fn is None for p in target.parameters())


def test_its_state_is_saved():
    module = net()
    target = Target(module)
    fresh = Target(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)))
    fresh.load_state_dict(target.state_dict())
    x = torch.randn(5, 3)
    assert torch.equal(fresh.eval()(x), module(x))


@pytest.mark.parametrize("rate", [0.25, 1.0])
def test_a_live_part_is_the_modules_own(rate):
    module = net()
    target = Target(module, live=module[1])
    module[1].running_mean.fill_(3.0)
    target.follow(module, rate)
    assert target.module[1] is module[1] and target.module[0] is not module[0]
    assert (module[1].running_mean == 3).all()
