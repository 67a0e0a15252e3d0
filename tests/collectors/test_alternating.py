"""Two halves in turn: the serial collector's rollouts, what is under way while the other half is decided for, what both learn."""

import numpy as np
import pytest
import torch

import whorl
from tests.training.fingerprint import fingerprint
from whorl.collectors.alternating import AlternatingCollector
from whorl.collectors.halves import Halves
from whorl.collectors.serial import SerialCollector
from whorl.collectors.tally import Tally
from whorl.envs.check import check_env
from whorl.envs.env import Env, Processes
from whorl.envs.make import EnvKind, make_env
from whorl.errors import BadInput, Incompatible, NotFinite
from whorl.options import override
from whorl.policies.random import Random
from whorl.policies.stochastic import Stochastic
from whorl.training.build import build
from whorl.training.catalog import default_config
from whorl.training.collecting import Collecting
from whorl.transforms.chain import chain

DRAWN = [
    {"name": "random_truncation", "least": 3, "most": 9},
    "trajectory_id",
    {"name": "noop_start", "most": 3},
]


def halves(kind: EnvKind, n: int, seed: int = 3) -> Halves:
    return Halves(*(kind.make(k, seed, training=True) for k in (n - n // 2, n // 2)))


def same(one, other) -> None:
    assert set(one.keys(True, True)) == set(other.keys(True, True))
    for key in one.keys(True, True):
        assert torch.equal(one[key], other[key]), key


@pytest.mark.parametrize("prefer", ["native", "gymnasium"])
@pytest.mark.parametrize(("id", "n"), [("CartPole-v1", 5), ("Pendulum-v1", 2)])
def test_the_rollouts_of_the_serial_collector(id, n, prefer):
    kind = EnvKind(id, prefer=prefer)
    serial = SerialCollector(kind.make(n, 3), Random(kind.make().action_space), 32, seed=5)
    turns = AlternatingCollector(halves(kind, n), serial.policy, 32, seed=5)
    for _ in range(4):
        same(serial.collect(), turns.collect())
        assert turns.episodes == serial.episodes
    assert (turns.steps, turns.finished) == (128 * n, serial.finished)
    assert torch.equal(torch.as_tensor(turns.is_first), torch.as_tensor(serial.is_first))


def test_rows_that_do_not_count_masks_and_info():
    """The transforms draw for each row as in the whole; what is learned from data is not compared, its order is another."""
    kind = EnvKind("CartPole-v1", prefer="gymnasium", transforms=chain(DRAWN))
    serial = SerialCollector(kind.make(4, 3, training=True), Random(kind.make().action_space), 32, seed=5)
    turns = AlternatingCollector(halves(kind, 4), serial.policy, 32, seed=5)
    for collector in (serial, turns):
        collector.recorder.tally = Tally({"nonzero_rewards": "sum"}, 4)
    for _ in range(4):
        one, other = serial.collect().clone(), turns.collect().clone()
        numbers = other["trajectory"].clone()
        assert not one["mask"].all() and serial.episodes
        assert turns.episodes == serial.episodes
        assert not {*numbers[:, :2].unique().tolist()} & {*numbers[:, 2:].unique().tolist()}
        for each in (one, other):
            del each["trajectory"]
        same(one, other)


class Waits(Env):
    """Says what it is told, and when it was sent and received."""

    def __init__(self, n: int, said: list[str], name: str):
        inner = make_env("CartPole-v1", n)
        self.inner, self.said, self.name, self.num_envs = inner, said, name, n
        self.observation_space, self.action_space, self.partial = (
            inner.observation_space,
            inner.action_space,
            inner.partial,
        )

    def reset(self, seed=None):
        return self.inner.reset(seed)

    def send(self, action):
        self.said.append(f"send {self.name}")
        self.action = action.copy()

    def receive(self):
        self.said.append(f"receive {self.name}")
        return self.inner.step(self.action)

    def learned(self):
        return {"what": np.zeros(1)} if self.name == "learns" else {}


def test_one_half_is_under_way_while_the_other_is_decided_for():
    said: list[str] = []
    env = Halves(Waits(2, said, "a"), Waits(2, said, "b"))
    policy = Stochastic.build(env.observation_space, env.action_space)
    collector = AlternatingCollector(env, policy, 2)
    for half, _ in collector._halves:
        actor = half.actor
        half.actor = lambda *given, actor=actor: (said.append(f"decide for {len(given[0])}"), actor(*given))[1]
    collector.collect()
    both = ["decide for 2", "send b", "receive a"]
    assert said == ["decide for 2", "send a", *both, "decide for 2", "send a", "receive b", *both, "receive b"]


def test_transforms_pass_the_two_halves_of_a_step_on():
    said: list[str] = []
    env = whorl.Transformed(Waits(2, said, "a"), *(whorl.transforms.chain.made(name) for name in ("clip_reward",)))
    env.reset(0)
    env.send(np.zeros(2, np.int64))
    assert said == ["send a"]
    step = env.receive()
    assert said == ["send a", "receive a"] and step.reward.tolist() == [1.0, 1.0] == env.raw_reward.tolist()


def test_halves_are_an_environment():
    for prefer in ("native", "gymnasium"):
        check_env(halves(EnvKind("CartPole-v1", prefer=prefer), 3))
    part = halves(EnvKind("CartPole-v1", prefer="gymnasium"), 3)
    assert part.render() is None and part.own_action_space == part.action_space
    assert part.state() is None
    part.replay_steps = 100
    assert part.parts[1].replay_steps == part.replay_steps == 100
    part.close()
    with pytest.raises(Incompatible, match="cannot share what it learns, what, with other environments"):
        Halves(Waits(1, [], "a"), Waits(1, [], "learns"))


def test_both_halves_see_by_the_same_statistics():
    kind = EnvKind("Pendulum-v1", transforms=chain(["running_normalize", "normalize_reward"]))
    env = halves(kind, 4)
    AlternatingCollector(env, Random(env.action_space), 16).collect()
    first, second = (part.learned() for part in env.parts)
    assert first and all((first[name] == second[name]).all() for name in first)
    assert first["RunningNormalize1.count"] == pytest.approx(4 + 64, abs=1e-3)
    changed = {name: x + 1 for name, x in first.items()}
    env.load_learned(changed)
    assert all((env.parts[1].learned()[name] == x).all() for name, x in changed.items())


def test_an_error_names_the_row_of_the_whole():
    class Fails(Waits):
        def receive(self):
            step = super().receive()
            reward = step.reward.copy()
            reward[1] = np.nan
            return step._replace(reward=reward)

    env = Halves(Waits(3, [], "a"), Fails(2, [], "b"))
    with pytest.raises(NotFinite, match=r"reward of environment 4 \(seed 7, episode 0, step 1, last action [01]\)"):
        AlternatingCollector(env, Random(env.action_space), 4, seed=7).collect()


def test_each_half_has_its_own_memory():
    kind = EnvKind("CartPole-v1")
    env = halves(kind, 4)
    collector = AlternatingCollector(env, Carrying(env.action_space), 8, seed=5)
    serial = SerialCollector(kind.make(4, 3), Carrying(env.action_space), 8, seed=5)
    for _ in range(3):
        same(serial.collect(), collector.collect())
    assert torch.equal(collector.recorder.carry["steps"], serial.recorder.carry["steps"])


class Carrying(Random):
    """Counts the steps of its episodes."""

    def initial(self, n):
        return {"steps": torch.zeros(n)}

    def act(self, observation, carry, is_first, noise, action_mask=None):
        decided, _ = super().act(observation, None, is_first, noise, action_mask)
        steps = torch.where(is_first, 0.0, carry["steps"])
        return decided | {"recurrent_state": steps}, {"steps": steps + 1}


RUN = {"num_envs": 3, "total_steps": 600, "checkpoint_every": 128, "eval_every": 300, "eval_episodes": 2, "quiet": True}
SMALL = {"hidden": (8,), "feed": {"steps": 16, "epochs": 2, "minibatches": 2}, "collector": "alternating"}
LEARNED = ["running_normalize", "normalize_reward", {"name": "random_truncation", "least": 20, "most": 60}]


@pytest.mark.parametrize("env", ["CartPole-v1", "LunarLander-v3"])
def test_stopped_and_resumed_to_the_same_bits(env, tmp_path):
    if env == "LunarLander-v3":
        pytest.importorskip("Box2D", reason="needs the package Box2D")
    given = RUN | SMALL | {"transforms": LEARNED}
    whole = whorl.train("ppo", env, runs=tmp_path / "whole", **given)
    assert '"collector": "alternating"' in (whole.path / "config.json").read_text()
    hooks = [lambda rollout, metrics: whorl.last_run().progress.count >= 300]
    cut = whorl.train("ppo", env, runs=tmp_path / "parts", hooks=hooks, **given)
    (cut.path / "eval.json").unlink()
    (cut.path / "curve.png").unlink()
    assert cut.steps < 600
    assert fingerprint(whorl.resume(cut.path, quiet=True).path) == fingerprint(whole.path)


@pytest.mark.parametrize(
    ("agent", "options", "error", "message"),
    [
        ("ppo", {"num_envs": 1}, BadInput, "needs environments for both halves, got num_envs = 1: use 2 or more"),
        (
            "reinforce",
            {},
            Incompatible,
            "collects rollouts of so many rows, and feed = Rollouts with unit 'episode' is fed otherwise",
        ),
        ("td", {}, Incompatible, "and feed = Stream with unit 'step' is fed otherwise: leave collector out"),
        ("a3c", {}, Incompatible, "and feed = Shared with unit 'step' is fed otherwise"),
        ("dqn", {}, BadInput, "waits for both halves at the end of every rollout: use feed.steps of 2 or more, got 1"),
    ],
)
def test_refused_before_anything_is_written(agent, options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        whorl.train(agent, "CartPole-v1", runs=tmp_path, collector="alternating", **options)
    assert not list(tmp_path.iterdir())


def test_an_object_has_no_halves(tmp_path):
    with pytest.raises(BadInput, match="makes environments of its own, so an environment object will not do"):
        whorl.train("ppo", make_env("CartPole-v1", 4), runs=tmp_path, collector="alternating")
    assert not list(tmp_path.iterdir())


def test_no_resume_changes_the_collector(tmp_path):
    run = whorl.train("ppo", "CartPole-v1", runs=tmp_path, **RUN, **(SMALL | {"collector": "serial"}))
    with pytest.raises(BadInput, match="collector cannot change on the way"):
        whorl.resume(run.path, 1200, collector="alternating")


@pytest.mark.parametrize("agent", ["ppo", "dqn"])
def test_the_same_bits_with_any_number_of_workers(agent):
    found = []
    for workers in (0, 1, 2):
        asked = Collecting("alternating", processes=Processes(workers) if workers else None)
        config = override(default_config(agent), {"feed": {"steps": 16, "warmup": 200} if agent == "dqn" else {}})
        parts = build(agent, "CartPole-v1", config, num_envs=4, collecting=asked)
        parts.train(1200)
        parts.env.close()
        found.append({name: value.clone() for name, value in parts.agent.state_dict().items()})
    for other in found[1:]:
        assert all(torch.equal(value, other[name]) for name, value in found[0].items())


def test_more_workers_than_a_half_has_environments():
    with pytest.raises(BadInput, match="workers = 3 is of each half, and one has 2 environments"):
        build("ppo", "CartPole-v1", num_envs=4, collecting=Collecting("alternating", processes=Processes(3)))
