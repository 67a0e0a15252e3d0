"""CrossQ: losses against the formulas in float64, statistics moved by update alone. What else holds: test_replay_family.py."""

import math

import pytest
import torch
from gymnasium import spaces

from whorl import batch
from whorl.agents.crossq import CrossQ, CrossQConfig
from whorl.nets.batch_renorm import BatchRenorm
from whorl.options import override

BOX, ACTIONS = spaces.Box(-1, 1, (1,)), spaces.Box(-2, 2, (1,))
GAMMA, ALPHA = 0.9, 0.5


def small(**fields):
    torch.manual_seed(0)
    config = CrossQConfig(hidden=(8,), critic_hidden=(6,), discount=GAMMA, temperature=ALPHA)
    return CrossQ.build(BOX, ACTIONS, override(config, fields))


def rows(n=16, dtype=torch.float32, **extra):
    g = torch.Generator().manual_seed(1)
    normal = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)  # noqa: E731
    entries = {
        "observation": normal(n, 1),
        "action": 2 * normal(n, 1).tanh(),
        "noise": normal(n, 2, 1),
        "next": {"observation": normal(n, 1), "reward": normal(n), "terminated": normal(n) > 1},
    }
    return batch.make(entries | extra, (n,))


def norm(layer, x, e, training):
    """Batch normalization (renormalization has not set in) or, acting, the running statistics: member e's columns."""
    mean, var = (x.mean(0), x.var(0, correction=0)) if training else (layer.mean[e, 0], layer.var[e, 0])
    return (x - mean) / (var + 1e-3).sqrt() * layer.weight[e, 0] + layer.bias[e, 0]


def q_of(critic, e, observation, action, training):
    x = norm(critic.mlp.norms[0], torch.cat([observation, action / 2], -1), e, training)
    layer = critic.mlp.linears[0]
    x = norm(critic.mlp.norms[1], (x @ layer.weight[e] + layer.bias[e, 0]).relu(), e, training)
    return (x @ critic.head.weight[e] + critic.head.bias[e, 0]).squeeze(-1)


def sample(policy, observation, noise, training):
    def own(layer, x):
        mean, var = (x.mean(0), x.var(0, correction=0)) if training else (layer.mean[0], layer.var[0])
        return (x - mean) / (var + 1e-3).sqrt() * layer.weight[0] + layer.bias[0]

    mlp = policy.encoder.mlp
    x = own(mlp.norms[1], mlp.linears[0](own(mlp.norms[0], observation)).relu())
    mean, log_std = policy.head(x).chunk(2, -1)
    log_std = log_std.clamp(-5, 2)
    u = mean + log_std.exp() * noise
    log_prob = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi) - (1 - u.tanh() ** 2).log()
    return 2 * u.tanh(), log_prob.squeeze(-1)


def moved(agent):
    """Statistics and weights that are not those of the start; the first half of the warm-up is over."""
    with torch.no_grad():
        for module in agent.modules():
            if isinstance(module, BatchRenorm):
                module.mean.normal_()
                module.var.uniform_(0.3, 2.0)
                module.weight.normal_()
                module.bias.normal_()
                module.batches.fill_(10)
    return agent.double()


@pytest.mark.parametrize("weighted", [False, True])
def test_critic_loss_by_the_formulas(weighted):
    agent, data = moved(small()), rows(dtype=torch.float64)
    weight = torch.linspace(0.1, 1.6, 16, dtype=torch.float64)
    if weighted:
        data["weight"] = weight
    next = data["next"]
    action, log_prob = sample(agent.policy, next["observation"], data["noise"][:, 0], training=False)
    q, next_q = [], []
    for e in range(2):  # one batch of both: figure 1
        both = q_of(
            agent.critic,
            e,
            torch.cat([data["observation"], next["observation"]]),
            torch.cat([data["action"], action]),
            True,
        )
        q.append(both[:16])
        next_q.append(both[16:])
    value = torch.minimum(*next_q) - ALPHA * log_prob
    target = next["reward"] + GAMMA * (~next["terminated"]) * value
    error = torch.stack(q) - target.detach()
    squares = error.square().sum(0) * (weight if weighted else 1)
    loss, metrics = agent.critic_loss(data)
    torch.testing.assert_close(loss, squares.mean(), rtol=0, atol=1e-6)
    torch.testing.assert_close(metrics["priority"], error.abs().amax(0), rtol=0, atol=1e-6)
    # the target is data: no gradient flows through Q(s', a'), though it shapes the batch's statistics
    mine, theirs = (torch.autograd.grad(x, list(agent.critic.parameters())) for x in (loss, squares.mean()))
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_actor_loss_by_the_formulas():
    agent, data = moved(small(target_entropy=-1.5)), rows(dtype=torch.float64)
    action, log_prob = sample(agent.policy, data["observation"], data["noise"][:, 1], training=True)
    q = torch.minimum(*(q_of(agent.critic, e, data["observation"], action, False) for e in range(2)))
    expected = (ALPHA * log_prob - q).mean() + ALPHA * (-log_prob.detach() + 1.5).mean()
    loss, metrics = agent.actor_loss(data)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(metrics["entropy"], -log_prob.mean(), rtol=0, atol=1e-6)
    parameters = list(agent.policy.parameters())
    for a, b in zip(*(torch.autograd.grad(x, parameters) for x in (loss, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_losses_are_pure_and_update_moves_the_statistics():
    agent, data = small(momentum=0.9, policy_delay=2), rows()
    before = {name: value.clone() for name, value in agent.state_dict().items()}
    losses = (
        [agent.critic_loss(data)[0], agent.critic_loss(data)[0]],
        [agent.actor_loss(data)[0], agent.actor_loss(data)[0]],
    )
    assert all(torch.equal(*pair) for pair in losses)
    assert all(torch.equal(value, before[name]) for name, value in agent.state_dict().items())
    metrics = agent.update(data)
    assert "moments" not in metrics and all(value.ndim == 0 for key, value in metrics.items() if key != "priority")
    observation = torch.cat([data["observation"], data["next"]["observation"]])
    first = agent.critic.mlp.norms[0]
    torch.testing.assert_close(first.mean[:, 0, 0], (0.1 * observation.mean()).expand(2), rtol=0, atol=1e-6)
    expected = (0.9 + 0.1 * observation.var(correction=0)).expand(2)
    torch.testing.assert_close(first.var[:, 0, 0], expected, rtol=0, atol=1e-6)
    own = agent.policy.encoder.mlp.norms[0]
    torch.testing.assert_close(own.mean[0, 0], 0.1 * data["observation"].mean(), rtol=0, atol=1e-6)
    agent.update(rows())
    assert int(first.batches) == 2 and int(own.batches) == 1  # the actor's move when the actor does


def test_adam_with_its_beta_and_no_targets():
    agent = small()
    assert all(o.param_groups[0]["betas"] == (0.5, 0.999) for o in agent.optimizers().values())
    assert not any("target" in name for name, _ in agent.named_modules())
