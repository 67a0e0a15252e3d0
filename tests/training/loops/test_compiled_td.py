"""TD in one compiled loop: the same bits as the ordinary loop, also when a run changes from one to the other; exact resume; refusals."""

import json

import gymnasium
import pytest
import torch

import whorl
import whorl.collectors.stream as stream_module
from tests.training.fingerprint import fingerprint
from whorl.agents.td import TDConfig
from whorl.errors import BadInput, NotFinite
from whorl.training import checkpoint
from whorl.training.build import build
from whorl.training.loops import compiled_td, plain

TILES = {"learning_rate": 0.05, "epsilon": 0.3, "epsilon_decay": 0.999, "epsilon_min": 0.05}
CART = {
    "model": "tile_coding",
    "memory": 200,
    "bias": True,
    "learning_rate": 0.02,
    "initial_value": 20.0,
    "epsilon": 0.1,
}
TABLE = {"learning_rate": 0.3, "epsilon": 0.2, "discount": 0.95}
RUNS = {
    "sarsa": ("MountainCar-v0", TILES),
    "clearing": ("MountainCar-v0", TILES | {"clear_other_actions": True, "discount": 0.99}),
    "true online": ("MountainCar-v0", TILES | {"trace": "dutch"}),
    "lambda 0": ("MountainCar-v0", TILES | {"trace_decay": 0.0, "target": "q_learning"}),
    "no exploration": ("MountainCar-v0", TILES | {"epsilon": 0.0}),
    "hashed": ("MountainCar-v0", TILES | {"memory": 30, "target": "q_learning"}),
    "softmax": ("MountainCar-v0", TILES | {"exploration": "softmax", "target": "expected_sarsa"}),
    "cart sarsa": ("CartPole-v1", CART),
    "cart softmax": (
        "CartPole-v1",
        CART | {"exploration": "softmax", "temperature": 3.0, "target": "naive_q_learning"},
    ),
    "cart linear": ("CartPole-v1", {"model": "linear", "trace": "dutch", "learning_rate": 0.003, "epsilon": 0.2}),
    "cliff sarsa": ("CliffWalking-v1", TABLE | {"trace": "accumulating", "trace_decay": 0.5}),
    "cliff expected": ("CliffWalking-v1", TABLE | {"target": "expected_sarsa"}),
    "cliff watkins": ("CliffWalking-v1", TABLE | {"target": "q_learning", "trace": "accumulating", "trace_decay": 0.5}),
    "cliff naive": ("CliffWalking-v1", TABLE | {"target": "naive_q_learning"}),
    "walk": ("RandomWalk-v0", {"learning_rate": 0.1, "trace": "dutch", "trace_decay": 0.8}),
}


def parts(env, fields, seed=4):
    return build("td", env, TDConfig(**fields), num_envs=1, seed=seed, max_episode_steps=90)


def train(p, by, steps):
    """On to `steps` by one of the two loops; the episodes that ended."""
    episodes = []
    by.train(p.agent, p.collector, p.buffer, steps, [lambda rollout, metrics: episodes.extend(p.collector.episodes)])
    return episodes


def everything(p):
    arrays, numbers = p.collector.state()
    return {key: value.clone() for key, value in p.agent.state_dict().items()} | {
        key: torch.as_tensor(value).clone() for key, value in arrays.items()
    }, numbers


def assert_equal(a, b):
    (ours, numbers), (expected, others) = everything(a), everything(b)
    assert numbers == others and set(ours) == set(expected)
    count = int(expected["traces_numbers"][0, 0])  # what lies behind is left over from earlier episodes
    for key, value in expected.items():
        one = lambda x, key=key: x[..., :count] if key in ("traces_packed", "traces_feature") else x  # noqa: E731
        assert torch.equal(one(ours[key]), one(value)), key
    assert torch.equal(a.agent.td_error, b.agent.td_error)


@pytest.fixture
def short_blocks(monkeypatch):
    """Random numbers in blocks of 256 steps, so that a short run crosses from one to the next."""
    for module in (stream_module, compiled_td):
        monkeypatch.setattr(module, "NOISE", 256)


@pytest.mark.usefixtures("short_blocks")
@pytest.mark.parametrize("name", RUNS)
def test_bits_equal_to_the_ordinary_loop(name):
    """All at once, and changing from one loop to the other twice."""
    ordinary, compiled, mixed = (parts(*RUNS[name]) for _ in range(3))
    episodes = train(ordinary, plain, 2500)
    assert train(compiled, compiled_td, 2500) == episodes and len(episodes) > 5
    assert_equal(compiled, ordinary)
    changes = train(mixed, plain, 333) + train(mixed, compiled_td, 1500) + train(mixed, plain, 1501)
    assert changes + train(mixed, compiled_td, 2500) == episodes
    assert_equal(mixed, ordinary)
    assert ordinary.agent.critic.weight.unique().numel() > 5  # there was something to learn
    if "hashed" in name or name == "cart sarsa":
        assert ordinary.agent.collisions > 0


@pytest.mark.usefixtures("short_blocks")
def test_it_stops_at_the_same_episode():
    runs = []
    for by in (plain, compiled_td):
        p = parts(*RUNS["cart sarsa"])
        p.collector.ledger.most_episodes = 9
        assert len(train(p, by, 10**6)) == 9
        assert p.collector.finished == 9 and p.collector.done(10**6)
        assert train(p, by, 10**6) == []  # and not one step further
        runs.append(p)
    assert_equal(*runs)


def test_it_stops_at_the_step_it_is_told():
    p = parts(*RUNS["sarsa"])
    for steps in (1, 2, 90, 91, 1000):
        train(p, compiled_td, steps)
        assert p.collector.steps == p.collector.rollouts == p.agent.env_steps == steps
    train(p, compiled_td, 500)
    assert p.collector.steps == 1000


@pytest.mark.parametrize("by", [compiled_td, plain])
def test_divergence_is_named_and_the_weights_are_those_before(by):
    p = parts("MountainCar-v0", {"learning_rate": 1.0, "trace": "accumulating"})
    with pytest.raises(NotFinite, match="the TD error of environment 0 became .* Lower the learning rate .alpha = 1."):
        train(p, by, 200_000)
    assert p.agent.critic.weight.isfinite().all()
    other = parts("MountainCar-v0", {"learning_rate": 1.0, "trace": "accumulating"})
    train(other, compiled_td if by is plain else plain, p.collector.steps - 1)
    assert torch.equal(other.agent.critic.weight, p.agent.critic.weight) and p.agent.env_steps == p.collector.steps


def test_accumulating_traces_diverge_on_the_mountain_car():
    """At a step size that is right for replacing traces (0.5 / 8): the run ends and says so, instead of going on for ever."""
    fields = {"learning_rate": 0.5 / 8, "epsilon": 0.0, "trace": "accumulating"}
    p = build("td", "MountainCar-v0", TDConfig(**fields), num_envs=1, max_episode_steps=10_000)
    with pytest.raises(NotFinite, match="the values diverge: the TD error of environment 0 became"):
        train(p, compiled_td, 2_000_000)
    assert p.agent.critic.weight.isfinite().all()
    p = build("td", "MountainCar-v0", TDConfig(**fields | {"trace": "replacing"}), num_envs=1, max_episode_steps=10_000)
    episodes = train(p, compiled_td, 30_000)
    assert sum(e.length for e in episodes[50:100]) / 50 < 200


def test_cliff_walking():
    """Sutton and Barto 2018, example 6.6: Q-learning's way is the shortest, Sarsa's keeps off the cliff and earns more on the way."""
    returns, paths = {}, {}
    for target in ("q_learning", "sarsa", "expected_sarsa"):
        fields = {"target": target, "learning_rate": 0.5, "trace_decay": 0.0, "epsilon": 0.1}
        p = build("td", "CliffWalking-v1", TDConfig(**fields), num_envs=1, seed=1)
        p.collector.ledger.most_episodes = 1000
        returns[target] = sum(e.ret for e in train(p, compiled_td, 10**6)[100:]) / 900
        best, cell, paths[target] = p.agent.critic.weight.argmax(0).tolist(), 36, [36]
        while cell != 47 and len(paths[target]) < 40:
            cell += (-12, 1, 12, -1)[best[cell]]
            paths[target].append(cell)
    assert paths["q_learning"] == [36, *range(24, 36), 47]  # 13 steps, along the edge
    assert paths["sarsa"][-1] == 47 and len(paths["sarsa"]) > 14
    assert returns["expected_sarsa"] > returns["sarsa"] > returns["q_learning"]


# -- whole runs --------------------------------------------------------------------------------------------------------

CLIFF = {"learning_rate": 0.3, "epsilon": 0.2, "epsilon_decay": 0.9999, "trace_decay": 0.5}


def run(tmp, name, compile, total_steps=20_000, env="CliffWalking-v1", **options):
    common = {"eval_every": 0, "checkpoint_every": 5000, "log_every": 1 if compile else 1000, "quiet": True}
    common |= {"num_envs": 1, "max_episode_steps": 200} | (CLIFF if env == "CliffWalking-v1" else {})
    return whorl.train("td", env, total_steps=total_steps, runs=tmp / name, compile=compile, **(common | options))


def test_runs_are_the_same(tmp_path):
    """Checkpoint, episodes and evaluation, whichever loop it was."""
    a, b = (
        run(tmp_path, "a", False, eval_every=10_000, eval_episodes=5),
        run(tmp_path, "b", True, eval_every=10_000, eval_episodes=5),
    )
    assert (a.path / "episodes.csv").read_bytes() == (b.path / "episodes.csv").read_bytes()
    saved = [checkpoint.load(checkpoint.newest(r.path / "checkpoints"))[0] for r in (a, b)]
    for group in ("policy", "collector"):
        assert all(torch.equal(saved[0][group][key], saved[1][group][key]) for key in saved[0][group])
    results = [json.loads((r.path / "eval.json").read_text()) for r in (a, b)]
    assert whorl.load(b.path, "last").evaluate(5, seed=3).returns.tolist() == a.evaluate(5, seed=3).returns.tolist()
    assert results[0]["last"] == results[1]["last"] and results[0]["episodes"] == results[1]["episodes"] > 50


@pytest.mark.parametrize(
    ("compile", "fields"),
    [
        (True, {}),
        (False, {}),
        (False, {"env": "CartPole-v1", "model": "mlp", "trace": "accumulating", "learning_rate": 1e-3, "hidden": (8,)}),
        (False, {"num_envs": 3}),
    ],
)
def test_a_killed_run_goes_on_to_the_same_bits(compile, fields, tmp_path, monkeypatch):
    from whorl.training.hooks import Log

    total, at, every = (40_000, 20_000, 5000) if compile else (600, 400, 150)
    options = fields | {"checkpoint_every": every, "log_every": 1 if compile else 300}
    whole = run(tmp_path, "a", compile, total, **options)
    log = Log.__call__

    def kill(self, rollout, metrics):
        log(self, rollout, metrics)
        if self._run.steps >= at:
            raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(Log, "__call__", kill)
        with pytest.raises(MemoryError):
            run(tmp_path, "b", compile, total, **options)
    path = (tmp_path / "b" / "last").resolve()
    assert 0 < int(checkpoint.newest(path / "checkpoints").name.split("_")[1]) < at + every
    resumed = whorl.resume(path, quiet=True)
    assert resumed.steps == whole.steps >= total
    assert fingerprint(path) == fingerprint(whole.path)


def test_same_seed_same_bits(tmp_path):
    a, b, c = (run(tmp_path, name, True, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert fingerprint(a.path) == fingerprint(b.path) != fingerprint(c.path)


def test_a_run_stops_after_its_episodes(tmp_path):
    a, b = (run(tmp_path, name, name == "b", 10**6, total_episodes=40) for name in "ab")
    assert a.steps == b.steps < 10**6 and a.parts.collector.finished == b.parts.collector.finished == 40
    assert torch.equal(a.agent.critic.weight, b.agent.critic.weight)


@pytest.mark.parametrize(
    ("env", "options", "message"),
    [
        (
            "MountainCar-v0",
            {"num_envs": 2},
            "needs one native world without action masks, num_envs=1; got MountainCar-v0",
        ),
        ("GridWorld-v0", {}, "needs one native world without action masks, num_envs=1; got GridWorld-v0"),
        ("FrozenLake-v1", {}, "needs one native world without action masks, num_envs=1; got FrozenLake-v1"),
        ("RandomWalk-v0", {"target": "prediction"}, "is for control: a prediction learns through the ordinary loop"),
        (
            "CartPole-v1",
            {"model": "mlp", "trace": "accumulating"},
            "the compiled loop learns linear values .td with a table",
        ),
    ],
)
def test_refusals(env, options, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        run(tmp_path, "a", True, env=env, **options)
    assert not (tmp_path / "a").exists()


def test_an_object_of_gymnasium_is_refused(tmp_path):
    with pytest.raises(BadInput, match="the compiled loop needs one native world"):
        whorl.train(
            "td", gymnasium.make("CliffWalking-v1"), total_steps=10, runs=tmp_path / "a", compile=True, quiet=True
        )
    assert not (tmp_path / "a").exists()
