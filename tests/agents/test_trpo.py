"""TRPO: the optimizer against dense algebra, the KL that it promises, ratios that start at 1, void steps, exact resume."""

import copy
import math

import pytest
import torch

import whorl
from tests.training.fingerprint import fingerprint
from whorl import batch
from whorl.agents.parts import distribution_of
from whorl.agents.trpo import TRPO, TRPOConfig, TrustRegion
from whorl.errors import BadInput, NotFinite
from whorl.feeds import Rollouts
from whorl.functional import masked_mean
from whorl.functional.trust_region import fisher_vector_product, flat
from whorl.policies.distributions import Categorical
from whorl.training.build import build
from whorl.training.config import override

SMALL = TRPOConfig(feed=Rollouts(steps=64, epochs=2, minibatches=4))


def parts(env="CartPole-v1", **fields):
    return build("trpo", env, override(SMALL, fields), num_envs=4, seed=0)


def snapshot(module):
    return {key: value.detach().clone() for key, value in module.named_parameters()}


# -- the optimizer ---------------------------------------------------------------------------------------------------

FISHER = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
SLOPE = torch.tensor([1.0, -3.0], dtype=torch.float64)


def quadratic(kl_limit=0.01, damping=0.1, bend=0.0, start=(0.3, -0.2)):
    """Objective g't - bend |t|^2 and KL t'Ft / 2 of the distance t = theta - start, whose Fisher matrix is F everywhere."""
    start = torch.tensor(start, dtype=torch.float64)
    theta = torch.nn.Parameter(start.clone())
    optimizer = TrustRegion([theta], kl_limit, damping, conjugate_gradient_steps=10)
    away = lambda: theta - start  # noqa: E731
    optimizer.aim(
        objective=lambda: SLOPE @ away() - bend * away().square().sum(), kl=lambda: 0.5 * away() @ FISHER @ away()
    )
    theta.grad = -SLOPE.clone()  # of the loss, minus the objective
    return theta, optimizer, start


@pytest.mark.parametrize("damping", [0.1, 10.0])
def test_step_in_closed_form(damping):
    """x = (F + damping I)^-1 g, step = sqrt(2 kl_limit / x'(F + damping I)x) x; damping makes it shorter than the limit allows."""
    theta, optimizer, start = quadratic(damping=damping)
    optimizer.step()
    damped = FISHER + damping * torch.eye(2, dtype=torch.float64)
    x = torch.linalg.solve(damped, SLOPE)
    step = (0.02 / (x @ damped @ x)).sqrt() * x
    torch.testing.assert_close(theta.detach(), start + step, atol=1e-8, rtol=1e-6)
    report = {key: value.item() for key, value in optimizer.report.items()}
    assert report["kl"] == pytest.approx((0.5 * step @ FISHER @ step).item()) and report["kl"] < 0.01
    assert report["surrogate_improvement"] == pytest.approx((SLOPE @ step).item())
    assert report["line_search_shrinks"] == 0


def test_line_search_until_the_objective_rises():
    """Objective g't - bend |t|^2 rises along the step s t0 for s < g't0 / (bend |t0|^2) only: here .55, so .8^3 = .512 is the first."""
    theta, optimizer, start = quadratic()
    optimizer.step()
    full = theta.detach() - start
    bend = (SLOPE @ full / full.square().sum() / 0.55).item()
    theta, optimizer, start = quadratic(bend=bend)
    optimizer.step()
    torch.testing.assert_close(theta.detach() - start, 0.8**3 * full, atol=1e-8, rtol=1e-6)
    assert optimizer.report["line_search_shrinks"] == 3


def test_a_step_that_never_improves_moves_nothing():
    theta, optimizer, start = quadratic(bend=1e6)
    optimizer.step()
    assert torch.equal(theta.detach(), start)
    assert optimizer.report["line_search_shrinks"] == 10
    assert optimizer.report["kl"] == optimizer.report["surrogate_improvement"] == 0


def test_no_gradient_no_step():
    theta, optimizer, start = quadratic()
    for gradient in (None, torch.zeros(2, dtype=torch.float64)):
        theta.grad = gradient
        optimizer.step()
        assert torch.equal(theta.detach(), start)


def test_a_fisher_matrix_that_is_not_finite_moves_nothing():
    theta, optimizer, start = quadratic()
    optimizer.aim(lambda: SLOPE @ theta, lambda: (theta - start).square().sum() * torch.nan)
    with pytest.raises(NotFinite, match="the natural gradient became NaN or infinite; the weights are those before it"):
        optimizer.step()
    assert torch.equal(theta.detach(), start)


# -- the agent -------------------------------------------------------------------------------------------------------


def test_losses_by_hand():
    # pi(0) = e^log3 / (e^log3 + 1) = 3/4; the old one was 1/2: ratio 3/2
    p = parts().agent
    with torch.no_grad():
        p.policy.head.weight.zero_()
        p.policy.head.bias.copy_(torch.tensor([math.log(3), 0.0]))
        p.critic.head.weight.zero_()
        p.critic.head.bias.fill_(1.0)
    rows = {
        "observation": torch.zeros(1, 4),
        "action": torch.tensor([0]),
        "log_prob": torch.tensor([math.log(0.5)]),
        "advantage": torch.tensor([2.0]),
        "return": torch.tensor([4.0]),
    }
    loss, metrics = p.loss(batch.make(rows, (1,)))
    assert metrics["policy_gradient_loss"].item() == pytest.approx(-1.5 * 2.0)
    assert metrics["value_loss"].item() == pytest.approx(0.5 * 9.0)
    assert loss.item() == pytest.approx(-3.0 + 4.5)


OPTIONS = [{}, {"normalize_observation": True}, {"std": "dependent"}, {"squash": True}, {"normalize_return": True}]


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("fields", OPTIONS)
def test_every_step_is_what_it_reports(env, fields):
    """Ratios start at 1 (also when the statistics have moved); after the step the KL is within the limit, the surrogate higher."""
    p = parts(env, **fields)
    for _ in range(3):
        rows = p.agent.prepare(p.collector.collect())
        flat = rows.reshape(-1)
        old = copy.deepcopy(p.agent.policy)
        log_prob = p.agent.distribution(flat).log_prob(flat["action"])
        torch.testing.assert_close(log_prob, flat["log_prob"], atol=1e-5, rtol=1e-5)
        before = p.agent.surrogate(flat).detach()
        metrics = p.agent.improve(flat)
        with torch.no_grad():
            then = old.distribution(old.encode(flat))
            kl = masked_mean(then.kl(p.agent.distribution(flat)))
        assert 0 < kl <= p.agent.config.kl_limit
        torch.testing.assert_close(metrics["kl"], kl, atol=1e-6, rtol=1e-3)
        gain = p.agent.surrogate(flat).detach() - before
        torch.testing.assert_close(metrics["surrogate_improvement"], gain, atol=1e-6, rtol=1e-3)
        assert gain > 0
        p.agent.policy.load_state_dict(old.state_dict())  # learn takes the same step again
        p.buffer.add(rows)
        learned = p.agent.learn(p.buffer)
        torch.testing.assert_close(learned["kl"], kl, atol=1e-5, rtol=1e-2)
        assert {"value_loss", "explained_variance", "line_search_shrinks", "entropy_loss", "grad_norm"} <= set(learned)
    for name, part in (("observation", p.agent.policy.normalizer), ("return", p.agent.return_normalizer)):
        if fields.get(f"normalize_{name}"):
            assert part.count == 3 * 64 * 4


def test_the_kl_limit_sets_the_step():
    """Before the line search, step'(F + damping I) step / 2 is the limit, whatever direction was found, and step'F step / 2 is the KL
    but for what a quadratic leaves out, which goes to 0 with the limit."""
    for limit in (1e-8, 1e-6, 1e-4, 1e-2):
        p = parts(kl_limit=limit, damping=1e-3)
        rows = p.agent.prepare(p.collector.collect()).reshape(-1)
        agent = p.agent.double()
        rows = rows.apply(lambda x: x.double() if x.is_floating_point() else x)
        old = copy.deepcopy(agent.policy)
        theta = list(old.parameters())
        then = distribution_of(old, rows)
        fixed = Categorical(then.logits.detach(), then.sizes, then.scalar)
        fisher = fisher_vector_product(fixed.kl(then).mean(), theta)
        metrics = agent.improve(rows)
        shrunk = 0.8 ** metrics["line_search_shrinks"].item()
        step = (flat(agent.policy.parameters()) - flat(theta)).detach()
        quadratic = 0.5 * (step @ fisher(step)).item()
        assert (quadratic + 0.5 * 1e-3 * (step @ step).item()) / shrunk**2 == pytest.approx(limit, rel=1e-6)
        assert 0 < metrics["kl"] <= limit
        if limit <= 1e-6:
            assert metrics["kl"].item() == pytest.approx(quadratic, rel=0.02)


def test_the_policy_sees_the_whole_rollout_and_the_critic_its_minibatches():
    policies, critics = [], []
    for minibatches in (1, 4):
        p = parts(feed=Rollouts(steps=64, epochs=2, minibatches=minibatches))
        p.buffer.add(p.agent.prepare(p.collector.collect()))
        p.agent.learn(p.buffer)
        policies.append(torch.cat([w.flatten() for w in p.agent.policy.parameters()]))
        critics.append(torch.cat([w.flatten() for w in p.agent.critic.parameters()]))
        adam = p.agent.critic_optimizer
        assert {int(adam.state[w]["step"]) for w in p.agent.critic.parameters()} == {2 * minibatches}
    torch.testing.assert_close(*policies, atol=2e-4, rtol=1e-3)
    assert (critics[0] - critics[1]).abs().max() > 1e-3


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_gradients_by_finite_differences(env):
    p = parts(env)
    rows = p.agent.prepare(p.collector.collect()).reshape(-1)[:40]
    agent = p.agent.double()
    rows = rows.apply(lambda x: x.double() if x.is_floating_point() else x)
    agent.loss(rows)[0].backward()
    generator = torch.Generator().manual_seed(0)
    for parameter in agent.parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.add_(sign * 1e-5 * direction)
                values.append(agent.loss(rows)[0].item())
                parameter.sub_(sign * 1e-5 * direction)
        slope = (parameter.grad * direction).sum().item()
        assert slope == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-6)


def test_masked_rows_never_count():
    def learn(garbage):
        p = parts(normalize_observation=True)
        rollout = p.collector.collect()
        rollout["next", "terminated"][3] = True
        rollout["mask"] = torch.ones(rollout.batch_size, dtype=torch.bool)
        rollout["mask"][4] = False
        rollout["next", "reward"][4] = rollout["next", "observation"][4] = rollout["observation"][4] = garbage
        p.buffer.add(p.agent.prepare(rollout))
        p.agent.learn(p.buffer)
        return torch.cat([v.double().flatten() for v in p.agent.state_dict().values()])

    assert torch.equal(learn(0.0), learn(1000.0))


def test_a_masked_row_is_as_if_it_were_not_there():
    """In the surrogate, the KL and the critic's loss: a step on rows with a mask is one on the rows that count."""
    steps = []
    for drop in (False, True):
        p = parts()
        rows = p.agent.prepare(p.collector.collect()).reshape(-1)
        counts = torch.arange(len(rows)) % 3 != 0
        rows["advantage"][~counts] = rows["return"][~counts] = 50.0
        rows = rows[counts] if drop else rows.update({"mask": counts})
        metrics = p.agent.improve(rows)
        weights = torch.cat([w.detach().flatten() for w in p.agent.policy.parameters()])
        steps.append((p.agent.loss(rows)[0].detach(), metrics["kl"], metrics["entropy_loss"], weights))
    for masked, dropped in zip(*steps, strict=True):
        torch.testing.assert_close(masked, dropped, atol=1e-4, rtol=1e-3)


def test_prepare_bootstraps_at_a_time_limit_and_cuts_the_trace():
    p = parts(discount=0.9, trace_decay=0.5, normalize_advantage=False)
    rollout = p.collector.collect()
    end = torch.zeros(64, 4, dtype=torch.bool)
    rollout["next", "terminated"], rollout["next", "truncated"] = end.clone(), end.clone()
    rollout["next", "terminated"][3, 0] = rollout["next", "truncated"][3, 1] = True
    prepared = p.agent.prepare(rollout)
    with torch.no_grad():
        value, successor = p.agent.value(rollout["observation"]), p.agent.value(rollout["next", "observation"])
    came = prepared["advantage"]
    delta = 1.0 + 0.9 * successor - value  # CartPole: reward 1
    assert came[3, 0].item() == pytest.approx(1.0 - value[3, 0].item(), abs=1e-5)
    assert came[3, 1].item() == pytest.approx(delta[3, 1].item(), abs=1e-5)
    assert came[3, 2].item() == pytest.approx(delta[3, 2].item() + 0.45 * came[4, 2].item(), abs=1e-5)
    assert prepared["return"][3, 1].item() == pytest.approx(1.0 + 0.9 * successor[3, 1].item(), abs=1e-5)


@pytest.mark.parametrize("what", ["the loss", "the gradient"])
def test_nan_leaves_the_weights_bit_equal(what, monkeypatch):
    p = parts()
    p.buffer.add(p.agent.prepare(p.collector.collect()))
    p.agent.learn(p.buffer)
    rollout = p.agent.prepare(p.collector.collect())
    if what == "the loss":
        rollout["advantage"][5, 2] = float("nan")
    else:  # sqrt has an infinite slope at 0: the loss is finite, its gradient is not
        loss, bias = TRPO.policy_loss, p.agent.policy.head.bias

        def policy_loss(self, batch):
            value, metrics = loss(self, batch)
            return value + (bias - bias.detach()).sqrt().sum(), metrics

        monkeypatch.setattr(TRPO, "policy_loss", policy_loss)
    before = snapshot(p.agent)
    p.buffer.add(rollout)
    with pytest.raises(
        NotFinite, match=f"{what} became NaN or infinite after 512 environment steps; the step was void"
    ):
        p.agent.learn(p.buffer)
    after = snapshot(p.agent)
    assert all(torch.equal(before[key], after[key]) for key in before)  # the critic's too: nothing is learned after it


@pytest.mark.parametrize("env", ["GridWorld-v0", "ProbePolicyContinuous-v0", "CliffWalking-v1", "ProbeConstant-v0"])
def test_action_masks_and_every_action_space(env):
    p = parts(env)
    for _ in range(2):
        p.buffer.add(p.agent.prepare(p.collector.collect()))
        assert all(value.isfinite() for value in p.agent.learn(p.buffer).values())


def train(runs, env="CartPole-v1", total_steps=2000, **options):
    common = {"num_envs": 4, "eval_every": 0, "checkpoint_every": 500, "log_every": 1, "eval_episodes": 10}
    return whorl.train("trpo", env, config=SMALL, total_steps=total_steps, runs=runs, quiet=True, **(common | options))


@pytest.mark.parametrize(
    "fields", [{}, {"env": "Pendulum-v1", "normalize_observation": True, "normalize_return": True}]
)
def test_resume_is_exact_and_evaluation_changes_nothing(fields, tmp_path):
    whole = train(tmp_path / "a", **fields)
    half = train(tmp_path / "b", **fields, total_steps=1000, eval_every=500)
    assert fingerprint(half.path) != fingerprint(whole.path)
    whorl.resume(half.path, 2000, quiet=True)
    assert fingerprint(half.path) == fingerprint(whole.path)
    assert fingerprint(train(tmp_path / "c", **fields, seed=1).path) != fingerprint(whole.path)


def test_compile_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(BadInput, match="TRPO cannot be compiled"):
        train(tmp_path, compile=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"damping": -1.0}, "damping must be at least 0, got -1.0"),
        ({"conjugate_gradient_steps": 0}, "conjugate_gradient_steps must be at least 1, got 0"),
        ({"kl_limit": 0.0}, "kl_limit must be above 0"),
        ({"kl_limit": -0.1}, "kl_limit must be at least 0, got -0.1"),
    ],
)
def test_impossible_numbers(fields, message):
    with pytest.raises(BadInput, match=message):
        parts(**fields)
