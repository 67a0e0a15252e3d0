"""Networks of action values: dueling, streams of noise, distributions, the embedding of tau: each worked by hand."""

import math

import pytest
import torch
from gymnasium import spaces

from whorl.nets.q import CategoricalQ, ImplicitQuantileQ, QNetwork, QuantileQ

BOX = spaces.Box(-1.0, 1.0, (3,))


def x(n=5, seed=0):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


def test_shapes_for_any_leading_axes():
    for dueling in (False, True):
        for outputs, shape in ((1, (4,)), (7, (4, 7))):
            q = QNetwork(BOX, 4, (16, 8), outputs=outputs, dueling=dueling)
            for leading in ((), (5,), (2, 5)):
                assert q(torch.zeros(*leading, 3)).shape == (*leading, *shape)
    image = QNetwork(spaces.Box(0, 255, (84, 84, 4), "uint8"), 6, dueling=True)
    assert image(torch.zeros(2, 84, 84, 4, dtype=torch.uint8)).shape == (2, 6)
    assert image.encoder.width == 512 and image.advantage[0].out_features == 84


def test_weights_start_as_torchs():
    torch.manual_seed(0)
    ours = QNetwork(BOX, 4, (16, 8))
    layers = [m for m in ours.modules() if isinstance(m, torch.nn.Linear)]
    assert [tuple(m.weight.shape) for m in layers] == [(16, 3), (8, 16), (4, 8)]
    for layer in layers:
        bound = 1 / math.sqrt(layer.in_features)
        assert 0.5 * bound < layer.weight.abs().max() <= bound and layer.bias.abs().max() <= bound


@pytest.mark.parametrize("outputs", [1, 2])
def test_dueling_by_hand(outputs):
    """V = 10, A = (1, 2, 6) with mean 3: q = (8, 9, 13); and so for each atom, with the mean of its own."""
    q = QNetwork(BOX, 3, (4,), outputs=outputs, dueling=True)
    with torch.no_grad():
        for stream, numbers in ((q.value, [10.0, 20.0]), (q.advantage, [1.0, -1, 2, 0, 6, 4])):
            stream[-1].weight.zero_()
            numbers = numbers[:1] if outputs == 1 and stream is q.value else numbers
            numbers = numbers[::2] if outputs == 1 and stream is q.advantage else numbers
            stream[-1].bias.copy_(torch.tensor(numbers))
    came = q(x(1))[0]
    torch.testing.assert_close(came, torch.tensor([8.0, 9, 13] if outputs == 1 else [[8.0, 18], [9, 19], [13, 23]]))


def test_noise_goes_to_each_layer_once_and_none_is_the_mean():
    q = QNetwork(BOX, 2, (6, 5), dueling=True, noisy=True)
    assert q.noise_size == (6 + 5) + (5 + 2) + (6 + 5) + (5 + 1)
    quiet = q(x(), torch.zeros(5, q.noise_size))
    torch.testing.assert_close(quiet, q(x()))
    noise = torch.randn(5, q.noise_size, generator=torch.Generator().manual_seed(0))
    loud = q(x(), noise)
    assert (loud != quiet).all()
    h = q.encoder(x())
    a = q.advantage[2](q.advantage[0](h, noise[:, :11]).relu(), noise[:, 11:18])
    v = q.value[2](q.value[0](h, noise[:, 18:29]).relu(), noise[:, 29:])
    torch.testing.assert_close(loud, v + a - a.mean(-1, keepdim=True))


def test_the_mean_of_a_categorical_distribution():
    """Atoms -1, 0, 1; logits log(1, 1, 2): q = (-1 + 2) / 4."""
    net = QNetwork(BOX, 2, (), outputs=3)
    with torch.no_grad():
        net.advantage[0].weight.zero_()
        net.advantage[0].bias.copy_(torch.tensor([1.0, 1, 2, 2, 1, 1]).log())
    q = CategoricalQ(net, -1.0, 1.0)
    torch.testing.assert_close(q(x(2)), torch.tensor([[0.25, -0.25]]).expand(2, 2))


def test_the_mean_of_quantiles():
    net = QNetwork(BOX, 2, (), outputs=4)
    with torch.no_grad():
        net.advantage[0].weight.zero_()
        net.advantage[0].bias.copy_(torch.tensor([1.0, 2, 3, 6, -1, 0, 0, 0]))
    q = QuantileQ(net)
    assert q.quantiles(x(1)).tolist() == [[[1, 2, 3, 6], [-1, 0, 0, 0]]]
    assert q(x(1)).tolist() == [[3, -0.25]]


def test_the_embedding_of_tau_by_hand():
    """One observation of width 1 (psi = s), 3 cosines, phi(tau) = ReLU(w . cos(pi i tau) + b), Z = 2 psi phi + 1."""
    one = spaces.Box(-1.0, 1.0, (1,))
    q = ImplicitQuantileQ(QNetwork(one, 1, ()), cosines=3, acting=2)
    with torch.no_grad():
        q.embedding.weight.copy_(torch.tensor([[0.5, 1.0, -2.0]]))
        q.embedding.bias.fill_(0.25)
        q.net.advantage[0].weight.fill_(2.0)
        q.net.advantage[0].bias.fill_(1.0)
    s, taus = 0.7, [0.0, 0.3, 0.9]
    expected = []
    for tau in taus:
        phi = max(0.5 + math.cos(math.pi * tau) - 2 * math.cos(2 * math.pi * tau) + 0.25, 0.0)
        expected.append(2 * s * phi + 1)
    came = q.quantiles(torch.tensor([[s]]), torch.tensor([taus]))
    assert came.shape == (1, 1, 3)
    assert came.flatten().tolist() == pytest.approx(expected, abs=1e-6)
    midway = q.quantiles(torch.tensor([[s]]), torch.tensor([[0.25, 0.75]])).mean()  # forward: midpoints of 2 halves
    assert q(torch.tensor([[s]])).item() == pytest.approx(midway.item(), abs=1e-6)
