"""SAC: its three losses by hand, what the temperature does. What else holds: test_replay_family.py."""

import pytest
import torch
from gymnasium import spaces

from tests.agents.tables import ACTIONS, BOX, ROWS, Lines, sample, squashed, transitions
from whorl.agents.sac import SAC, SACConfig
from whorl.options import override

GAMMA, ALPHA = 0.9, 0.5


def by_hand(**fields):
    """Two critics that are lines; a target that is not the critic."""
    config = override(SACConfig(discount=GAMMA, temperature=ALPHA), fields)
    agent = SAC(squashed(), Lines([1.0, 1.5], [0.2, -0.4]), config)
    with torch.no_grad():
        agent.critic.v.copy_(torch.tensor([[2.0], [0.5]]))
    return agent


def errors(discounts=(GAMMA,) * 3):
    found = []
    for (s, a, r, s2, d, z2, _), gamma in zip(ROWS, discounts, strict=True):
        a2, log_prob = sample(s2, z2)
        value = min(1.0 * s2 + 0.2 * a2, 1.5 * s2 - 0.4 * a2) - ALPHA * log_prob  # of the target's own weights
        target = r + gamma * (0 if d else 1) * value
        found.append([2.0 * s + 0.2 * a - target, 0.5 * s - 0.4 * a - target])
    return found


def test_critic_loss_by_hand():
    loss, metrics = by_hand().critic_loss(transitions(ROWS))
    expected = errors()
    assert loss.item() == pytest.approx(sum(0.5 * (x * x + y * y) for x, y in expected) / 3, abs=1e-6)
    assert metrics["priority"].tolist() == pytest.approx([max(abs(x), abs(y)) for x, y in expected], abs=1e-6)
    q = [v * s + w * a for s, a, *_ in ROWS for v, w in ((2.0, 0.2), (0.5, -0.4))]
    assert metrics["q_mean"].item() == pytest.approx(sum(q) / 6, abs=1e-6)


def test_importance_weights_and_n_step_discounts_by_hand():
    agent, weight, discounts = by_hand(), (0.5, 2.0, 1.0), (0.9**3, 0.9, 0.9**2)
    loss, metrics = agent.critic_loss(transitions(ROWS, weight=weight, next_discount=discounts))
    squares = [w * 0.5 * (x * x + y * y) for w, (x, y) in zip(weight, errors(discounts), strict=True)]
    assert loss.item() == pytest.approx(sum(squares) / 3, abs=1e-6)
    assert metrics["priority"].max().item() == pytest.approx(max(abs(e) for pair in errors(discounts) for e in pair))


@pytest.mark.parametrize("weight", [None, (0.5, 2.0, 1.0)])
def test_actor_and_temperature_losses_by_hand(weight):
    agent = by_hand(target_entropy=-1.5)
    loss, metrics = agent.actor_loss(transitions(ROWS, weight=weight))
    actor_loss = entropy = missing = 0.0
    for (s, *_, z), w in zip(ROWS, weight or (1.0,) * 3, strict=True):
        a, log_prob = sample(s, z)
        actor_loss += w * (ALPHA * log_prob - min(2.0 * s + 0.2 * a, 0.5 * s - 0.4 * a)) / 3
        entropy -= log_prob / 3
        missing += w * (-log_prob + 1.5) / 3  # of the target
    assert metrics["entropy"].item() == pytest.approx(entropy, abs=1e-6)
    assert metrics["temperature"].item() == pytest.approx(ALPHA)
    assert metrics["temperature_loss"].item() == pytest.approx(ALPHA * missing, abs=1e-6)
    assert loss.item() == pytest.approx(actor_loss + ALPHA * missing, abs=1e-6)
    loss.backward()  # log alpha sees its own loss only: d alpha (H - target) / d log alpha
    assert agent.temperature.log_temperature.grad.item() == pytest.approx(ALPHA * missing, abs=1e-6)


def small(action_space=ACTIONS, **fields):
    torch.manual_seed(0)
    return SAC.build(BOX, action_space, override(SACConfig(hidden=(8, 8)), fields))


def test_the_learned_temperature_holds_the_entropy_at_its_target():
    """No action is better than another: the temperature rises below the target entropy and falls above it."""
    for target, rises in ((5.0, True), (-5.0, False)):
        agent = small(target_entropy=target, learning_rate=1e-2)
        for _ in range(20):
            metrics = agent.update(transitions(ROWS))
        assert (metrics["temperature"] > 1) == rises
        assert (metrics["entropy"] < target) == rises


def test_the_bounds_have_no_say_in_the_losses():
    """The same policy in units of the bounds: same entropies, same losses."""
    found = []
    for half in (1.0, 20.0):
        agent, data = small(action_space=spaces.Box(-half, half, (1,))), transitions(ROWS)
        data["action"] = data["action"] * half / 2
        metrics = agent.update(data)
        found.append([metrics[key].item() for key in ("critic_loss", "actor_loss", "temperature_loss", "entropy")])
    assert found[0] == pytest.approx(found[1], abs=1e-5)
