import pytest
import torch
from gymnasium import spaces

from whorl.errors import BadInput
from whorl.nets.encoder import Encoder
from whorl.nets.rnn import Memory

SPACE = spaces.Box(-1, 1, (3,))


def memory(cell, **options):
    torch.manual_seed(0)
    made = Memory(Encoder(SPACE, (8,)), cell, 5, **options)
    for p in made.rnn.parameters():  # biases, too
        torch.nn.init.normal_(p, std=0.5)
    return made


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("chance", [0.0, 0.1, 0.7, 1.0])
def test_a_sequence_is_its_steps(cell, chance):
    net = memory(cell)
    observation, is_first = torch.randn(17, 4, 3), torch.rand(17, 4) < chance
    start = torch.randn(4, net.size)
    features, last = net.unroll(observation, start, is_first)
    state, slow = start, []
    for t in range(17):
        state = net.step(observation[t], state * ~is_first[t, :, None])
        slow.append(net.features(state))
    torch.testing.assert_close(features, torch.stack(slow), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(last, state, atol=1e-6, rtol=1e-5)
    weights = [*net.parameters()]
    for one, other in zip(
        torch.autograd.grad(features.square().sum(), weights),
        torch.autograd.grad(torch.stack(slow).square().sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_nothing_crosses_the_beginning_of_an_episode(cell):
    net = memory(cell)
    observation, is_first = torch.randn(6, 2, 3), torch.zeros(6, 2, dtype=torch.bool)
    is_first[3, 0] = True
    start = torch.randn(2, net.size)
    features = net.unroll(observation, start, is_first)[0]
    observation[:3] += 1.0
    changed = net.unroll(observation, start + 1, is_first)[0]
    assert torch.equal(features[3:, 0], changed[3:, 0]) and not torch.allclose(features[3:, 1], changed[3:, 1])


def test_a_gate_bias_keeps_the_state():
    torch.manual_seed(0)
    plain = Memory(Encoder(SPACE, (8,)), "gru", 5)
    torch.manual_seed(0)
    slow = Memory(Encoder(SPACE, (8,)), "gru", 5, gate_bias=4.0)
    state, seen = torch.ones(2, 5), torch.randn(2, 3)
    assert (slow.step(seen, state) - state).abs().mean() < 0.2 * (plain.step(seen, state) - state).abs().mean()


def test_refused():
    with pytest.raises(BadInput, match="a memory is a 'gru' or an 'lstm', got 'rnn'"):
        Memory(Encoder(SPACE), "rnn")
    with pytest.raises(BadInput, match="gate_bias belongs to a GRU"):
        Memory(Encoder(SPACE), "lstm", gate_bias=1.0)
