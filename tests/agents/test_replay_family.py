"""What holds for all agents that learn from replayed rows alike: shapes, masks, normalizers, targets, delays, warm-up, compiled."""

import copy

import pytest
import torch
from gymnasium import spaces

from whorl import batch
from whorl.errors import Incompatible
from whorl.feeds import Offline, Replay
from whorl.options import override
from whorl.training.catalog import agent_class

Q_LEARNING = {
    "dqn": {},
    "c51": {"atoms": 5},
    "qr_dqn": {"quantiles": 5},
    "iqn": {"cosines": 4},
    "rainbow": {"atoms": 5},
}
SQUASHED = {
    "sac": {},
    "redq": {"critics": 3, "policy_delay": 1},
    "crossq": {"critic_hidden": (8,), "policy_delay": 1},
    "tqc": {"critics": 2, "quantiles": 5, "critic_hidden": (8, 8)},
}
BOX_ACTORS = {"ddpg": {}, "td3": {"policy_delay": 1}, **SQUASHED}
ACTOR_CRITICS = {**BOX_ACTORS, "discrete_sac": {}}
AGENTS = {**Q_LEARNING, **ACTOR_CRITICS}
SPACE, BOX, DISCRETE = spaces.Box(-9, 9, (3,)), spaces.Box(-2, 2, (2,)), spaces.Discrete(3)
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def small(name, action_space=None, seed=0, compiled=False, **fields):
    torch.manual_seed(0)
    cls = agent_class(name)
    config = override(cls.Config(), {"hidden": (8, 8), "activation": "tanh", **AGENTS[name], **fields})
    own = BOX if name in BOX_ACTORS else DISCRETE
    agent = cls.build(SPACE, own if action_space is None else action_space, config)
    agent.seed, agent.compiled = seed, compiled
    return agent


def moved(name, **fields):
    """In float64, and every target is another network than the one that it follows."""
    agent = small(name, **fields).double()
    draw = torch.Generator().manual_seed(2)
    for target, _ in targets(agent):
        for p in target.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=draw, dtype=p.dtype))
    return agent


def targets(agent):
    """(target, what it follows)."""
    policy = getattr(agent.policy, "q", agent.policy)  # of agents without a critic
    pairs = {"target": getattr(agent, "critic", policy), "target_policy": policy}
    return [(getattr(agent, name), online) for name, online in pairs.items() if hasattr(agent, name)]


def rows(name, n=12, dtype=torch.float32):
    draw = torch.Generator().manual_seed(1)
    normal = lambda *shape: torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)  # noqa: E731
    action = 2 * normal(n, 2).tanh() if name in BOX_ACTORS else torch.randint(3, (n,), generator=draw)
    next = {"observation": normal(n, 3), "reward": normal(n), "terminated": normal(n) > 1}
    return batch.make({"observation": normal(n, 3), "action": action, "next": next}, (n,))


def steps(agent, data):
    """({loss: its value and gradients}, metrics) of an update that moves no weight. `data` stays as it is."""
    found = {}

    def optimize(loss, optimizer, data):
        if "noise" in data.keys():  # noqa: SIM118
            data["noise"] = data["noise"].double()
        value, metrics = loss(data)
        parameters = optimizer.param_groups[0]["params"]
        found[loss.__name__] = [value.detach(), *torch.autograd.grad(value, parameters, materialize_grads=True)]
        return metrics

    agent.optimize = optimize
    metrics = agent.update(data.clone())
    del agent.optimize
    return found, metrics


def given(agent, data):
    """What an update gives to its first loss: the batch with its noise."""
    seen = []
    agent.optimize = lambda loss, optimizer, data: (
        seen.append(data) or type(agent).optimize(agent, loss, optimizer, data)
    )
    agent.update(data)
    del agent.optimize
    return seen[0]


def weights(*modules):
    return [p.detach().clone() for module in modules for p in module.parameters()]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# ---------------------------------------------------------------------------------------------- what a batch may be


@pytest.mark.parametrize("name", AGENTS)
def test_sequences_are_so_many_rows(name):
    data = rows(name, dtype=torch.float64)
    data["weight"] = torch.linspace(0.1, 1, 12, dtype=torch.float64)
    data["next", "discount"] = torch.linspace(0.5, 0.9, 12, dtype=torch.float64)
    (flat, told), (table, also) = steps(moved(name), data), steps(moved(name), data.reshape(4, 3))
    assert also["priority"].shape == (4, 3)
    also["priority"] = also["priority"].flatten()
    for loss in flat:
        torch.testing.assert_close(flat[loss], table[loss], **CLOSE)
    torch.testing.assert_close(told, also, **CLOSE)


@pytest.mark.parametrize("name", [name for name in AGENTS if name != "crossq"])  # whose statistics are of all rows
def test_the_mask_says_which_rows_count(name):
    """Means over the rows of a mask and over those of its opposite make up the mean over all; what is masked has no say."""
    data, mask = rows(name, dtype=torch.float64).reshape(4, 3), torch.arange(12).view(4, 3) % 3 > 0
    found = []
    for counts in (torch.ones_like(mask), mask, ~mask):
        data["mask"] = counts
        found.append(steps(moved(name), data))
    del data["mask"]
    every, without = found[0], steps(moved(name), data)
    for loss, values in every[0].items():
        torch.testing.assert_close(values, without[0][loss], **CLOSE)
        for whole, part, rest in zip(values, found[1][0][loss], found[2][0][loss], strict=True):
            torch.testing.assert_close(12 * whole, 8 * part + 4 * rest, **CLOSE)
    for key in every[1].keys() - {"priority", "temperature", "temperature_loss"}:
        torch.testing.assert_close(12 * every[1][key], 8 * found[1][1][key] + 4 * found[2][1][key], **CLOSE)


@pytest.mark.parametrize("name", AGENTS)
def test_networks_see_normalized_observations(name):
    """Rows as they come and a normalizer give what normalized rows give without one: of the statistics as they are now."""
    plain, agent = moved(name), moved(name, feed={"normalize_observation": True})
    mean, var = torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([4.0, 0.25, 1.0]).double()
    agent.policy.normalizer.merge([(mean, var, torch.tensor(10.0).double())])  # after the targets were made
    data = rows(name, dtype=torch.float64)
    normal = agent.policy.normalizer
    normalized = data.clone()
    normalized["observation"] = normal(data["observation"])
    normalized["next", "observation"] = normal(data["next", "observation"])
    (a, told), (b, also) = steps(plain, normalized), steps(agent, data)
    for loss in a:
        torch.testing.assert_close(a[loss], b[loss], **CLOSE)
    torch.testing.assert_close(told, also, **CLOSE)
    expected = plain.value(normalized["observation"])
    torch.testing.assert_close(agent.value(data["observation"]), expected, **CLOSE)
    assert (expected - plain.value(data["observation"])).abs().max() > 1e-3


@pytest.mark.parametrize("name", AGENTS)
def test_statistics_move_once_with_each_rollout_and_are_saved(name):
    class Nothing:
        def batches(self, count=None):
            return iter(())

    agent = small(name, feed={"normalize_observation": True})
    observation = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    agent.prepare(batch.make({"observation": observation, "action": torch.zeros(5, 2), "next": {}}, (5, 2)))
    assert not agent.policy.normalizer.mean.any()
    for _ in range(2):
        agent.learn(Nothing())
        torch.testing.assert_close(agent.policy.normalizer.mean, observation.mean((0, 1)))
    fresh = small(name, feed={"normalize_observation": True})
    fresh.load_state_dict(agent.state_dict())
    assert same(agent.policy.normalizer.buffers(), fresh.policy.normalizer.buffers())


# ------------------------------------------------------------------------------------------------------ what moves


@pytest.mark.parametrize(
    "name", [name for name in ACTOR_CRITICS if name != "crossq"]
)  # its target moves with its critic
def test_gradients_by_finite_differences(name):
    agent = moved(name, **({} if name in ("ddpg", "td3") else {"learn_temperature": False}))
    data = given(copy.deepcopy(agent), rows(name, dtype=torch.float64))
    data = data.apply(lambda x: x.double() if x.is_floating_point() else x)
    draw = torch.Generator().manual_seed(0)
    for loss, optimizer in ((agent.critic_loss, agent.critic_optimizer), (agent.actor_loss, agent.optimizer)):
        parameters = optimizer.param_groups[0]["params"]
        gradients = torch.autograd.grad(loss(data)[0], parameters)
        for p, gradient in zip(parameters, gradients, strict=True):
            direction, values = torch.randn(p.shape, generator=draw, dtype=torch.float64), []
            for sign in (1, -1):
                with torch.no_grad():
                    p.add_(sign * 1e-6 * direction)
                    values.append(loss(data)[0].item())
                    p.sub_(sign * 1e-6 * direction)
            slope = (gradient * direction).sum().item()
            assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("name", AGENTS)
def test_targets_are_equal_at_the_start_have_no_gradient_and_follow(name):
    """rlpyt's targets began at weights of their own, and so did its actor target."""
    rate = {} if name == "crossq" else {"target_rate": 0.25}
    agent = small(name, learning_rate=1e-2, **rate)
    before = [weights(online) for _, online in targets(agent)]
    assert len(before) == (0 if name == "crossq" else 2 if name in ("ddpg", "td3") else 1)
    for (target, _), old in zip(targets(agent), before, strict=True):
        assert same(weights(target), old) and not any(p.requires_grad for p in target.parameters())
    agent.update(rows(name))
    for (target, online), old in zip(targets(agent), before, strict=True):
        assert not same(weights(online), old)
        for new, start, its in zip(target.parameters(), old, online.parameters(), strict=True):
            torch.testing.assert_close(new, 0.75 * start + 0.25 * its.detach())
    assert agent.updates == 1


@pytest.mark.parametrize("name", ACTOR_CRITICS)
def test_each_optimizer_moves_its_own_part_at_its_own_rate(name):
    """Adam's first step is its learning rate, for every weight that has a gradient. rlpyt's TD3 never used its actor's."""
    agent, furthest = small(name, learning_rate=1e-3, critic_learning_rate=2e-2), []
    parts = {"critic_loss": agent.critic, "actor_loss": agent.policy}

    def optimize(loss, optimizer, data):
        own, (other,) = parts[loss.__name__], [part for key, part in parts.items() if key != loss.__name__]
        before, others = weights(own), weights(other)
        metrics = type(agent).optimize(agent, loss, optimizer, data)
        assert same(others, weights(other))
        furthest.append(max((a - b).abs().max().item() for a, b in zip(before, weights(own), strict=True)))
        return metrics

    agent.optimize = optimize
    agent.update(rows(name))
    assert furthest == pytest.approx([2e-2, 1e-3], rel=2e-2)
    if name not in ("ddpg", "td3"):
        assert agent.temperature.log_temperature.abs().item() == pytest.approx(1e-3, rel=2e-2)


@pytest.mark.parametrize(("name", "due"), [("td3", [3, 6]), ("redq", [1, 4]), ("crossq", [1, 4])])
def test_the_actor_moves_once_in_policy_delay_updates(name, due):
    agent = small(name, policy_delay=3)
    for update in range(1, 7):
        before = [weights(part) for part in (agent.critic, agent.policy)]
        followers = [weights(target) for target, _ in targets(agent)]
        metrics = agent.update(rows(name))
        moved = [not same(old, weights(part)) for old, part in zip(before, (agent.critic, agent.policy), strict=True)]
        assert moved == [True, update in due] and ("actor_loss" in metrics) == (update in due)
        follow = update in due or name == "redq"  # TD3's targets wait, too
        assert all(same(old, weights(t)) != follow for old, (t, _) in zip(followers, targets(agent), strict=True))
    assert agent.updates == 6


@pytest.mark.parametrize("name", ["iqn", "rainbow", "td3", *SQUASHED])
def test_the_noise_of_an_update_is_its_own_and_that_of_its_seed(name):
    noise = []
    for seed in (0, 0, 1):
        agent = small(name, seed=seed)
        for _ in range(2):
            noise.append(given(agent, rows(name))["noise"])
    first, second, again, also, other, _ = noise
    assert torch.equal(first, again) and torch.equal(second, also)
    assert not torch.equal(first, second) and not torch.equal(first, other)


@pytest.mark.parametrize("name", [*SQUASHED, "discrete_sac"])
def test_a_fixed_temperature_stays(name):
    agent = small(name, learn_temperature=False, temperature=0.1)
    metrics = agent.update(rows(name))
    assert "temperature_loss" not in metrics and metrics["temperature"].item() == pytest.approx(0.1)
    assert agent.temperature().item() == pytest.approx(0.1)


@pytest.mark.parametrize("name", BOX_ACTORS)
def test_warming_ends_with_the_warm_up(name):
    agent, flags = small(name, feed=Replay(warmup=10)), []
    assert agent.policy.warming
    for _ in range(3):
        agent.prepare(batch.make({"observation": torch.zeros(4, 1, 3)}, (4, 1)))
        flags.append(bool(agent.policy.warming))
    assert flags == [True, True, False]  # 4, 8, 12 steps
    for feed in (Replay(warmup=0), Offline()):
        assert not small(name, feed=feed).policy.warming


# ------------------------------------------------------------------------------------------ compiled, and refusals


def heavy(*names):
    """One agent of each kind here, the others in `make learn`: compiling takes so long."""
    often = ("dqn", "sac", "td3")
    return [pytest.param(name, marks=[] if name in often else pytest.mark.learning) for name in names]


@pytest.mark.parametrize("name", heavy(*AGENTS, "sac sde"))
@pytest.mark.compiled
def test_compiled_equals_eager(name):
    name, *sde = name.split()
    fields = {"sde": True} if sde else {"renorm_warmup": 2} if name == "crossq" else {}
    fields |= {"policy_delay": 2} if name in ("td3", "redq", "crossq") else {}
    agents = [small(name, compiled=compiled, learning_rate=1e-2, **fields) for compiled in (False, True)]
    for _ in range(4):
        a, b = (agent.update(rows(name)) for agent in agents)
        assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], atol=1e-4, rtol=1e-3)
    for (key, x), y in zip(agents[0].state_dict().items(), agents[1].state_dict().values(), strict=True):
        torch.testing.assert_close(x, y, atol=1e-4, rtol=1e-3, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", AGENTS)
def test_actions_that_it_has_not_are_refused(name):
    words = "action values need Discrete actions, got Box"
    if name in ("ddpg", "td3"):
        words = r"acts in one-axis Box spaces, got Discrete\(3\)"
    elif name in SQUASHED:
        words = r"needs Box actions, got Discrete\(3\); use discrete_sac"
    with pytest.raises(Incompatible, match=words):
        small(name, action_space=DISCRETE if name in BOX_ACTORS else BOX)
