"""The lean optimizer step is torch's own, bit for bit; gradients stay with the optimizer whose step it is."""

import copy

import pytest
import torch
from gymnasium import spaces
from torch import nn

from whorl.agents.agent import Agent
from whorl.agents.optimizers import FusedAdam, adam, is_fused_adam, load_optimizer_state, optimizer_state
from whorl.agents.step import judge
from whorl.agents.sac import SACConfig
from whorl.batch import make
from whorl.policies.random import Random


def two(weight_decay=0.0):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
    twin = copy.deepcopy(net)
    make_adam = lambda n: torch.optim.Adam(  # noqa: E731
        n.parameters(), lr=torch.tensor(0.01), betas=(0.8, 0.99), eps=1e-6, weight_decay=weight_decay, fused=True
    )
    return net, make_adam(net), twin, make_adam(twin)


def gradients(net, seed):
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(seed))
    net.zero_grad()
    net(x).square().sum().backward()
    return [p.grad for p in net.parameters()]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_lean_step_has_the_bits_of_torch(weight_decay):
    net, ours, twin, theirs = two(weight_decay)
    lean = FusedAdam(ours)
    for step in range(20):
        if step == 10:  # a schedule, in place
            ours.param_groups[0]["lr"].fill_(0.003)
            theirs.param_groups[0]["lr"].fill_(0.003)
        lean.step(gradients(net, step))
        gradients(twin, step)
        theirs.step()
        assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters()))
    for a, b in zip(net.parameters(), twin.parameters()):
        assert all(torch.equal(ours.state[a][key], theirs.state[b][key]) for key in ("step", "exp_avg", "exp_avg_sq"))


def test_a_void_step_moves_nothing_and_is_not_counted():
    net, ours, _, _ = two()
    lean = FusedAdam(ours)
    lean.step(gradients(net, 0))
    before = [p.clone() for p in net.parameters()]
    lean.step(gradients(net, 1), torch.ones(()))
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters()))
    assert all(ours.state[p]["step"] == 1 for p in net.parameters())


def test_it_knows_that_a_loaded_optimizer_has_other_state():
    net, ours, twin, theirs = two()
    lean = FusedAdam(ours)
    lean.step(gradients(net, 0))
    saved = optimizer_state(theirs)  # before its first step
    load_optimizer_state(ours, *saved)
    assert not lean.holds(ours)


def test_only_plain_fused_adam_is_stepped_leanly():
    net, ours, _, _ = two()
    assert is_fused_adam(ours)
    groups = [{"params": [p]} for p in net.parameters()]
    for other in (
        torch.optim.AdamW(net.parameters(), fused=True), torch.optim.Adam(net.parameters(), fused=True, amsgrad=True),
        torch.optim.Adam(groups, fused=True), torch.optim.Adam(net.parameters()), torch.optim.SGD(net.parameters()),
    ):  # fmt: skip
        assert not is_fused_adam(other)


def test_judge():
    one, nan = torch.ones(()), torch.tensor(float("nan"))
    assert [float(judge(v * one, loss, norm)) for v, loss, norm in
            ((0, one, one), (0, nan, one), (0, one, nan), (0, nan, nan), (2, one, one), (1, one, nan))] == [0, 1, 2, 1, 2, 1]  # fmt: skip


class Pair(Agent):
    """An actor whose loss goes through a critic of its own optimizer."""

    Config = SACConfig

    def __init__(self):
        super().__init__(Random(spaces.Discrete(2)), SACConfig())
        torch.manual_seed(1)
        self.actor, self.critic = nn.Linear(2, 2), nn.Linear(2, 1)
        self.optimizer = adam(self.actor.parameters(), 0.1)
        self.critic_optimizer = adam(self.critic.parameters(), 0.1)

    def actor_loss(self, batch):
        return self.critic(self.actor(batch["x"])).mean(), {"size": batch["x"].abs().mean()}

    def loss(self, batch):
        return self.critic(batch["x"]).square().mean(), {}


@pytest.mark.parametrize("compiled", [False, pytest.param(True, id="compiled")])
def test_only_the_parameters_of_the_optimizer_move(compiled):
    agent = Pair()
    agent.compiled = compiled
    batch = make({"x": torch.randn(4, 2, generator=torch.Generator().manual_seed(2))}, (4,))
    critic, actor = [[p.clone() for p in part.parameters()] for part in (agent.critic, agent.actor)]
    metrics = agent.optimize(agent.actor_loss, agent.optimizer, batch)
    assert set(metrics) == {"actor_loss", "actor_grad_norm", "size"}
    assert all(torch.equal(a, b) for a, b in zip(critic, agent.critic.parameters()))
    assert all(p.grad is None for p in agent.critic.parameters())
    assert not torch.equal(actor[0], agent.actor.weight)
    assert set(agent.optimize(agent.loss, agent.critic_optimizer, batch)) == {"loss", "grad_norm"}


def test_the_norm_is_that_before_clipping_and_clipping_is_torchs(monkeypatch):
    agent, free = Pair(), Pair()
    monkeypatch.setattr(Pair, "max_grad_norm", property(lambda self: 0.01 if self is agent else float("inf")))
    agent.optimizer = torch.optim.SGD(agent.actor.parameters(), lr=1.0)
    batch = make({"x": torch.full((4, 2), 3.0)}, (4,))
    before = [p.clone() for p in agent.actor.parameters()]
    norm = agent.optimize(agent.actor_loss, agent.optimizer, batch)["actor_grad_norm"]
    moved = torch.cat([(a - b).flatten() for a, b in zip(before, agent.actor.parameters())]).norm().item()
    assert norm > 1 and moved == pytest.approx(0.01, rel=1e-3)
    assert free.optimize(free.actor_loss, free.optimizer, batch)["actor_grad_norm"] == norm
