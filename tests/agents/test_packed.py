"""Packed steps: an agent's loss by rows is `agent.loss`: value, metrics and gradient; void steps, states, refusals."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from whorl import batch as batches
from whorl.agents.a2c import A2C
from whorl.agents.agent import Agent
from whorl.agents.c51 import C51
from whorl.agents.ddpg import DDPG
from whorl.agents.dqn import DQN
from whorl.agents.impala import Impala
from whorl.agents.optimizers import adam
from whorl.agents.packed import pack
from whorl.agents.parts import distribution_of
from whorl.agents.ppo import PPO, PPOConfig
from whorl.agents.qr_dqn import QRDQN
from whorl.agents.reinforce import REINFORCE
from whorl.agents.sac import SAC
from whorl.agents.step import Loss
from whorl.agents.td3 import TD3
from whorl.batch import Batch, Metrics
from whorl.errors import AgentError, Incompatible, NotFinite
from whorl.feeds import Replay
from whorl.nets.encoder import Encoder

SEEN = spaces.Box(-np.inf, np.inf, (5,), np.float32)
FEW, SEVERAL = spaces.Discrete(3), spaces.MultiDiscrete([3, 2, 4])
BOX = spaces.Box(np.array([-1, -2], np.float32), np.array([1, 3], np.float32))

BOX_LOW, BOX_HIGH = torch.tensor(BOX.low), torch.tensor(BOX.high)

CASES = {
    "ppo": (PPO, FEW, {}),
    "ppo, every option": (
        PPO, FEW,
        {"value_clip_range": 0.1, "entropy_weight": 0.02, "normalize_observation": True, "normalize_return": True, "activation": "relu",
         "hidden": (16,), "max_grad_norm": 0.0, "normalize_advantage": False},
    ),
    "ppo, several choices": (PPO, SEVERAL, {"entropy_weight": 0.1}),
    "ppo, normal": (PPO, BOX, {"entropy_weight": 0.01}),
    "ppo, std of the state": (PPO, BOX, {"std": "dependent", "entropy_weight": 0.01, "hidden": (8, 24, 8)}),
    "ppo, squashed": (PPO, BOX, {"squash": True, "entropy_weight": 0.05}),
    "ppo, squashed, std of the state": (PPO, BOX, {"squash": True, "std": "dependent", "entropy_weight": 0.05}),
    "a2c": (A2C, FEW, {"normalize_return": True}),
    "a2c, normal": (A2C, BOX, {}),
    "impala": (Impala, FEW, {"optimizer": "adam"}),
    "reinforce": (REINFORCE, FEW, {"entropy_weight": 0.01}),
    "reinforce, sum": (REINFORCE, SEVERAL, {"reduction": "sum", "clip_value": 0.01, "weight_decay": 0.1}),
    "reinforce, critic": (REINFORCE, BOX, {"baseline": "value", "mean": "tanh", "scale": True, "reduction": "sum"}),
    "dqn": (DQN, FEW, {}),
    "dqn, every option": (
        DQN, FEW, {"dueling": True, "double": False, "huber": 0.0, "activation": "tanh", "hidden": (16, 8), "max_grad_norm": 0.0}
    ),
    "dqn, two streams alone": (DQN, FEW, {"dueling": True, "hidden": (12,), "huber": 0.5}),
    "dqn, normalized": (DQN, FEW, {"feed": Replay(normalize_observation=True)}),
    "c51": (C51, FEW, {"v_min": -3.0, "v_max": 3.0, "atoms": 21}),
    "c51, every option": (C51, FEW, {"v_min": -1.0, "v_max": 4.0, "atoms": 11, "dueling": True, "double": False}),
    "qr_dqn": (QRDQN, FEW, {"quantiles": 12}),
    "qr_dqn, every option": (QRDQN, FEW, {"quantiles": 7, "dueling": True, "double": False, "huber": 0.0}),
    "qr_dqn, wide": (QRDQN, FEW, {"quantiles": 7, "huber": 0.3, "double": True, "activation": "tanh"}),
    "reinforce, fixed": (REINFORCE, BOX, {"std": "fixed", "fixed_std": 0.5, "initialization": "uniform"}),
}  # fmt: skip


def built(case: str) -> Agent:
    cls, space, fields = CASES[case]
    torch.manual_seed(0)
    agent = cls.build(SEEN, space, cls.Config(**fields))
    with torch.no_grad():  # the head's first outputs are near 0
        for p in agent.parameters():
            p.add_(0.2 * torch.randn_like(p))
    return agent


def rows(agent: Agent, n: int, masked: bool, extreme: float = 1.0, seed: int = 1) -> Batch:
    """A batch that the agent could have acted, some of it some steps ago."""
    g = torch.Generator().manual_seed(seed)
    if isinstance(agent, DQN | C51 | QRDQN):
        return replayed(g, n, masked, extreme)
    draw = lambda *shape: extreme * torch.randn(*shape, generator=g)  # noqa: E731
    policy, observation = agent.policy, draw(n, 5)
    allowed = None
    if policy.sizes is not None and masked:
        allowed = torch.rand(n, sum(policy.sizes), generator=g) < 0.6
        start = 0
        for size in policy.sizes:
            allowed[:, start] = True
            start += size
    with torch.no_grad():
        decided, _ = policy.act(observation, None, torch.zeros(n, dtype=torch.bool), policy.noise((n,), g), allowed)
    found = {
        "observation": observation, "action": decided["action"], "log_prob": decided["log_prob"] + 0.3 * torch.randn(n, generator=g),
        "advantage": draw(n), "return": draw(n), "value": draw(n),
    }  # fmt: skip
    if masked:
        found["mask"] = torch.rand(n, generator=g) < 0.7
    return batches.make(found | ({} if allowed is None else {"action_mask": allowed}), (n,))


def replayed(g: torch.Generator, n: int, masked: bool, extreme: float) -> Batch:
    """Three actions; with masks, importance weights and discounts of n steps where `masked`."""
    draw = lambda *shape: extreme * torch.randn(*shape, generator=g)  # noqa: E731
    share = lambda *shape: torch.rand(*shape, generator=g)  # noqa: E731
    after = {"observation": draw(n, 5), "reward": draw(n), "terminated": share(n) < 0.3, "truncated": share(n) < 0.3}
    found = {"observation": draw(n, 5), "action": (3 * share(n)).long()}
    if masked:
        found |= {"mask": share(n) < 0.7, "weight": share(n)}
        after |= {"discount": share(n), "action_mask": torch.cat([share(n, 2) < 0.5, torch.ones(n, 1) > 0], 1)}
    return batches.make(found | {"next": batches.make(after, (n,))}, (n,))


def gradients(agent: Agent, batch: Batch) -> tuple[Tensor, Metrics, list[Tensor]]:
    """Of `agent.loss`, by autograd."""
    return of_loss(agent.loss, agent.optimizer, batch)


def of_loss(loss: Loss, optimizer: torch.optim.Optimizer, batch: Batch) -> tuple[Tensor, Metrics, list[Tensor]]:
    value, metrics = loss(batch)
    return value.detach(), metrics, list(torch.autograd.grad(value, optimizer.param_groups[0]["params"]))


def far(found: list[Tensor], exact: list[Tensor]) -> float:
    """The largest difference, over the largest size."""
    size = max(float(x.abs().max()) for x in exact)
    return max(float((x.double() - y).abs().max()) for x, y in zip(found, exact, strict=True)) / max(size, 1e-12)


def double(batch: Batch) -> Batch:
    return batch.apply(lambda x: x.double() if x.is_floating_point() else x)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_loss_by_rows(case: str, masked: bool) -> None:
    """As near to float64 as 1e-5, or as autograd in float32 is."""
    packed, eager = built(case), built(case)
    exact = copy.deepcopy(eager).double()
    pack(packed)
    (plan,) = packed.step.plans.values()
    for seed, (n, extreme) in enumerate([(700, 1.0), (64, 1.0), (1, 1.0), (300, 30.0)]):
        batch = rows(eager, n, masked, extreme, seed)
        plan.vector.gradient[:] = 0
        value, metrics = plan.rows(batch, 1.0)
        true_value, true_metrics, true_gradient = gradients(exact, double(batch))
        near_value, near_metrics, near_gradient = gradients(eager, batch)
        assert metrics.keys() == near_metrics.keys()
        told = [(metrics[key], near_metrics[key].detach(), true_metrics[key].detach()) for key in metrics]
        for found, near, true in [(torch.tensor(value), near_value, true_value), *told]:
            bound = max(1e-5 * max(1, float(true.abs().max())), 3 * float((near - true).abs().max()))
            assert found.shape == true.shape and (found - true).abs().max() <= bound
        assert far(plan.gradients, true_gradient) <= max(1e-5, 3 * far(near_gradient, true_gradient))


OF_PAIRS = {
    "sac": (SAC, {}),
    "sac, every option": (
        SAC, {"hidden": (24, 16), "activation": "tanh", "learn_temperature": False, "feed": Replay(normalize_observation=True)}
    ),
    "td3": (TD3, {}),
    "td3, every option": (
        TD3, {"hidden": (24, 16), "activation": "tanh", "target_noise": 0.7, "feed": Replay(normalize_observation=True)}
    ),
    "ddpg": (DDPG, {}),
    "ddpg, every option": (DDPG, {"hidden": (24,), "activation": "tanh", "feed": Replay(normalize_observation=True)}),
}  # fmt: skip


def with_actions(agent: Agent, n: int, masked: bool = False, extreme: float = 1.0, seed: int = 1) -> Batch:
    """Rows of replay with actions in BOX, and the normal numbers that the agent's `update` would draw."""
    g = torch.Generator().manual_seed(seed)
    batch = replayed(g, n, masked, extreme)
    batch["action"] = BOX_LOW + (BOX_HIGH - BOX_LOW) * torch.rand(n, 2, generator=g)
    batch["noise"] = torch.randn(n, 2, 2, generator=g) if isinstance(agent, SAC) else torch.randn(n, 2, generator=g)
    return batch


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("case", OF_PAIRS)
def test_losses_of_pairs_by_rows(case: str, masked: bool) -> None:
    """The two losses of each, on bounds that are not -1 and 1."""
    torch.manual_seed(3)
    cls, fields = OF_PAIRS[case]
    eager = cls.build(SEEN, BOX, cls.Config(**{"hidden": (32, 32), **fields}))
    with torch.no_grad():  # targets are others than what they follow
        for name, p in eager.named_parameters():
            p.add_(0.1 * torch.randn_like(p) * name.startswith("target"))
    exact, packed = copy.deepcopy(eager).double(), copy.deepcopy(eager)
    pack(packed)
    for seed, (n, extreme) in enumerate([(300, 1.0), (1, 1.0), (40, 10.0)]):
        batch = with_actions(eager, n, masked, extreme, seed)
        names = (("critic_loss", "critic_optimizer"), ("actor_loss", "optimizer"))
        for (name, optimizer), plan in zip(names, packed.step.plans.values(), strict=True):
            plan.vector.gradient[:] = 0
            value, metrics = plan.rows(batch, 1.0)
            near, true = (
                of_loss(getattr(a, name), getattr(a, optimizer), b) for a, b in ((eager, batch), (exact, double(batch)))
            )
            assert metrics.keys() == near[1].keys()
            told = [(metrics[key], near[1][key].detach(), true[1][key].detach()) for key in metrics]
            for found, close, right in [(torch.tensor(value), near[0], true[0]), *told]:
                bound = max(1e-5 * max(1, float(right.abs().max())), 3 * float((close - right).abs().max()))
                assert found.shape == right.shape and (found - right).abs().max() <= bound
            assert far(plan.gradients, true[2]) <= max(1e-5, 3 * far(near[2], true[2]))


@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("case", ["ppo, every option", "a2c", "reinforce, sum"])
def test_steps_are_adams(case: str, pieces: int) -> None:
    """Ten of them: clip, weight decay, micro-batches; what a checkpoint holds goes on in either body."""
    eager, packed = built(case), built(case)
    pack(packed)
    for i in range(10):
        batch = rows(eager, 90, masked=True, seed=i)
        cut = [batch] if pieces == 1 else list(batch.split(30))
        told, told_b = (a.optimize(a.loss, a.optimizer, cut) for a in (eager, packed))
        assert all(told_b[key].item() == pytest.approx(told[key].item(), rel=1e-3, abs=1e-4) for key in told | told_b)
    arrays, numbers = packed.state()
    packed.load_state(*eager.state())
    eager.load_state(arrays, numbers)
    for agent in (eager, packed):
        agent.update(batch)
    assert far(list(packed.parameters()), [p.double() for p in eager.parameters()]) < 1e-3
    steps = {float(packed.optimizer.state[p]["step"]) for p in packed.optimizer.param_groups[0]["params"]}
    assert steps == {11.0}


@pytest.mark.parametrize("case", ["sac", "td3, every option", "ddpg"])
def test_updates_of_pairs(case: str) -> None:
    """Delays and targets are eager's, of sequences, too; what a checkpoint holds goes on in either body."""
    torch.manual_seed(3)
    cls, fields = OF_PAIRS[case]
    eager = cls.build(SEEN, BOX, cls.Config(**{"hidden": (16,), **fields}))
    packed = copy.deepcopy(eager)
    pack(packed)
    for i in range(7):
        batch = with_actions(eager, 40, masked=True, seed=i).reshape(4, 10)
        told, told_b = (a.update(batch.clone()) for a in (eager, packed))
        assert told.keys() == told_b.keys()
        assert all(torch.allclose(told[key], told_b[key], rtol=1e-3, atol=1e-4) for key in told)
        if i == 3:
            arrays, numbers = packed.state()
            packed.load_state(*eager.state())
            eager.load_state(arrays, numbers)
    assert packed.updates == 7
    for key, value in eager.state_dict().items():
        assert torch.allclose(packed.state_dict()[key], value, atol=1e-4), key


@pytest.mark.parametrize("case", ["sac", "td3", "ddpg"])
@pytest.mark.parametrize("where", ["reward", "observation"])
def test_void_steps_of_pairs(case: str, where: str) -> None:
    """No network has moved, and no target, whichever loss it was."""
    torch.manual_seed(3)
    cls, _ = OF_PAIRS[case]
    eager = cls.build(SEEN, BOX, cls.Config(hidden=(16,)))
    packed = copy.deepcopy(eager)
    pack(packed)
    for agent in (eager, packed):
        before = [p.clone() for p in agent.parameters()]
        for bad in (np.nan, np.inf):
            batch = with_actions(agent, 40)
            batch["next"][where].view(40, -1)[3], batch["next"]["terminated"][3] = bad, False
            agent.update(batch)
        assert all(torch.equal(a, b) for a, b in zip(before, agent.parameters(), strict=True))
    assert packed.step.void == eager.step.void == 1


@pytest.mark.parametrize("where", ["observation", "advantage", "return"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_void_steps(where: str, bad: float) -> None:
    """What is not finite is told as in eager, and nothing has moved, whichever layer it would have passed."""
    told = []
    for packed in (False, True):
        agent = built("ppo")
        if packed:
            pack(agent)
        before, batch = [p.clone() for p in agent.parameters()], rows(agent, 40, masked=False)
        batch[where].view(40, -1)[3] = bad
        agent.update(batch)
        agent.update(rows(agent, 40, masked=False))  # void, too
        assert all(torch.equal(a, b) for a, b in zip(before, agent.parameters(), strict=True))
        told.append(int(agent.step.void))
    assert told == [1, 1]


def test_weights_that_are_not_finite() -> None:
    for packed in (False, True):
        agent = built("a2c")
        if packed:
            pack(agent)
        with torch.no_grad():
            agent.policy.encoder.mlp[0].weight[0, 0] = np.nan
        agent.update(rows(built("a2c"), 40, masked=False))
        assert agent.step.void == 1


@pytest.mark.parametrize("case", ["ppo", "dqn", "reinforce, sum"])
def test_a_batch_of_no_rows_is_void(case: str) -> None:
    """A mean of nothing is NaN in either body."""
    for packed in (False, True):
        agent = built(case)
        if packed:
            pack(agent)
        agent.update(rows(agent, 40, masked=False)[:0])
        assert agent.step.void == 1


@pytest.mark.parametrize("case", ["ppo", "a2c, normal", "qr_dqn, wide"])
def test_units_that_are_saturated_have_no_gradient(case: str) -> None:
    """What is left of 1 - tanh^2 by rounding would be multiplied with observations of 1e20."""
    eager, packed = built(case), built(case)
    pack(packed)
    (plan,) = packed.step.plans.values()
    batch = rows(eager, 40, masked=False)
    batch["observation"] *= 1e20
    plan.rows(batch, 1.0)
    _, _, near = gradients(eager, batch)
    assert far(plan.gradients, near) < 1e-5


@pytest.mark.parametrize("case", ["td3", "ddpg"])
def test_an_actor_that_is_nearly_saturated(case: str) -> None:
    """Its gradient is what rounding leaves of 1 - tanh^2, and is eager's all the same."""
    torch.manual_seed(3)
    cls, _ = OF_PAIRS[case]
    eager = cls.build(SEEN, BOX, cls.Config(hidden=(32, 32)))
    with torch.no_grad():
        eager.policy.head.bias.fill_(8.0)
    packed = copy.deepcopy(eager)
    pack(packed)
    plan, batch = packed.step.plans[id(packed.optimizer)], with_actions(eager, 64)
    plan.rows(batch, 1.0)
    _, _, near = of_loss(eager.actor_loss, eager.optimizer, batch)
    assert far(plan.gradients, near) < 1e-3


def test_a_clipped_row_whose_action_is_far_has_no_gradient() -> None:
    """Its z^2 is infinite, and 0 times that would be NaN."""
    for packed in (False, True):
        agent = built("ppo, normal")
        if packed:
            pack(agent)
        batch = rows(agent, 40, masked=False)
        batch["action"][:] = 1e25
        batch["advantage"][:] = -1.0
        batch["log_prob"][:] = 0.0
        batch["advantage"][::2] = 1.0
        agent.update(batch)
        assert agent.step.void == 0


class OwnEncoder(Encoder):
    """Its forward may be another."""


def normed(layer: torch.nn.Module) -> None:
    """A weight that is no parameter any more, but made of two."""
    weight = layer.weight.detach()
    del layer.weight
    layer.weight = weight


class OwnLoss(PPO):
    def loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        value, metrics = super().loss(batch)
        return 2 * value, metrics


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.policy.encoder.mlp.append(torch.nn.Dropout()), "a Dropout is more than a linear layer"),
        (lambda a: setattr(a, "optimizer", torch.optim.SGD(a.parameters(), 0.1)), "no plain Adam but SGD"),
        (lambda a: setattr(a, "packed", ""), "PPO has no loss by rows"),
        (lambda a: setattr(a, "__class__", OwnLoss), "OwnLoss changes the loss of PPO"),
        (lambda a: a.critic.requires_grad_(False), "do not learn"),
        (lambda a: a.double(), "no float32 on the CPU"),
        (lambda a: setattr(a.critic, "__class__", torch.nn.Module), "its critic is a Module"),
        (lambda a: setattr(a.critic.encoder, "__class__", OwnEncoder), "OwnEncoder is not one of whorl's MLPs"),
        (lambda a: setattr(a.policy.encoder.mlp, "__class__", torch.nn.Sequential), "not one float vector"),
        (
            lambda a: a.policy.encoder.mlp.__setitem__(1, torch.nn.ReLU()),
            "more than linear layers with biases and tanh",
        ),
        (lambda a: a.policy.encoder.mlp.insert(1, torch.nn.Linear(64, 64)), "more than linear layers with biases"),
        (lambda a: setattr(a.policy, "head", torch.nn.Sequential(a.policy.head, torch.nn.Tanh())), "more than linear"),
        (lambda a: setattr(a.policy.head, "bias", None), "more than linear layers with biases and tanh between them"),
        (lambda a: normed(a.policy.head), "more than linear layers with biases"),
        (
            lambda a: setattr(a, "optimizer", adam(a.policy.parameters(), 0.1)),
            "does not step on every parameter of its loss",
        ),
    ],
)
def test_what_is_not_packed(change: object, words: str) -> None:
    agent = built("ppo")
    change(agent)
    before = [p.data_ptr() for p in agent.parameters()]
    with pytest.raises(Incompatible, match=words):
        pack(agent)
    assert not agent.step.plans and before == [p.data_ptr() for p in agent.parameters()]


def own_loss(agent: Agent) -> Loss:
    def tripled(batch: Batch) -> tuple[Tensor, Metrics]:
        value, metrics = agent.loss(batch)
        return 3 * value, metrics

    return tripled


def test_another_loss_on_a_packed_optimizer_is_eager() -> None:
    """An `update` of the user's may take one, before and after the agent's own; the optimizer is one and the same."""
    eager, packed = built("ppo"), built("ppo")
    pack(packed)
    batch = rows(eager, 40, masked=False)
    for agent in (eager, packed):
        agent.update(batch)
        loss = own_loss(agent)
        if agent is packed:
            with pytest.warns(UserWarning, match=r"PPO\.tripled is not written by rows, so its steps are eager"):
                agent.optimize(loss, agent.optimizer, batch)
        else:
            agent.optimize(loss, agent.optimizer, batch)
        agent.update(batch)
    assert far(list(packed.parameters()), [p.detach().double() for p in eager.parameters()]) < 1e-4


@pytest.mark.parametrize("names", ["nowhere:ppo", "packed_policy:nothing", 7])
def test_a_twin_that_is_not_there(names: object) -> None:
    agent = built("ppo")
    agent.packed = names
    with pytest.raises(AgentError, match=rf"PPO\.packed names a file of whorl\.agents .* got {names!r}"):
        pack(agent)


def test_mixed_actions_are_not_packed() -> None:
    with pytest.raises(Incompatible, match="its policy is a Mixed"):
        pack(PPO.build(SEEN, spaces.Tuple([SEVERAL, BOX]), PPOConfig()))


def test_images_and_dicts_are_not_packed() -> None:
    for space in (spaces.Dict({"a": SEEN}), spaces.Box(0, 255, (64, 64, 3), np.uint8)):
        with pytest.raises(Incompatible, match="not one float vector"):
            pack(PPO.build(space, FEW, PPOConfig(shared=False)))


@pytest.mark.parametrize("case", ["ppo, every option", "a2c", "reinforce, critic"])
def test_values_are_the_critics(case: str) -> None:
    agent = built(case)
    torch.manual_seed(1)
    observation = 3 * torch.randn(300, 2, 5)  # more rows than go through a network together
    pack(agent)
    twin = copy.deepcopy(agent)
    assert agent.step.value is not None and twin.step.value is None  # that would be of the agent's weights
    for _ in range(2):
        with torch.no_grad():
            wanted = agent.value(observation)
        torch.testing.assert_close(agent.step.value(observation), wanted, rtol=1e-6, atol=3e-6)
        torch.testing.assert_close(agent.step.value(observation[:, 1]), wanted[:, 1], rtol=1e-6, atol=3e-6)
        with torch.no_grad():
            agent.optimizer.param_groups[0]["params"][-1].add_(1.0)  # the bias of the critic's output


def test_a_plan_knows_its_memory() -> None:
    """A copy has memory of its own, where the first one's actors do not look: it is packed anew, or says so."""
    agent = built("ppo")
    pack(agent)
    twin = copy.deepcopy(agent)
    assert not twin.step.plans and twin.policy.head.weight.data_ptr() != agent.policy.head.weight.data_ptr()
    agent.policy.head.weight.data = agent.policy.head.weight.data.clone()
    with pytest.raises(AgentError, match="pack the agent again"):
        agent.update(rows(agent, 40, masked=False))
    pack(agent)
    agent.update(rows(agent, 40, masked=False))


def test_a_plan_sees_what_was_frozen_and_an_optimizer_that_was_loaded() -> None:
    agent = built("ppo")
    pack(agent)
    batch = rows(agent, 40, masked=False)
    agent.update(batch)
    agent.optimizer.load_state_dict(copy.deepcopy(agent.optimizer.state_dict()))  # with groups of its own
    agent.optimizer.param_groups[0]["lr"] = torch.tensor(0.0)
    before = [p.clone() for p in agent.parameters()]
    agent.update(batch)
    assert all(torch.equal(a, b) for a, b in zip(before, agent.parameters(), strict=True))
    agent.critic.requires_grad_(False)
    with pytest.raises(AgentError, match="or frozen"):
        agent.update(batch)


def test_a_loss_that_was_changed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody tries an idea in agents/ppo.py and does not know of its twin."""
    import whorl.agents.ppo as module

    surrogate = module.clipped_surrogate
    monkeypatch.setattr(module, "clipped_surrogate", lambda *a: -surrogate(*a))
    agent = built("ppo")
    pack(agent)
    with pytest.raises(
        AgentError, match="the gradient of loss by rows is not that of the agent's own loss .*differ by"
    ):
        for seed in range(2):
            agent.update(rows(agent, 40, masked=False, seed=seed))


def test_a_loss_that_was_changed_where_clips_begin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first batch the policy is still the one that acted, and no clip shows."""
    import whorl.agents.ppo as module

    surrogate = module.clipped_surrogate
    monkeypatch.setattr(module, "clipped_surrogate", lambda new, old, a, clip: surrogate(new, old, a, 3 * clip))
    agent = built("ppo")
    pack(agent)
    first, later = rows(agent, 40, masked=False), rows(agent, 40, masked=False)
    with torch.no_grad():
        first["log_prob"] = distribution_of(agent.policy, first).log_prob(first["action"])
    agent.update(first)
    agent.update(later)  # the first that differs: rounding may do that
    with pytest.raises(AgentError, match="the gradient of loss by rows is not that of the agent's own loss"):
        agent.update(later)


def test_actors_see_packed_steps() -> None:
    agent = built("ppo")
    pack(agent)
    act = agent.policy.actor(4)
    x, first = np.ones((4, 5), np.float32), np.zeros(4, bool)
    before = act(x, None, first, None)[0]["log_prob"].copy()
    agent.update(rows(agent, 40, masked=False))
    assert (act(x, None, first, None)[0]["log_prob"] != before).all()


def test_not_finite_is_raised() -> None:
    from whorl.training.build import build

    parts = build("ppo", "CartPole-v1", replace(PPOConfig(), learning_rate=1e20), num_envs=2)
    pack(parts.agent)
    with pytest.raises(NotFinite, match="became NaN or infinite after"):
        parts.train(5_000)
