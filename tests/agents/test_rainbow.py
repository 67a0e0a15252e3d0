"""Rainbow: its loss from its parts with the noise written down, its feed, and how it explores."""

import numpy as np
import pytest
import torch

from tests.agents.tables import rows
from whorl.agents.rainbow import RainbowConfig
from whorl.functional.distributional import categorical_projection
from whorl.training.build import build


def agent(**fields):
    torch.manual_seed(0)
    return build("rainbow", "CartPole-v1", RainbowConfig(hidden=(8, 8), atoms=11, **fields), num_envs=4, seed=1)


def test_three_noises_double_and_the_cross_entropy():
    a = agent().agent
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in a.target.parameters():
            p.add_(torch.randn(p.shape, generator=draw))
    noise = torch.randn(3, a.policy.noise_size, generator=draw)
    batch = rows(
        [0, 1, 2, 3, 0, 1],
        [0, 1, 0, 1, 0, 1],
        [0.5] * 6,
        [1, 2, 3, 0, 2, 3],
        [False] * 5 + [True],
        states=4,
        noise=noise.expand(6, -1, -1),
    )
    batch["weight"] = torch.tensor([1, 0.5, 0.25, 1, 1, 2.0])
    loss, metrics = a.loss(batch)
    z, successor = a.policy.q.requires_grad_(False), batch["next", "observation"]
    choice = z(successor, noise[2]).argmax(-1)  # the online net, with noise of its own
    target = a.target.module.logits(successor, noise[1])
    expected, priority = 0.0, []
    for i in range(6):
        next_p = target[i, choice[i]].softmax(-1)
        next = batch["next"][i : i + 1]
        p = categorical_projection(z.support, next_p[None], next["reward"], a.config.discount, next["terminated"])[0]
        log_p = z.logits(batch["observation"][i], noise[0])[batch["action"][i]].log_softmax(-1)
        expected -= float(batch["weight"][i] * (p * log_p).sum()) / 6
        priority.append(float(torch.nn.functional.kl_div(log_p, p, reduction="sum")))
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert metrics["priority"].tolist() == pytest.approx(priority, abs=1e-5)


def test_the_feed_is_prioritized_and_three_step_and_the_nets_noisy_and_dueling():
    feed = RainbowConfig().feed
    assert (feed.prioritized, feed.n_step, feed.alpha, feed.beta) == (True, 3, 0.5, 0.4)
    net = agent().agent.policy.q.net
    assert net.value is not None and net.noise_size == 2 * (8 + 8) + (8 + 22) + (8 + 11)


def test_it_explores_by_noise_of_each_environment_and_evaluates_without():
    policy = agent().agent.policy
    noise = policy.noise((200,), torch.Generator().manual_seed(0))
    assert noise.shape == (200, policy.noise_size) and noise.dtype == torch.float32
    observation, first = torch.full((200, 4), 0.1), torch.zeros(200, dtype=torch.bool)
    action = policy.act(observation, None, first, noise)[0]["action"]
    assert 0 < action.sum() < 200  # equal observations, different noise
    assert torch.equal(action, policy.q(observation, noise).argmax(-1))
    greedy = policy.act(observation, None, first, None)[0]["action"]
    assert torch.equal(greedy, policy.q(observation).argmax(-1)) and len(set(greedy.tolist())) == 1
    came, _ = policy.actor(200)(observation.numpy(), None, first.numpy(), noise.numpy())
    assert np.array_equal(came["action"], action)


def test_update_draws_its_noise_once_from_the_learning_stream():
    p = agent()
    for _ in range(8):
        p.buffer.add(p.agent.prepare(p.collector.collect()))
    batch = p.buffer.sample(5)
    expected = p.agent.noise((3, p.agent.policy.noise_size))
    p.agent.update(batch)
    assert torch.equal(batch["noise"], expected.expand(5, -1, -1))
    assert not torch.equal(p.agent.noise((3, p.agent.policy.noise_size)), expected)
