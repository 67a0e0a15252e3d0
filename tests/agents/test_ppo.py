"""PPO: its loss by hand, its options, ratios that start at 1."""

import math

import pytest
import torch

from whorl import batch
from whorl.agents.ppo import PPO, PPOConfig
from whorl.feeds import Rollouts
from whorl.training.build import build
from whorl.training.config import override


def agent(env="CartPole-v1", **fields):
    return build("ppo", env, override(PPOConfig(), fields), num_envs=4, seed=0)


def one_row(policy_logit_gap, advantage, old_log_prob, value, target, action=0):
    """A PPO whose policy and critic are constants, and a batch of one row."""
    p = agent(normalize_advantage=False, entropy_weight=0.1).agent
    with torch.no_grad():
        p.policy.head.weight.zero_()
        p.policy.head.bias.copy_(torch.tensor([policy_logit_gap, 0.0]))
        p.critic.head.weight.zero_()
        p.critic.head.bias.fill_(value)
    tensor = lambda x: torch.tensor([x])  # noqa: E731
    rows = {
        "observation": torch.zeros(1, 4),
        "action": tensor(action),
        "log_prob": tensor(old_log_prob),
        "advantage": tensor(advantage),
        "return": tensor(target),
        "value": tensor(0.5),
    }
    return p, batch.make(rows, (1,))


def test_loss_by_hand():
    # pi(0) = e^log3 / (e^log3 + 1) = 3/4; the old one was 1/2: ratio 3/2, clipped to 1.2
    p, rows = one_row(math.log(3), 2.0, math.log(0.5), value=1.0, target=4.0)
    loss, metrics = p.loss(rows)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert metrics["policy_gradient_loss"].item() == pytest.approx(-1.2 * 2.0)
    assert metrics["value_loss"].item() == pytest.approx(0.5 * 9.0)
    assert metrics["entropy_loss"].item() == pytest.approx(-entropy)
    assert metrics["clip_fraction"].item() == 1.0
    assert metrics["approx_kl"].item() == pytest.approx(1.5 - 1 - math.log(1.5), abs=1e-6)
    assert loss.item() == pytest.approx(-2.4 + 0.5 * 4.5 - 0.1 * entropy, abs=1e-5)
    # a negative advantage is not clipped there: min(-3, -2.4) = -3
    p, rows = one_row(math.log(3), -2.0, math.log(0.5), value=1.0, target=4.0)
    assert p.loss(rows)[1]["policy_gradient_loss"].item() == pytest.approx(3.0)


def test_value_clipping_by_hand():
    p, rows = one_row(0.0, 0.0, math.log(0.5), value=1.0, target=4.0)
    p.config = override(p.config, {"value_clip_range": 0.2})
    # V moved from 0.5 to 1.0; clipped it is 0.7: max((1-4)^2, (0.7-4)^2) / 2
    assert p.loss(rows)[1]["value_loss"].item() == pytest.approx(0.5 * 3.3**2, rel=1e-5)


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("fields", [{}, {"normalize_observation": True}, {"std": "dependent"}, {"squash": True}])
def test_the_first_ratio_is_one(env, fields):
    """What acted is what learns, also in the second rollout, when the statistics have moved."""
    parts = agent(env, **fields, feed=Rollouts(steps=64, epochs=2, minibatches=2))
    for _ in range(3):
        rows = parts.agent.prepare(parts.collector.collect()).reshape(-1)
        metrics = parts.agent.loss(rows)[1]
        assert metrics["approx_kl"].abs() < 1e-6 and metrics["clip_fraction"] == 0
        parts.buffer.add(rows.reshape(64, 4))
        parts.agent.learn(parts.buffer)


def test_kl_stop_stops_the_rollout():
    def updates(limit):
        parts = agent(learning_rate=0.03, kl_stop=limit, feed=Rollouts(steps=64, epochs=8, minibatches=4))
        parts.buffer.add(parts.agent.prepare(parts.collector.collect()))
        count = 0
        update = parts.agent.update

        def counted(rows):
            nonlocal count
            count += 1
            return update(rows)

        parts.agent.update = counted
        parts.agent.learn(parts.buffer)
        return count

    assert updates(0.0) == 32
    assert 1 <= updates(0.01) < 32


def test_annealing_ends_at_zero_and_is_a_share_of_the_steps():
    parts = agent(learning_rate=1e-2, anneal_steps=1024, feed=Rollouts(steps=64))
    rates = []
    for _ in range(5):
        parts.buffer.add(parts.agent.prepare(parts.collector.collect()))
        rates.append(float(parts.agent.learn(parts.buffer)["learning_rate"]))
    assert rates == pytest.approx([0.0075, 0.005, 0.0025, 0.0, 0.0], abs=1e-9)


def test_normalized_returns_give_the_same_advantages_in_raw_units():
    """A critic in normalized units that says the same as one in raw units leads to the same advantages."""
    raw, scaled = agent(), agent(normalize_return=True)
    scaled.agent.load_state_dict({**scaled.agent.state_dict(), **raw.agent.state_dict()})
    mean, std = 3.0, 7.0
    with torch.no_grad():
        normalizer = scaled.agent.return_normalizer
        normalizer.mean.fill_(mean), normalizer.var.fill_(std**2), normalizer.scale.fill_(1 / std)
        scaled.agent.critic.head.weight.div_(std)
        scaled.agent.critic.head.bias.sub_(mean).div_(std)
    a = raw.agent.prepare(raw.collector.collect())
    b = scaled.agent.prepare(scaled.collector.collect())
    torch.testing.assert_close(a["advantage"], b["advantage"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(a["return"], b["return"], atol=1e-4, rtol=1e-4)


def test_prepare_bootstraps_at_truncation_and_not_at_termination():
    parts = agent(env="CartPole-v1", trace_decay=0.0, discount=0.9)
    rollout = parts.collector.collect()
    end = torch.zeros(128, 4, dtype=torch.bool)
    rollout["next", "terminated"], rollout["next", "truncated"] = end.clone(), end.clone()
    rollout["next", "terminated"][3, 0] = True
    rollout["next", "truncated"][3, 1] = True
    prepared = parts.agent.prepare(rollout)
    with torch.no_grad():
        successor = parts.agent.value(rollout["next", "observation"])
    assert prepared["return"][3, 0].item() == pytest.approx(1.0, abs=1e-5)
    assert prepared["return"][3, 1].item() == pytest.approx(1.0 + 0.9 * successor[3, 1].item(), abs=1e-5)


def test_the_constructor_takes_finished_parts():
    built = agent().agent
    again = PPO(built.policy, built.critic, PPOConfig())
    assert again.policy is built.policy and set(again.optimizers()) == {"optimizer"}
