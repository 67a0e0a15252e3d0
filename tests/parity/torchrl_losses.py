"""Run by the peers' interpreter: TorchRL's GAE and PPO loss on a whorl batch give what whorl's own give.

benchmarks/peers/.venv/bin/python tests/parity/torchrl_losses.py
"""

import torch
from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential, TensorDictModule
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from whorl.agents.ppo import PPO, PPOConfig
from whorl.batch import from_torchrl, get, names, to_torchrl
from whorl.collectors.serial import SerialCollector
from whorl.envs.make import make_env


class Logits(torch.nn.Module):
    def __init__(self, policy):
        super().__init__()
        self.policy = policy

    def forward(self, observation):
        return self.policy.head(self.policy.encoder(observation))


def losses(agent):
    """TorchRL's clipped PPO loss and GAE around our networks."""
    logits = TensorDictModule(Logits(agent.policy), in_keys=["observation"], out_keys=["logits"])
    sample = ProbabilisticTensorDictModule(
        in_keys=["logits"],
        out_keys=["action"],
        distribution_class=torch.distributions.Categorical,
        return_log_prob=True,
    )
    actor = ProbabilisticTensorDictSequential(logits, sample)
    column = torch.nn.Sequential(agent.critic, Column())
    critic = TensorDictModule(column, in_keys=["observation"], out_keys=["state_value"])
    loss = ClipPPOLoss(
        actor, critic, clip_epsilon=0.2, entropy_bonus=True, entropy_coeff=0.01, critic_coeff=0.5,
        loss_critic_type="l2", normalize_advantage=False,
    )  # fmt: skip
    return loss, GAE(gamma=0.99, lmbda=0.95, value_network=critic)


class Column(torch.nn.Module):
    def forward(self, x):
        return x.unsqueeze(-1)


def main():
    torch.manual_seed(0)
    env = make_env("CartPole-v1", 4, seed=0)
    config = PPOConfig(normalize_advantage=False, entropy_weight=0.01)
    agent = PPO.build(env.observation_space, env.action_space, config)
    collector = SerialCollector(env, agent.policy, steps=256, seed=0)
    raw = collector.collect()
    theirs = to_torchrl(raw)
    assert all(torch.equal(get(from_torchrl(theirs), name), get(raw, name)) for name in names(raw))

    ours = agent.prepare(raw)
    loss, gae = losses(agent)
    with torch.no_grad():
        gae(theirs)
    back = from_torchrl(theirs)
    torch.testing.assert_close(back["advantage"], ours["advantage"], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(back["return"], ours["return"], atol=1e-4, rtol=1e-5)

    with torch.no_grad():  # move the policy, so that ratios are not all 1 and some are clipped
        agent.policy.head.weight.add_(torch.randn_like(agent.policy.head.weight) * 0.3)
    batch = raw.clone().update(ours)
    result = loss(to_torchrl(batch))
    _, metrics = agent.loss(batch.reshape(-1))
    assert 0.05 < metrics["clip_fraction"] < 0.95
    torch.testing.assert_close(result["loss_objective"], metrics["policy_gradient_loss"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        result["loss_critic"], 0.5 * 2 * metrics["value_loss"], atol=1e-3, rtol=1e-5
    )  # theirs lacks the 1/2
    torch.testing.assert_close(result["loss_entropy"], 0.01 * metrics["entropy_loss"], atol=1e-6, rtol=1e-5)
    (result["loss_objective"] + result["loss_critic"] + result["loss_entropy"]).backward()
    assert agent.policy.head.weight.grad.abs().sum() > 0
    print("TorchRL's GAE and PPO loss agree with whorl's on a converted batch")


if __name__ == "__main__":
    main()
