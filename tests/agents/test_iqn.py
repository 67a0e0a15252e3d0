"""IQN: its loss by hand, taus from the batch, and quantiles that become right at any tau."""

import pytest
import torch

from tests.agents.tables import agent_on_table, rows
from whorl.agents.iqn import IQNConfig
from whorl.training.build import build


def iqn(**fields):
    """psi = the one-hot state; the embedding is phi_j(tau) = ReLU(0 + b_j + w_j cos(0)) but for what a test writes into it."""
    agent = agent_on_table(
        "iqn",
        [[1.0, 2.0], [3.0, 5.0]],
        [[9.0, 9.0], [4.0, 1.5]],
        **{"discount": 0.5, "cosines": 2, "samples": 2, "target_samples": 2, **fields},
    )
    for q, slope in ((agent.policy.q, 1.0), (agent.target.module, 0.5)):
        with torch.no_grad():  # phi(tau) = ReLU(1 + slope cos(pi tau)) in both of its 2 entries
            q.embedding.weight.copy_(torch.tensor([[0.0, slope]] * 2))
            q.embedding.bias.fill_(1.0)
    return agent


def one_row(taus, **more):
    """s0 -a0-> s1 with .5, going on."""
    return rows([0], [0], [0.5], [1], [False], noise=torch.tensor([taus]), **more)


def huber(u):
    return u * u / 2 if abs(u) <= 1 else abs(u) - 0.5


@pytest.mark.parametrize("double", [False, True])
def test_loss_by_hand(double):
    """taus .5, 1 give cos 0, -1: theta = q(s0, a0) (1 + 0), (1 - 1) = 1, 0. Target taus 0, .5: q'(s1, a*) (1 + .5), (1 + 0).

    a*: the target's means are in proportion to 4, 1.5: action 0. The online's to 3, 5: action 1.
    """
    loss, metrics = iqn(double=double).loss(one_row([0.5, 1.0, 0.0, 0.5]))
    value = 1.5 if double else 4.0
    targets = [0.5 + 0.5 * value * 1.5, 0.5 + 0.5 * value * 1.0]
    expected = sum(
        abs(tau - (y < theta)) * huber(y - theta) / 2 for tau, theta in ((0.5, 1.0), (1.0, 0.0)) for y in targets
    )
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert metrics["q_mean"].item() == pytest.approx(0.5, abs=1e-6)
    assert metrics["priority"].tolist() == pytest.approx([abs(sum(targets) / 2 - 0.5)], abs=1e-6)


def test_masks_and_weights():
    more = {"next_action_mask": torch.tensor([[False, True]]), "weight": torch.tensor([0.25])}
    agent, taus = iqn(), [0.5, 1.0, 0.0, 0.5]
    expected = 0.25 * iqn(double=True).loss(one_row(taus))[0].item()
    assert agent.loss(one_row(taus, **more))[0].item() == pytest.approx(expected, abs=1e-6)


def test_update_draws_taus_once_from_the_learning_stream():
    p = build("iqn", "CartPole-v1", num_envs=4, seed=3)
    p.buffer.add(p.agent.prepare(p.collector.collect()))
    batch = p.buffer.sample(5)
    expected = p.agent.noise((5, 16), "uniform")
    p.agent.update(batch)
    assert torch.equal(batch["noise"], expected) and 0 <= expected.min() < expected.max() < 1
    assert not torch.equal(p.agent.noise((5, 16), "uniform"), expected)


def test_any_quantile_of_a_uniform_reward_is_learned():
    agent = build("iqn", "ProbeConstant-v0", IQNConfig(huber=0.0), num_envs=1).agent  # the sharp loss: no bias inwards
    draw = torch.Generator().manual_seed(0)
    zeros = [0] * 64
    for _ in range(400):
        batch = rows(zeros, zeros, (4 * torch.rand(64, generator=draw)).tolist(), zeros, [True] * 64, states=1)
        agent.update(batch)
    taus = torch.tensor([[0.1, 0.3, 0.5, 0.7, 0.9]])
    learned = agent.policy.q.quantiles(torch.ones(1, 1), taus)[0, 0]
    torch.testing.assert_close(learned, 4 * taus[0], atol=0.4, rtol=0)
    assert (learned[1:] > learned[:-1]).all()
