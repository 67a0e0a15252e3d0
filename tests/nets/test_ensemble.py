"""Ensembles of action-values: each member is its own MLP; inputs, initialisation, gradients, refusals."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from whorl.errors import BadInput
from whorl.nets.ensemble import EnsembleLinear, QEnsemble

OBSERVATION = spaces.Box(-np.inf, np.inf, (3,))
ACTION = spaces.Box(np.array([-2.0, 0.0], np.float32), np.array([2.0, 10.0], np.float32))
UNIT = spaces.Box(-1.0, 1.0, (2,))
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


def member(q: QEnsemble, e: int, activation: str) -> nn.Sequential:
    """Member e as an ordinary MLP."""
    layers: list[nn.Module] = []
    for layer in q.layers:
        if isinstance(layer, EnsembleLinear):
            own = nn.Linear(layer.weight.shape[1], layer.weight.shape[2])
            own.weight = nn.Parameter(layer.weight[e].detach().T.clone())
            own.bias = nn.Parameter(layer.bias[e, 0].detach().clone())
        else:
            own = ACTIVATIONS[activation]()
        layers.append(own)
    return nn.Sequential(*layers)


@pytest.mark.parametrize(("activation", "outputs"), [("relu", 1), ("tanh", 5)])
def test_a_member_is_its_own_network(activation, outputs):
    q = QEnsemble(OBSERVATION, UNIT, 3, (8, 6), activation, outputs)
    with torch.no_grad():
        for p in q.parameters():
            p.add_(0.1 * torch.randn_like(p))
    observation, action = torch.randn(7, 3), torch.rand(7, 2)
    came = q(observation, action)
    assert came.shape == ((3, 7) if outputs == 1 else (3, 7, outputs))
    came.square().sum().backward()
    for e in range(3):
        alone = member(q, e, activation)
        expected = alone(torch.cat([observation, action], -1))
        torch.testing.assert_close(came[e], expected.squeeze(-1) if outputs == 1 else expected, rtol=0, atol=1e-6)
        expected.square().sum().backward()  # a member's gradient is what it gets alone
        torch.testing.assert_close(q.layers[0].weight.grad[e], alone[0].weight.grad.T, rtol=1e-4, atol=1e-5)


def test_actions_enter_in_units_of_their_range():
    q = QEnsemble(OBSERVATION, ACTION, 2, (8,))
    observation = torch.randn(3, 3)
    action = torch.tensor([[-2.0, 0.0], [0.0, 5.0], [2.0, 10.0]])
    unit = torch.tensor([[-1.0, -1.0], [0.0, 0.0], [1.0, 1.0]])
    expected = torch.stack([member(q, e, "relu")(torch.cat([observation, unit], -1)) for e in range(2)]).squeeze(-1)
    torch.testing.assert_close(q(observation, action), expected)
    unbounded = QEnsemble(OBSERVATION, spaces.Box(-np.inf, np.inf, (2,)), 2, (8,))
    expected = member(unbounded, 0, "relu")(torch.cat([observation, action], -1)).squeeze(-1)
    torch.testing.assert_close(unbounded(observation, action)[0], expected)


def test_without_actions():
    q = QEnsemble(OBSERVATION, None, 2, (8,), outputs=4)
    x = torch.randn(5, 3)
    assert q(x).shape == (2, 5, 4)
    torch.testing.assert_close(q(x)[1], member(q, 1, "relu")(x))
    assert QEnsemble(OBSERVATION, None, 2, (8,), outputs=1)(x).shape == (2, 5, 1)  # one action is one column


def test_some_members_are_what_they_are_among_all():
    q = QEnsemble(OBSERVATION, UNIT, 5, (8,), outputs=2)
    observation, action = torch.randn(7, 3), torch.rand(7, 2)
    chosen = torch.tensor([3, 1])
    torch.testing.assert_close(q.some(chosen, observation, action), q(observation, action)[chosen])


def test_dict_observations_are_laid_side_by_side():
    space = spaces.Dict(a=OBSERVATION, b=spaces.Discrete(2))
    q = QEnsemble(space, UNIT, 2, (8,))
    a, action = torch.randn(2, 3), torch.rand(2, 2)
    came = q({"a": a, "b": torch.tensor([0, 1])}, action)
    expected = member(q, 0, "relu")(torch.cat([a, torch.eye(2), action], -1)).squeeze(-1)
    torch.testing.assert_close(came[0], expected)


def test_members_are_initialised_each_by_itself():
    q = QEnsemble(OBSERVATION, UNIT, 3, (64, 64))
    first, second, last = (q.layers[i] for i in (0, 2, 4))
    for layer in (first, second, last):
        for e in range(3):
            others = [layer.weight[k] for k in range(3) if k != e]
            assert not any(torch.allclose(layer.weight[e], other) for other in others)
    for layer, inputs in ((first, 5), (second, 64), (last, 64)):
        for tensor in (layer.weight, layer.bias):
            assert tensor.abs().max() <= inputs**-0.5
        spread = layer.weight.std(dim=(1, 2))  # of U(-b, b): b / sqrt(3)
        torch.testing.assert_close(spread, torch.full((3,), (inputs * 3) ** -0.5), rtol=0.25, atol=0)


def test_a_wide_action_space_changes_no_parameter_names():
    """Checkpoints hold parameters only: the range of the actions belongs to the space."""
    assert list(QEnsemble(OBSERVATION, ACTION).state_dict()) == list(QEnsemble(OBSERVATION, UNIT).state_dict())


def test_refusals():
    with pytest.raises(BadInput, match="at least 1 member, got 0"):
        QEnsemble(OBSERVATION, UNIT, 0)


def test_members_share_one_cnn_and_some_of_them_are_as_all_of_them():
    space = spaces.Dict(eye=spaces.Box(0, 255, (36, 36, 1), np.uint8), speed=spaces.Box(-1, 1, (2,)))
    q = QEnsemble(space, ACTION, 3, (8,))
    seen = {"eye": torch.randint(256, (4, 36, 36, 1), dtype=torch.uint8), "speed": torch.randn(4, 2)}
    action = torch.rand(4, *ACTION.shape)
    assert q.inputs.width == 2 + 512 + ACTION.shape[0] and len(q.inputs.encoder.cnns) == 1
    torch.testing.assert_close(q.some(torch.tensor([2, 0]), seen, action), q(seen, action)[[2, 0]])
    assert not torch.equal(q(seen, action), q(seen | {"eye": 255 - seen["eye"]}, action))
