"""Feeds that no preset has: sequences, recorded data, and feeds of the user's own. Each trains, is killed and goes on."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch

import whorl
from tests.cases import each
from tests.training.fingerprint import fingerprint
from whorl.agents.dqn import DQNConfig
from whorl.agents.ppo import PPOConfig
from whorl.agents.sac import SACConfig
from whorl.buffers.datasets import Dataset
from whorl.buffers.rollout import RolloutBuffer
from whorl.collectors.serial import SerialCollector
from whorl.errors import BadInput, Damaged
from whorl.feeds import Offline, Replay, Rollouts, Sequences
from whorl.training.build import build
from whorl.training.loops import plain

MEMORY = {"uniform": "gru", "padded, n-step, drawn ahead": "none", "prioritized": "lstm"}
SMALL = {"batch_size": 4, "capacity": 600, "replay_ratio": 0.05, "warmup": 100}
SEQUENCES = {
    "uniform": Sequences(length=6, burn_in=2, overlap=2, **SMALL),
    "padded, n-step, drawn ahead": Sequences(length=6, across_ends=False, n_step=3, steps=20, prefetch=1, **SMALL | {"replay_ratio": 0.1}),
    "prioritized": Sequences(length=6, prioritized=True, eta=0.5, **SMALL),
}  # fmt: skip


def killed_at(step):
    """A hook that ends the process's part in a run without a word, as a kill would."""

    def hook(rollout, metrics):
        if hook.run.steps >= step:
            raise MemoryError

    hook.begin = lambda run: setattr(hook, "run", run)
    return hook


def same_after_a_kill(tmp_path, at, **options):
    common = {"quiet": True, "hidden": (8,), "log_every": 100, "checkpoint_every": 100} | options
    whole = whorl.train("dqn", runs=tmp_path / "a", **common)
    with pytest.raises(MemoryError):
        whorl.train("dqn", runs=tmp_path / "b", hooks=[killed_at(at)], **common)
    path = (tmp_path / "b" / "last").resolve()
    again = whorl.resume(path, quiet=True, data=options.get("data"))
    assert again.steps == whole.steps
    assert fingerprint(path) == fingerprint(whole.path)
    return whole


@pytest.mark.parametrize("name", SEQUENCES)
def test_sequences_train_and_go_on_to_the_same_bits(name, tmp_path):
    config = DQNConfig(feed=SEQUENCES[name], memory=MEMORY[name])
    whole = same_after_a_kill(
        tmp_path, 450, env="CartPole-v1", config=config, num_envs=2, total_steps=700, eval_every=0
    )
    assert whole.agent.updates > 0
    shape = next(iter(whole.parts.buffer.batches(1))).batch_size
    feed = SEQUENCES[name]
    assert shape == (feed.burn_in + feed.length, 4)


@pytest.fixture(scope="module")
def recorded():
    """1,000 rows of CartPole under uniform actions."""
    parts = build("random", "CartPole-v1", num_envs=4)
    rollouts = [parts.collector.collect().clone() for _ in range(1000 // 4 // parts.agent.config.feed.steps + 1)]
    rows = torch.cat([rollout.exclude("log_prob", "version") for rollout in rollouts])
    return Dataset(rows, parts.env.observation_space, parts.env.action_space, "CartPole-v1")


@pytest.mark.parametrize(
    "feed",
    [
        Offline(batch_size=16),
        Offline(batch_size=16, sampler="without_replacement", normalize_observation=True, reward_scale=0.1),
        Offline(batch_size=16, sampler="prioritized", n_step=3),
        Offline(batch_size=4, length=5),
        Offline(batch_size=4, length=5, sampler="prioritized"),
    ],
)
def test_data_is_learned_from_without_an_environment_and_goes_on_to_the_same_bits(feed, recorded, tmp_path):
    before = recorded.rows.clone()
    run = same_after_a_kill(tmp_path, 250, data=recorded, config=DQNConfig(feed=feed), total_steps=400)
    assert run.progress.unit == "updates" and run.steps == run.agent.updates == 400
    assert run.parts.env is None and run.parts.collector is None
    assert (recorded.rows == before).all()
    with pytest.raises(BadInput, match="names no environment: there is nothing to evaluate in"):
        run.evaluate()


def test_an_environment_that_is_named_only_evaluates(recorded, tmp_path):
    run = whorl.train(
        "dqn", "CartPole-v1", data=recorded, config=DQNConfig(feed=Offline(batch_size=16)), total_steps=200, eval_every=100,
        eval_episodes=4, hidden=(8,), runs=tmp_path, quiet=True,
    )  # fmt: skip
    assert run.parts.env is None and run.evaluate(4).returns.shape == (4,)
    assert {path.name for path in run.checkpoints.glob("step_*")} >= {"step_100", "step_200"}
    assert whorl.load(run.path).evaluate(4).returns.shape == (4,)


def test_statistics_of_data_are_those_of_all_of_it(recorded):
    config = DQNConfig(feed=Offline(normalize_observation=True, reward_scale=2.0, reward_shift=-1.0))
    parts = build("dqn", None, config, data=recorded)
    observation = recorded.rows["observation"].reshape(-1, 4)
    torch.testing.assert_close(parts.agent.policy.normalizer.mean, observation.mean(0))
    rows = next(iter(parts.buffer.batches(1)))
    assert set(rows["next"]["reward"].tolist()) == {1.0}  # 2 x 1 - 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: build("dqn", None, DQNConfig(feed=Offline())), "Offline needs recorded data, and no data was given"),
        (lambda d: build("dqn", None, DQNConfig(), data=d), "Replay steps an environment, and data was given"),
        (lambda d: build("dqn", None), "learns by stepping an environment: name one"),
        (lambda d: build("dqn", None, DQNConfig(feed=Offline(n_step=3, length=2)), data=d), "n_step = 3 is longer than a sequence"),
        (lambda d: build("sac", None, SACConfig(feed=Offline()), data=d), "a squashed Gaussian needs Box actions"),
        (lambda d: Dataset(d.rows[:0], d.observation_space, d.action_space), "at least one"),
        (lambda d: Dataset(d.rows.exclude("next"), d.observation_space, d.action_space), "no 'next"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_from_data_is_said(make, message, recorded):
    with pytest.raises((BadInput, whorl.batch.BatchError), match=message):
        make(recorded)


@dataclass(frozen=True)
class Unknown(Rollouts):
    buffer = "stack"


@dataclass(frozen=True)
class NoLoop(Rollouts):
    def loop(self, compiled):
        return "os"


def test_an_unknown_feed_is_an_error():
    with pytest.raises(
        BadInput, match="a feed names its buffer as one of rollout, stream, replay, data, or gives a class"
    ):
        build("ppo", "CartPole-v1", PPOConfig(feed=Unknown()))
    with pytest.raises(BadInput, match="a feed names its loop as one of plain, .* it gave 'os'"):
        build("ppo", "CartPole-v1", PPOConfig(feed=NoLoop()))


def test_a_buffer_of_a_feed_that_is_none_is_named():
    for buffer, message in each([
        (lambda asked: None, "must give a buffer; what it gave, a NoneType, lacks add, batches"),
        (lambda: None, r"a feed's buffer is called with \(asked\): too many positional arguments"),
    ]):  # fmt: skip
        feed = dataclass(frozen=True)(type("Own", (Rollouts,), {"buffer": staticmethod(buffer)}))()
        with pytest.raises(BadInput, match=message):
            build("ppo", "CartPole-v1", PPOConfig(feed=feed))


class Halves:
    """A buffer of the user's: the rollout in two halves."""

    def __init__(self, asked):
        self.inner = RolloutBuffer(Rollouts(minibatches=2), asked.seed)
        self.add, self.batches, self.feedback = self.inner.add, self.inner.batches, self.inner.feedback
        self.state, self.load_state = self.inner.state, self.inner.load_state


@dataclass(frozen=True)
class Mine(Rollouts):
    steps: int = 16
    buffer = Halves

    def collector(self, on_cpu):
        return lambda agent, env, seed: SerialCollector(env, agent.policy, self.steps, seed)

    def loop(self, compiled):
        return plain.train


def test_a_feed_of_the_users_passes_classes():
    parts = build("ppo", "CartPole-v1", PPOConfig(feed=Mine()), num_envs=2)
    assert isinstance(parts.buffer, Halves)
    parts.train(64)
    assert parts.collector.steps == 64


def test_a_run_of_a_feed_of_the_users_goes_on_with_its_config(tmp_path):
    config = PPOConfig(feed=Mine(), hidden=(8,))
    common = {
        "config": config,
        "num_envs": 2,
        "checkpoint_every": 64,
        "log_every": 1,
        "eval_every": 128,
        "eval_episodes": 2,
        "quiet": True,
    }
    whole = whorl.train("ppo", "CartPole-v1", total_steps=512, runs=tmp_path / "a", **common)
    part = whorl.train("ppo", "CartPole-v1", total_steps=256, runs=tmp_path / "b", **common)
    with pytest.raises(Damaged, match="is loaded with config=..."):
        whorl.resume(part.path, 512)
    with pytest.raises(BadInput, match="was started with another config"):
        whorl.resume(part.path, 512, config=PPOConfig(feed=Mine(), hidden=(9,)))
    whorl.resume(part.path, 512, quiet=True, config=config)
    assert fingerprint(part.path) == fingerprint(whole.path)


def test_an_agent_takes_feeds_of_its_kind_only():
    with pytest.raises(BadInput, match="feed must be Rollouts or a kind of it, got Replay"):
        build("ppo", "CartPole-v1", PPOConfig(feed=Replay()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update({"mask": torch.ones(r.batch_size)}), "'mask' has dtype torch.float32, expected torch.bool"),
        (lambda r: r.update({"weight": torch.zeros(r.batch_size)}), "weight is written by the buffer that draws"),
        (lambda r: r["observation"][3, 2].fill_(float("nan")), "observation of row 3, lane 2 is not finite"),
        (lambda r: r["action"].fill_(2), "actions count from 0 to 1, 2 to 2 came"),
        (
            lambda r: r.update({"observation": r["observation"][..., :3]}),
            r"observation is torch.float32 \[.*3\], its space wants",
        ),
    ],
)
def test_data_is_held_to_its_spaces(change, message, recorded):
    rows = recorded.rows.clone()
    change(rows)
    with pytest.raises((BadInput, whorl.batch.BatchError), match=message):
        Dataset(rows, recorded.observation_space, recorded.action_space)


def test_a_run_goes_on_with_the_same_data_only(recorded, tmp_path):
    config = DQNConfig(feed=Offline(batch_size=16), hidden=(8,))
    run = whorl.train("dqn", data=recorded, config=config, total_steps=100, runs=tmp_path, quiet=True)
    rows = recorded.rows.clone()
    rows["next"]["reward"][0] += 1
    other = Dataset(rows, recorded.observation_space, recorded.action_space)
    with pytest.raises(BadInput, match="is not what it was when this state was saved"):
        whorl.resume(run.path, 200, quiet=True, data=other)
    with pytest.raises(BadInput, match="num_envs, video_every does nothing where an agent learns from data"):
        whorl.train("dqn", data=recorded, config=config, num_envs=3, video_every=1, runs=tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("keep_checkpoints", 0, "keep_checkpoints must be at least 1, or 'all', got 0"),
        ("total_steps", "x", "total_steps must be a whole number, got 'x'"),
        ("threads", None, "threads must be a whole number, got None"),
    ],
)
def test_what_stands_in_a_run_folder_is_held_to_its_bounds(key, value, message, tmp_path):
    run = whorl.train("random", "CartPole-v1", total_steps=256, eval_every=0, runs=tmp_path, quiet=True)
    file = run.path / "config.json"
    data = json.loads(file.read_text())
    file.write_text(json.dumps(data | {key: value}))
    with pytest.raises(BadInput, match=message):
        whorl.resume(run.path, 512)
    del data[key]
    file.write_text(json.dumps(data))
    with pytest.raises(Damaged, match=key):
        whorl.resume(run.path, 512)


def test_a_run_remembers_its_feed(tmp_path):
    """Sequences in the folder of an agent whose default is Replay."""
    run = whorl.train(
        "dqn", "CartPole-v1", config=DQNConfig(feed=SEQUENCES["uniform"], hidden=(8,), memory="gru"), num_envs=2, total_steps=200,
        eval_every=0, runs=tmp_path, quiet=True,
    )  # fmt: skip
    assert whorl.resume(run.path, 300, quiet=True).config.feed == SEQUENCES["uniform"]
    assert isinstance(whorl.build("dqn", "CartPole-v1").agent.config.feed, Replay)
