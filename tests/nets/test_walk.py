"""What is inside a module."""

from __future__ import annotations

import torch
from torch import nn

from whorl.nets.walk import modules_in, tensors_in


def test_every_module_and_tensor_is_there_once():
    shared = nn.Linear(2, 3)
    module = nn.Sequential(shared, nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 2), shared))
    module.register_buffer("absent", None)
    module[2].tied = module[0].weight
    assert {*modules_in(module)} == {*module.modules()} and len(modules_in(module)) == 5
    found = tensors_in(module)
    assert [id(x) for x in found[-3:]] == [id(x) for x in module.buffers()]
    assert sorted(map(id, found)) == sorted(map(id, [*module.parameters(), *module.buffers()]))
    assert all(torch.equal(a, b) for a, b in zip(found, tensors_in(module), strict=True))
