"""What holds for every agent with one loss and one Adam.

Compiled equals eager, masked rows never count, the loss is differentiated right, entropy's sign.
"""

import pytest
import torch

from whorl import batch
from whorl.options import override
from whorl.training.build import build
from whorl.training.catalog import agent_class

SMALL = {"ppo": {"feed": {"steps": 32, "minibatches": 2}}, "a2c": {}, "reinforce": {"feed": {"steps": 20}}}
LEARNERS = [*SMALL]  # one loss, one Adam; the others have tests of their own


def parts(name, env="CartPole-v1", compile=False, **fields):
    config = override(override(agent_class(name).Config(), SMALL[name]), fields)
    return build(name, env, config, num_envs=4, seed=0, update="compiled" if compile else "eager")


@pytest.mark.parametrize(("name", "env"), [("ppo", "CartPole-v1"), ("reinforce", "Pendulum-v1")])
@pytest.mark.compiled
def test_compiled_equals_eager(name, env):
    """One graph (fullgraph=True raises on a break) with the numbers of the eager step, into the same optimizer's state."""
    # the same rollout for both: collecting would turn a last bit into another action
    eager, graph = parts(name, env), parts(name, env, compile=True)
    prepared = eager.agent.prepare(eager.collector.collect())
    graph.agent.prepare(graph.collector.collect())
    results = []
    for p in (eager, graph):
        for _ in range(3):
            p.buffer.add(prepared.clone())
            metrics = p.agent.learn(p.buffer)
        results.append(metrics)
    for (key, a), b in zip(eager.agent.named_parameters(), graph.agent.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4, msg=lambda text, key=key: f"{key}: {text}")
    for key in results[0]:
        torch.testing.assert_close(results[0][key], results[1][key], atol=1e-3, rtol=1e-2)
    steps = [
        int(p.agent.optimizer.state[q]["step"])
        for p in (eager, graph)
        for q in p.agent.optimizer.param_groups[0]["params"]
    ]
    assert len(set(steps)) == 1


@pytest.mark.parametrize("name", LEARNERS)
def test_masked_rows_never_count(name):
    """Garbage in masked rows changes neither loss, nor statistics, nor weights."""

    def learn(garbage):
        p = parts(name, normalize_observation=True)
        rollout = p.collector.collect()
        # every environment: an end, then an invented row, as the engines' next-step reset gives it
        rollout["next", "terminated"][3] = True
        mask = batch.get(rollout, "mask", torch.ones(rollout.batch_size, dtype=torch.bool)).clone()
        mask[4] = False
        rollout["mask"] = mask
        rollout["next", "reward"][4] = garbage
        rollout["next", "observation"][4] = garbage
        rollout["observation"][4] = garbage
        p.buffer.add(p.agent.prepare(rollout))
        p.agent.learn(p.buffer)
        return torch.cat([v.double().flatten() for v in p.agent.state_dict().values()])

    assert torch.equal(learn(0.0), learn(1000.0))


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("name", LEARNERS)
def test_gradient_by_finite_differences(name, env):
    p = parts(name, env)
    agent = p.agent
    rows = agent.prepare(p.collector.collect()).reshape(-1)[:40]
    agent.double()
    rows = rows.apply(lambda x: x.double() if x.is_floating_point() else x)
    loss, _ = agent.loss(rows)
    agent.zero_grad()
    loss.backward()
    generator = torch.Generator().manual_seed(0)
    for parameter in agent.parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        slope = (parameter.grad * direction).sum().item()
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * 1e-5 * direction)
                values.append(agent.loss(rows)[0].item())
                parameter.sub_(sign * 1e-5 * direction)
        assert slope == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", LEARNERS)
def test_positive_entropy_weight_raises_entropy(name):
    def entropy(weight):
        p = parts(name, "ProbeAction-v0", entropy_weight=weight, learning_rate=1e-2)
        for _ in range(60):
            p.buffer.add(p.agent.prepare(p.collector.collect()))
            metrics = p.agent.learn(p.buffer)
        return -float(metrics["entropy_loss"])

    assert entropy(5.0) > 0.6 > entropy(0.0)


@pytest.mark.parametrize("name", LEARNERS)
def test_any_optimizer_can_use_the_loss(name):
    p = parts(name)
    rows = p.agent.prepare(p.collector.collect()).reshape(-1)
    optimizer = torch.optim.SGD(p.agent.parameters(), lr=0.1)
    before = p.agent.loss(rows)[0].item()
    for _ in range(20):
        optimizer.zero_grad()
        p.agent.loss(rows)[0].backward()
        optimizer.step()
    assert p.agent.loss(rows)[0].item() < before


def test_compile_refuses_what_is_not_one_adam():
    from whorl.errors import BadInput

    p = parts("a2c", compile=True)
    p.agent.optimizer = torch.optim.RMSprop(p.agent.parameters())
    p.buffer.add(p.agent.prepare(p.collector.collect()))
    with pytest.raises(BadInput, match="compile=True needs one Adam with one parameter group, got RMSprop"):
        p.agent.optimize(p.agent.loss, p.agent.optimizer, next(iter(p.buffer.batches())))


def test_an_optimizer_without_a_fused_kernel_is_void_too():
    p = parts("a2c")
    optimizer = torch.optim.RMSprop(p.agent.parameters(), lr=0.1)
    p.buffer.add(p.agent.prepare(p.collector.collect()))
    rows = next(iter(p.buffer.batches()))
    before = [q.detach().clone() for q in p.agent.parameters()]
    rows["advantage"][0] = float("nan")
    p.agent.optimize(p.agent.loss, optimizer, rows)
    assert all(torch.equal(a, b) for a, b in zip(before, p.agent.parameters(), strict=True))


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.compiled)])
def test_a_void_step_leaves_weights_and_optimizer_as_they_were(compile):
    p = parts("a2c", compile=compile)
    optimizer = p.agent.optimizer
    p.buffer.add(p.agent.prepare(p.collector.collect()))
    rows = next(iter(p.buffer.batches()))
    p.agent.optimize(p.agent.loss, optimizer, rows)

    def everything():
        state = [optimizer.state[q][key] for q in p.agent.parameters() for key in ("step", "exp_avg", "exp_avg_sq")]
        return torch.cat([x.detach().flatten() for x in (*p.agent.parameters(), *state)])

    before = everything()
    fine = rows["advantage"].clone()
    rows["advantage"][0] = float("nan")
    p.agent.optimize(p.agent.loss, optimizer, rows)
    assert torch.equal(everything(), before)
    rows["advantage"].copy_(fine)
    p.agent.optimize(p.agent.loss, optimizer, rows)  # nothing is learned before somebody was told
    assert torch.equal(everything(), before)
    p.agent.step.void.zero_()
    p.agent.optimize(p.agent.loss, optimizer, rows)
    assert not torch.equal(everything(), before) and everything().isfinite().all()


@pytest.mark.parametrize("baseline", ["none", "mean", "value"])
def test_reinforce_returns_by_hand(baseline):
    p = parts("reinforce", baseline=baseline, normalize_advantage=False, discount=0.5)
    rollout = p.collector.collect()
    prepared = p.agent.prepare(rollout)
    mask, over = rollout["mask"], batch.ended(rollout)
    for i in range(4):
        length = int(over[:, i].nonzero()[0]) + 1  # CartPole: reward 1 until it falls
        expected = [sum(0.5**k for k in range(length - t)) for t in range(length)]
        torch.testing.assert_close(prepared["return"][:length, i], torch.tensor(expected), atol=1e-5, rtol=1e-5)
    if baseline == "none":
        torch.testing.assert_close(prepared["advantage"], prepared["return"])
    if baseline == "mean":
        assert prepared["advantage"][mask].mean().abs() < 1e-5
    assert (p.agent.critic is None) == (baseline != "value")


def test_reinforce_bootstraps_a_time_limit_only_with_a_critic():
    for baseline in ("value", "none"):
        p = parts("reinforce", "Pendulum-v1", baseline=baseline, discount=0.9, normalize_advantage=False)
        rollout = p.collector.collect()  # Pendulum never terminates: 200 steps, then the time limit
        prepared = p.agent.prepare(rollout)
        last = rollout["next", "reward"][199]
        if baseline == "value":
            with torch.no_grad():
                last = last + 0.9 * p.agent.value(rollout["next", "observation"][199])
        torch.testing.assert_close(prepared["return"][199], last, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", LEARNERS)
def test_agents_act_and_learn_under_action_masks_and_on_every_action_space(name):
    for env in (
        ("GridWorld-v0", "ProbePolicyContinuous-v0", "CliffWalking-v1") if name != "reinforce" else ("GridWorld-v0",)
    ):
        p = parts(name, env)
        rollout = p.collector.collect()
        p.buffer.add(p.agent.prepare(rollout))
        assert all(torch.as_tensor(v).isfinite() for v in p.agent.learn(p.buffer).values())
