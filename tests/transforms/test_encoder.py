"""A frozen network in front of an agent: by hand, from a file, by name, and what is wrong with a file."""

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from safetensors.torch import save_file
from torch import nn

import whorl
from tests.transforms.screen import Screen
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.errors import BadInput, Incompatible
from whorl.transforms.chain import TRANSFORMS, chain
from whorl.transforms.encoder import FrozenEncoder
from whorl.transforms.env import Transformed
from whorl.transforms.pixels import ToImage


def network():
    return nn.Sequential(nn.Conv2d(3, 2, 3, 2), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten())


class Eye(FrozenEncoder):
    def __init__(self, weights: str, key: str | None = None) -> None:
        super().__init__(network(), weights, key)


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "eye.safetensors"
    save_file(network().state_dict(), path)
    return str(path)


def test_a_network_from_a_file(file):
    screen = Transformed(Gymnasium(Screen, 3), ToImage())
    eye = Eye(file)
    whorl.check_transform(eye, screen, steps=15)
    env = Transformed(screen, eye)
    assert env.reset(0).shape == (3, 2 * 5 * 4) == (3, *env.observation_space.shape)
    assert not env.learned() and not [*eye.parameters()]
    wanted = eye.module(torch.as_tensor(Gymnasium(Screen, 3).reset(0)).permute(0, 3, 1, 2) / 255)
    np.testing.assert_allclose(env.reset(0), wanted, rtol=1e-5, atol=1e-6)


def test_a_name_makes_it_part_of_a_run(file, monkeypatch):
    monkeypatch.setattr("whorl.transforms.chain.TRANSFORMS", TRANSFORMS.copy())
    with pytest.raises(BadInput, match="Eye has no name by which a run could write it down"):
        chain([Eye(file)]).written()
    whorl.register_transform("eye", Eye)
    assert chain([Eye(file)]).written() == [{"name": "eye", "weights": file}]


def test_a_file_that_does_not_fit(file, tmp_path):
    with pytest.raises(BadInput, match="does not hold the weights of Linear: .*Missing key"):
        FrozenEncoder(nn.Linear(2, 2), file)
    (tmp_path / "text").write_text("nothing")
    for name in ("text", "missing"):
        with pytest.raises(BadInput, match=f"{name} does not hold the weights of Sequential"):
            Eye(str(tmp_path / name))
    with pytest.raises(Incompatible, match=r"its network does not take observations of shape \(4,\)"):
        Eye(file).spaces(Box(0, 1, (4,), np.float32), Discrete(2))
