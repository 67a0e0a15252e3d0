"""What holds for DQN, C51, QR-DQN, IQN and Rainbow alike: copied targets, gradients, weights, resuming."""

import copy

import pytest
import torch

from whorl.options import override
from whorl.training.build import build
from whorl.training.catalog import agent_class

FAMILY = ["dqn", "c51", "qr_dqn", "iqn", "rainbow"]
FEED = {"batch_size": 16, "warmup": 40, "replay_ratio": 0.5}


def parts(name, env="CartPole-v1", compile=False, **fields):
    config = override(agent_class(name).Config(), {"hidden": (16, 16), "feed": FEED, **fields})
    return build(name, env, config, num_envs=4, seed=0, update="compiled" if compile else "eager")


def filled(name, env="CartPole-v1", **fields):
    """Parts with 60 rows in the buffer, and nothing learned."""
    p = parts(name, env, **{**fields, "feed": {**FEED, "warmup": 10_000}})
    for _ in range(15):
        p.buffer.add(p.agent.prepare(p.collector.collect()))
    return p


def with_noise(p):
    """A batch as `update` would give it to the loss."""
    seen, optimize = [], p.agent.optimize
    p.agent.optimize = lambda loss, optimizer, batch: seen.append(batch) or optimize(loss, optimizer, batch)
    p.agent.update(p.buffer.sample())
    del p.agent.optimize
    return seen[0].clone()


@pytest.mark.parametrize("name", FAMILY)
def test_the_target_is_the_online_net_at_the_start_and_moves_when_it_is_due(name):
    """rlpyt's target nets started from weights of their own."""
    p = filled(name, target_every=3, target_rate=1.0, learning_rate=1e-2)
    agent = p.agent

    def same():
        return [torch.equal(a, b) for a, b in zip(agent.policy.q.parameters(), agent.target.parameters(), strict=True)]

    assert all(same())
    for due in (False, False, True, False, False, True):
        agent.update(p.buffer.sample())
        assert all(same()) == due and any(same()) == due
    assert agent.updates == 6


@pytest.mark.parametrize("name", FAMILY)
def test_gradient_by_finite_differences(name):
    """Of the online parameters, with the target as it stands (a bootstrap has no gradient)."""
    p = filled(name, **({} if name == "rainbow" else {"double": False}))
    agent, batch = p.agent, with_noise(p)
    agent.double()
    batch = batch.apply(lambda x: x.double() if x.is_floating_point() else x)
    agent.zero_grad()
    agent.loss(batch)[0].backward()
    draw = torch.Generator().manual_seed(0)
    for parameter in agent.policy.q.parameters():
        direction = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * 1e-6 * direction)
                values.append(agent.loss(batch)[0].item())
                parameter.sub_(sign * 1e-6 * direction)
        slope = (parameter.grad * direction).sum().item()
        assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("name", FAMILY)
def test_weights_multiply_each_rows_loss_and_priorities_do_not_feel_them(name):
    p = filled(name)
    batch = with_noise(p)
    batch["weight"] = torch.ones(16)
    whole, metrics = p.agent.loss(batch)
    shares = []
    for i in range(16):
        batch["weight"] = torch.nn.functional.one_hot(torch.tensor(i), 16).float()
        loss, same = p.agent.loss(batch)
        shares.append(loss.item())
        assert torch.equal(same["priority"], metrics["priority"])
    assert sum(shares) == pytest.approx(whole.item(), rel=1e-4)
    assert metrics["priority"].shape == (16,) and (metrics["priority"] >= 0).all() and len(set(shares)) > 8


@pytest.mark.parametrize("name", FAMILY)
def test_it_learns_from_its_feed_with_masks_and_the_metrics_are_named(name):
    for env in ("GridWorld-v0", "CartPole-v1"):
        p = parts(name, env)
        for _ in range(16):
            p.buffer.add(p.agent.prepare(p.collector.collect()))
            metrics = p.agent.learn(p.buffer)
        assert p.agent.updates == (64 - 40) // 2
        own = {"kl"} if name in ("c51", "rainbow") else {"td_error"}
        own |= set() if name == "rainbow" else {"epsilon"}
        assert set(metrics) == {"loss", "grad_norm", "q_mean", *own}
        assert all(value.isfinite() for value in metrics.values())


@pytest.mark.parametrize("name", FAMILY)
def test_a_saved_agent_goes_on_to_the_same_bits(name):
    p, fresh = filled(name), filled(name)
    for _ in range(3):
        p.agent.update(p.buffer.sample())
    fresh.agent.load_state_dict(p.agent.state_dict())
    fresh.agent.optimizer.load_state_dict(
        copy.deepcopy(p.agent.optimizer.state_dict())
    )  # torch would share its tensors
    batch = p.buffer.sample().clone()
    results = [agent.update(batch.clone()) for agent in (p.agent, fresh.agent)]
    assert all(torch.equal(results[0][key], results[1][key]) for key in results[0])
    for a, b in zip(p.agent.state_dict().values(), fresh.agent.state_dict().values(), strict=True):
        assert torch.equal(a, b)
