"""REINFORCE: every option by hand or by definition, exact gradients, and torch-twrl's bugs, each by its name."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from gymnasium import spaces

import whorl
from whorl import batch
from whorl.agents.optimizers import OPTIMIZERS, anneal, optimizer
from whorl.agents.reinforce import REINFORCE, REINFORCEConfig
from whorl.errors import BadInput, Incompatible
from whorl.feeds import Rollouts
from whorl.nets.encoder import Encoder
from whorl.nets.heads import Critic
from whorl.options import override
from whorl.policies.stochastic import Stochastic
from whorl.training.build import build

BOX, DISCRETE = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(3)
PLAIN = REINFORCEConfig(baseline="none", normalize_advantage=False, max_grad_norm=0, hidden=(4,), learning_rate=0.1)


def agent(action_space=DISCRETE, seed=0, **fields) -> REINFORCE:
    torch.manual_seed(seed)
    return REINFORCE.build(BOX, action_space, replace(PLAIN, **fields))


def bandit(actions, rewards, observation=None, **more):
    """A rollout [1, N] of N one-step episodes."""
    rewards = torch.as_tensor(rewards, dtype=torch.float32).unsqueeze(0)
    shape = rewards.shape
    observation = torch.zeros(*shape, 2) if observation is None else observation
    end = torch.ones(shape, dtype=torch.bool)
    entries = {
        "observation": observation,
        "action": torch.as_tensor(actions).unsqueeze(0),
        "next": {"observation": observation, "reward": rewards, "terminated": end, "truncated": ~end},
    }
    return batch.make(entries | more, shape)


def one_update(a: REINFORCE, rollout) -> dict:
    return a.update(a.prepare(rollout).reshape(-1))


def weights(a) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in a.parameters()])


# ---------------------------------------------------------------------------------------------------------- gradients


def exact_actions(space):
    """Every action of a discrete space, [A, ...]."""
    if isinstance(space, spaces.Discrete):
        return torch.arange(int(space.n))
    return torch.tensor(list(product(*(range(int(n)) for n in space.nvec))))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.MultiDiscrete([2, 3])], ids=["categorical", "multi"])
def test_expected_gradient_is_that_of_the_expected_return(space, masked):
    """sum_a pi(a) grad loss(a) against central differences of J = sum_a pi(a) r(a), every action summed, float64."""
    a = agent(space, initialization="uniform").double()
    actions = exact_actions(space)
    reward = torch.linspace(-1, 2, len(actions)).square()
    observation = torch.tensor([0.3, -0.8], dtype=torch.float64)
    allowed = torch.ones(a.policy.outputs, dtype=torch.bool)
    allowed[-1] = not masked
    row = {"observation": observation[None], "action_mask": allowed[None]}

    def probabilities():
        return a.policy.distribution(a.policy.encode(row).expand(len(actions), -1), allowed).log_prob(actions).exp()

    p = probabilities().detach()
    assert p.sum().item() == pytest.approx(1.0)
    a.zero_grad()
    for action, r, share in zip(actions, reward, p, strict=True):
        rows = {**row, "action": action[None], "advantage": r.double()[None]}
        (share * a.loss(batch.make(rows, (1,)))[0]).backward()
    check_slope(a, lambda: -(probabilities() * reward).sum())


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"std": "dependent"},
        {"std": "fixed", "fixed_std": 0.5},
        {"mean": "tanh"},
        {"scale": True},
        {"scale": True, "mean": "tanh", "std": "fixed", "fixed_std": 0.5},
        {"squash": True, "std": "fixed", "fixed_std": 0.3},
    ],
    ids=str,
)
def test_expected_gradient_of_every_gaussian(fields):
    """The same for a two-dimensional Box: expectations by Gauss-Hermite quadrature, exact where the reward is a polynomial."""
    space = spaces.Box(np.float32([-1, 0]), np.float32([3, 4]))
    a = agent(space, initialization="uniform", **fields).double()
    nodes, shares = np.polynomial.hermite_e.hermegauss(24)
    z = torch.tensor(list(product(nodes, nodes)))
    share = torch.tensor([x * y for x, y in product(shares, shares)]) / (2 * math.pi)
    observation = torch.tensor([[0.3, -0.8]], dtype=torch.float64)

    def distribution():
        return a.policy.distribution(a.policy.encode({"observation": observation}).expand(len(z), -1))

    def reward(action):
        return action[:, 0] - 0.5 * action[:, 1] ** 2 + 0.3 * action[:, 0] * action[:, 1]

    actions = distribution().sample(z).detach()
    objective = distribution().log_prob(actions) * reward(actions)
    a.zero_grad()
    (-(share * objective).sum()).backward()
    wanted = [p.grad.clone() for p in a.parameters()]
    a.zero_grad()
    rows = {"observation": observation.expand(len(z), 2), "action": actions, "advantage": reward(actions) * share}
    (a.loss(batch.make(rows, (len(z),)))[0] * len(z)).backward()
    for p, g in zip(a.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, g)
    check_slope(a, lambda: -(share * reward(distribution().sample(z))).sum())


def check_slope(a, value) -> None:
    """The gradients in `a` against central differences of `value()`, along a random direction for each parameter."""
    g = torch.Generator().manual_seed(0)
    for name, p in a.named_parameters():
        direction = torch.randn(p.shape, generator=g, dtype=torch.float64)
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                p.add_(sign * 1e-5 * direction)
                values.append(value().item())
                p.sub_(sign * 1e-5 * direction)
        slope = (values[0] - values[1]) / 2e-5
        assert (p.grad * direction).sum().item() == pytest.approx(slope, rel=1e-4, abs=1e-7), name


def test_the_sum_is_the_mean_times_the_rows_that_count():
    mean, total = agent(entropy_weight=0.3), agent(entropy_weight=0.3, reduction="sum")
    mask = torch.tensor([[True, True, False, True, True]])
    gradients = []
    for a in (mean, total):
        rows = a.prepare(bandit([0, 1, 2, 1, 0], [1.0, 2, 3, 4, 5], mask=mask)).reshape(-1)
        loss, metrics = a.loss(rows)
        loss.backward()
        gradients.append((loss, a.policy.head.weight.grad, metrics["entropy_loss"]))
    torch.testing.assert_close(gradients[1][0], 4 * gradients[0][0])
    torch.testing.assert_close(gradients[1][1], 4 * gradients[0][1])
    assert gradients[1][2] == gradients[0][2]  # logged as means, whatever is stepped on


# ---------------------------------------------------------------------------------------------------- torch-twrl's bugs


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.Box(-1, 1, (2,), np.float32)], ids=["discrete", "box"])
@pytest.mark.parametrize("weight", [0.5, -0.5])
def test_entropy_sign(weight, space):
    """torch-twrl: beta > 0 lowered the entropy. A one-step bandit without any reward: only the entropy term acts."""
    a = agent(space, entropy_weight=weight, initialization="uniform", learning_rate=0.03)
    actions = torch.zeros(4, dtype=torch.int64) if isinstance(space, spaces.Discrete) else torch.zeros(4, 2)
    with torch.no_grad():
        a.policy.head.bias[0] = 2.0  # room both ways
    entropies = [-one_update(a, bandit(actions, [0.0] * 4))["entropy_loss"].item() for _ in range(10)]
    steps = np.diff(entropies)
    assert (steps > 0).all() if weight > 0 else (steps < 0).all()


@pytest.mark.parametrize("scale", [False, True])
def test_normal_branch_sign(scale):
    """torch-twrl went down the policy gradient for Box actions: a good action above the mean must raise the mean."""
    a = agent(spaces.Box(-2, 2, (1,), np.float32), scale=scale, std="fixed", fixed_std=0.5, optimizer="sgd")
    mode = lambda: a.policy.distribution(a.policy.encode({"observation": torch.zeros(1, 2)})).mode.item()  # noqa: E731
    before = mode()
    one_update(a, bandit([[before + 0.3]], [1.0]))
    higher = mode()
    assert higher > before
    one_update(a, bandit([[higher + 0.3]], [-1.0]))
    assert mode() < higher


def test_scale_mismatch_between_mean_and_action():
    """torch-twrl compared the net's mean (unit scale) with the environment's action. Here d log pi / d mean = (z - mean) / std^2."""
    a = agent(spaces.Box(np.float32([0]), np.float32([10])), scale=True, std="fixed", fixed_std=0.5, optimizer="sgd")
    with torch.no_grad():
        a.policy.head.weight.zero_()
        a.policy.head.bias.fill_(0.2)
    one_update(a, bandit([[9.0]], [1.0]))  # z = (9 - 5) / 5 = 0.8
    assert a.policy.head.bias.item() == pytest.approx(0.2 + 0.1 * (0.8 - 0.2) / 0.25, abs=1e-5)


def test_actions_of_many_dimensions():
    """torch-twrl stored N x 1 actions. Each component learns from its own."""
    a = agent(spaces.Box(-1, 1, (3,), np.float32), std="fixed", fixed_std=1.0, optimizer="sgd")
    with torch.no_grad():
        a.policy.head.weight.zero_()
    prepared = a.prepare(bandit([[0.5, -0.25, 0.0], [0.5, 0.25, 0.0]], [1.0, 1.0]))
    assert prepared["action"].shape == (1, 2, 3)
    a.update(prepared.reshape(-1))
    torch.testing.assert_close(a.policy.head.bias.detach(), torch.tensor([0.05, 0.0, 0.0]))


@pytest.mark.parametrize("baseline", ["time", "padded_time"])
def test_one_episode_teaches_nothing(baseline):
    """torch-twrl, E = 1: the baseline is the return itself. All advantages are 0, no NaN, and no weight moves."""
    a = agent(baseline=baseline, normalize_advantage=True)
    before = weights(a)
    metrics = one_update(a, bandit([1], [5.0]))
    assert torch.equal(weights(a), before) and all(m.isfinite() for m in metrics.values())


@pytest.mark.parametrize("baseline", ["none", "mean", "time", "padded_time", "optimal", "leave_one_out", "value"])
@pytest.mark.parametrize("episodes", [1, 2])
def test_one_row_is_never_nan(baseline, episodes):
    """torch-twrl: T = 1 crashed, and the standard deviation of one row is NaN with n - 1."""
    a = agent(baseline=baseline, normalize_advantage=True)
    metrics = one_update(a, bandit([1] * episodes, [5.0] * episodes))
    assert all(m.isfinite() for m in metrics.values()) and weights(a).isfinite().all()


def test_an_unknown_baseline_is_an_error():
    """torch-twrl took any other word as no baseline at all."""
    with pytest.raises(BadInput, match="baseline must be one of 'none', .*'padded_time'.*, got 'padTimeDepAvReturn'"):
        agent(baseline="padTimeDepAvReturn")
    with pytest.raises(BadInput, match="reduction must be one of 'mean', 'sum', got 'avg'"):
        agent(reduction="avg")


# ------------------------------------------------------------------------------------------------------------ baselines


def test_padded_time_on_whole_episodes_of_several_environments():
    config = override(REINFORCEConfig(), {"baseline": "padded_time", "normalize_advantage": False, "discount": 0.9})
    p = build("reinforce", "CartPole-v1", override(config, {"feed": {"steps": 60}}), num_envs=3, seed=0)
    rollout = p.collector.collect()
    mask, over = rollout["mask"].clone(), batch.ended(rollout).clone()
    prepared = p.agent.prepare(rollout)
    lengths, starts = [], []
    for i in range(3):
        start = 0
        for k in over[:, i].nonzero().flatten().tolist():
            if mask[k, i]:
                lengths.append(k + 1 - start)
                starts.append((start, i))
            start = k + 1
    assert len(lengths) > 4 and int(p.agent.episodes) == len(lengths) == int(p.agent.report["episodes"])
    returns = [[(1 - 0.9 ** (n - k)) / 0.1 for k in range(n)] for n in lengths]
    for (start, i), n, g in zip(starts, lengths, returns, strict=True):
        for k in range(n):
            mean = sum(r[k] for r in returns if k < len(r)) / len(returns)
            assert prepared["advantage"][start + k, i].item() == pytest.approx(g[k] - mean, abs=1e-4)


def test_a_discount_per_row_is_used():
    a = agent(discount=0.5)
    rollout = batch.make(
        {
            "observation": torch.zeros(3, 1, 2),
            "action": torch.zeros(3, 1, dtype=torch.int64),
            "next": {
                "observation": torch.zeros(3, 1, 2),
                "reward": torch.ones(3, 1),
                "terminated": torch.tensor([[False], [False], [True]]),
                "truncated": torch.zeros(3, 1, dtype=torch.bool),
                "discount": torch.tensor([[0.1], [0.2], [0.3]]),
            },
        },
        (3, 1),
    )
    assert a.prepare(rollout)["return"].flatten().tolist() == pytest.approx([1.12, 1.2, 1.0])


@pytest.mark.parametrize("kind", ["categorical", "masked", "gaussian", "dict observation"])
def test_optimal_baseline_weighs_by_the_squared_scores(kind):
    space = spaces.Box(-1, 1, (2,), np.float32) if kind == "gaussian" else spaces.Discrete(3)
    nested = spaces.Dict(a=BOX, b=spaces.Box(-1, 1, (3, 1), np.float32))
    torch.manual_seed(0)
    config = replace(PLAIN, baseline="optimal", initialization="uniform")
    a = REINFORCE.build(nested if kind == "dict observation" else BOX, space, config)
    g = torch.Generator().manual_seed(0)
    observation = torch.randn(1, 6, 2, generator=g)
    nest = {"a": observation, "b": torch.randn(1, 6, 3, 1, generator=g)}
    actions = torch.randn(6, 2, generator=g) if kind == "gaussian" else torch.tensor([0, 1, 1, 0, 1, 0])
    reward = torch.randn(6, generator=g)
    more = {"action_mask": torch.tensor([True, True, False]).expand(1, 6, 3)} if kind == "masked" else {}
    rollout = bandit(actions, reward, nest if kind == "dict observation" else observation, **more)
    squares = []
    for i in range(6):
        row = rollout[:, i]
        a.zero_grad()
        d = a.policy.distribution(a.policy.encode(row), batch.get(row, "action_mask"))
        d.log_prob(row["action"]).sum().backward()
        squares.append(sum(p.grad.square().sum().item() for p in a.policy.parameters()))
    assert a.squared_scores(rollout).flatten().tolist() == pytest.approx(squares, rel=1e-4)
    best = np.average(reward.numpy(), weights=squares)
    np.testing.assert_allclose(a.prepare(rollout)["advantage"][0], reward.numpy() - best, atol=1e-5)


# ------------------------------------------------------------------------------------------- optimizers, clipping, decay


def test_rmsprop_is_torch7_s():
    """m <- .9 m + .1 g^2 from m = 0; x <- x - .3 g / (sqrt(m) + 1e-8); with g = 1, 2, -1 and then 2 with decay .5 x."""
    x = torch.nn.Parameter(torch.zeros(1))
    rms = optimizer("rmsprop", [x], 0.3, eps=1e-8, weight_decay=0.0, smoothing=0.9)
    seen = []
    for g in (1.0, 2.0, -1.0):
        x.grad = torch.tensor([g])
        rms.step()
        seen.append(x.item())
    # m = .1, .49, .541: steps .3 / .316228, .6 / .7, -.3 / .735527
    assert seen == pytest.approx([-0.948683, -1.805826, -1.397955], abs=1e-5)
    y = torch.nn.Parameter(torch.full((1,), 4.0))
    rms = optimizer("rmsprop", [y], 0.3, eps=1e-2, weight_decay=0.5, smoothing=0.9)
    y.grad = torch.tensor([-1.0])
    rms.step()  # g = -1 + .5 * 4 = 1, m = .1, and eps stands outside the root
    assert y.item() == pytest.approx(4 - 0.3 / (math.sqrt(0.1) + 1e-2), abs=1e-6)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_any_optimizer_of_torch_by_name(name):
    a = agent(optimizer=name, initialization="uniform", learning_rate=0.05, anneal_steps=80)
    good = bandit([0, 1, 2, 1], [0.0, 1.0, 0.0, 1.0])
    before = a.loss(a.prepare(good.clone()).reshape(-1))[0].item()
    for _ in range(5):
        anneal(a.optimizer, 0.05, a.env_steps, 80)
        one_update(a, good.clone())
    assert a.loss(a.prepare(good.clone()).reshape(-1))[0].item() < before
    assert type(a.optimizer).__name__.lower() == name
    assert a.optimizer.param_groups[0]["lr"].item() == pytest.approx(0.05 * (1 - 20 / 80))


def test_optimizers_that_are_not_there():
    with pytest.raises(BadInput, match="unknown optimizer 'RMSProp'. Optimizers: adadelta, .*adam, .*rmsprop.*sgd"):
        agent(optimizer="RMSProp")
    with pytest.raises(BadInput, match="unknown optimizer 'lbfgs'"):
        agent(optimizer="lbfgs")  # wants to see the loss several times
    with pytest.raises(BadInput, match="optimizer 'rprop' has no weight decay: weight_decay must be 0, got 0.1"):
        agent(optimizer="rprop", weight_decay=0.1)


def gradient_of(fields, clip=None, compiled=False):
    """What plain SGD, or Adam's first step, made of a gradient: the difference of the weights."""
    a = agent(initialization="uniform", reduction="sum", **fields)
    a.compiled = compiled
    before = weights(a)
    metrics = one_update(a, bandit([0, 1, 2, 1], [5.0, -30.0, 40.0, 10.0]))
    return before - weights(a), metrics["grad_norm"].item()


def test_clipping_by_hand():
    sgd = {"optimizer": "sgd", "learning_rate": 1.0}
    raw, norm = gradient_of(sgd)
    assert raw.abs().max() > 5 and norm == pytest.approx(raw.norm().item(), rel=1e-5)
    each, norm_each = gradient_of(sgd | {"clip_value": 5.0})
    torch.testing.assert_close(each, raw.clamp(-5, 5), atol=1e-5, rtol=1e-5)
    both, _ = gradient_of(sgd | {"clip_value": 0.5, "max_grad_norm": 2.0})  # first the norm, then each element
    torch.testing.assert_close(both, (raw * 2 / norm).clamp(-0.5, 0.5), atol=1e-5, rtol=1e-4)
    assert norm_each == norm  # the norm is logged as it was
    assert (both.abs() < 0.5 - 1e-4).any() and both.norm() < 2


@pytest.mark.compiled
def test_clipping_compiled_equals_eager():
    fields = {
        "clip_value": 0.5,
        "max_grad_norm": 2.0,
        "weight_decay": 0.1,
        "optimizer_eps": 1.0,
    }  # a large eps shows sizes
    eager, norm = gradient_of(fields)
    graph, norm_compiled = gradient_of(fields, compiled=True)
    torch.testing.assert_close(graph, eager, atol=1e-6, rtol=1e-5)
    assert norm_compiled == pytest.approx(norm, rel=1e-5)
    assert not torch.allclose(eager, gradient_of(fields | {"clip_value": 0.0})[0], atol=1e-5)


def test_an_infinite_gradient_is_not_made_finite_by_clipping():
    a = agent(clip_value=1.0, optimizer="rmsprop")
    before = weights(a)
    rows = a.prepare(bandit([0, 1], [1.0, 2.0])).reshape(-1)
    rows["advantage"][0] = float("inf")
    a.update(rows)
    assert a.step.void and torch.equal(weights(a), before)


def test_compile_refuses_the_optimizers_it_does_not_step():
    for name in ("rmsprop", "adamw"):
        a = agent(optimizer=name)
        a.compiled = True
        with pytest.raises(BadInput, match="compile=True needs one Adam with one parameter group, got "):
            one_update(a, bandit([0, 1], [1.0, 2.0]))


def test_weight_decay_shrinks_the_weights():
    a, b = (agent(weight_decay=d, optimizer="sgd", initialization="uniform") for d in (0.0, 0.5))
    start = weights(a)
    for x in (a, b):
        one_update(x, bandit([0, 1], [1.0, 2.0]))
    torch.testing.assert_close(weights(b), weights(a) - 0.1 * 0.5 * start)


def test_decay_by_episodes():
    """alpha_k = alpha_0 (1 - k / K), k the episodes finished before the update, those of its batch included; then 0."""
    p = build("reinforce", "CartPole-v1", REINFORCEConfig(anneal_episodes=20, feed=Rollouts(30, unit="episode")), 2, 0)
    finished = 0
    for _ in range(8):
        p.buffer.add(p.agent.prepare(p.collector.collect()))
        rate = float(p.agent.learn(p.buffer)["learning_rate"])
        finished += len(p.collector.episodes)
        assert int(p.agent.episodes) == finished
        assert rate == pytest.approx(1e-3 * max(0.0, 1 - finished / 20), abs=1e-9)
    assert rate == 0


def test_resume_goes_on_exactly_with_the_count_and_the_optimizer(tmp_path):
    config = REINFORCEConfig(
        baseline="padded_time", optimizer="rmsprop", learning_rate=0.02, anneal_episodes=500, clip_value=5.0,
        optimizer_eps=1e-8, smoothing=0.9, reduction="sum", feed=Rollouts(200, unit="episode"),
    )  # fmt: skip
    options = {
        "config": config,
        "num_envs": 1,
        "seed": 3,
        "total_episodes": 500,
        "runs": tmp_path,
        "quiet": True,
        "eval_every": 0,
    }
    whole = whorl.train("reinforce", "CartPole-v1", total_steps=3000, checkpoint_every=1000, **options)
    half = whorl.train("reinforce", "CartPole-v1", total_steps=1500, checkpoint_every=1000, **options)
    rest = whorl.resume(half.path, total_steps=3000, quiet=True)
    assert int(rest.agent.episodes) == int(whole.agent.episodes) > 20
    assert torch.equal(weights(rest.agent), weights(whole.agent))


# --------------------------------------------------------------------------------------------------------- composition


def test_composed_by_hand_learns():
    env = whorl.make_env("CartPole-v1", num_envs=2, seed=0)
    policy = Stochastic(Encoder(env.observation_space, (10,)), env.action_space)
    a = REINFORCE(policy, config=REINFORCEConfig(baseline="padded_time"))
    assert a.policy is policy and a.critic is None and set(a.optimizers()) == {"optimizer"}


def test_parts_that_contradict_each_other():
    policy, critic = agent().policy, Critic(BOX)
    with pytest.raises(BadInput, match="baseline 'value' with no critic: baseline 'value' is the critic's"):
        REINFORCE(policy, None, REINFORCEConfig())
    with pytest.raises(BadInput, match="baseline 'mean' with a critic"):
        REINFORCE(policy, critic, REINFORCEConfig(baseline="mean"))
    with pytest.raises(BadInput, match="anneal_steps and anneal_episodes are two clocks .*: set one of them to 0"):
        agent(anneal_steps=10, anneal_episodes=10)
    with pytest.raises(Incompatible, match="needs whole episodes: feed.unit must be 'episode', got 'step'"):
        agent(feed=Rollouts(8))
