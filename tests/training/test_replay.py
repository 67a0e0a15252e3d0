"""Runs of off-policy agents: what is refused before anything is written, what is drawn, and rows that a checkpoint lost."""

import json

import pytest
import torch

import whorl
from tests.training.fingerprint import CLOCK
from whorl.agents.sac import SAC, SACConfig
from whorl.collectors.serial import SerialCollector
from whorl.collectors.stream import StreamCollector
from whorl.errors import BadInput, Incompatible, NotFinite
from whorl.feeds import Replay
from whorl.functional.streams import stream
from whorl.options import override
from whorl.training import checkpoint
from whorl.training.buffers import new_buffer
from whorl.training.build import build

SMALL = {"batch_size": 8, "capacity": 400, "replay_ratio": 0.1, "warmup": 50}

REFUSED = [
    ({"capacity": 10**12}, r"needs .* bytes .* but memory has .* available. Use a smaller capacity, or storage=\"memmap\""),
    ({"capacity": 10**12, "storage": "memmap"}, r"needs .* bytes .* but the disk of .* free. Use a smaller capacity"),
    ({"capacity": 10, "warmup": 0, "n_step": 4}, r"feed.n_step = 4 is longer than the 2 rows that each of 4 environments has"),
    ({"capacity": 3}, r"feed.n_step = 1 is longer than the 0 rows that each of 4 environments has"),
    ({"capacity": 400, "warmup": 500}, r"feed.warmup = 500 is more than feed.capacity = 400"),
    ({"alpha": -0.1}, r"feed.alpha must be from 0 to 1, got -0.1"),
    ({"alpha": float("nan")}, r"feed.alpha must be from 0 to 1, got nan"),
    ({"beta": 1.5}, r"feed.beta must be from 0 to 1, got 1.5"),
    ({"beta_steps": -1}, r"feed.beta_steps must be at least 0, got -1"),
    ({"replay_ratio": 0.0}, r"feed.replay_ratio must be from 1e-06 to 1e\+06, got 0.0"),
    ({"alpha": 0.7}, r"feed.alpha = 0.7 does nothing without feed.prioritized"),
    ({"relabel_fraction": 0.5}, r"feed.relabel_fraction = 0.5 does nothing without feed.relabel"),
    ({"prefetch": 2, "replay_ratio": 0.25}, r"feed.prefetch = 2 draws ahead .* never more than one"),
    ({"batch_size": 0}, r"feed.batch_size must be at least 1, got 0"),
    ({"steps": 0}, r"feed.steps must be at least 1, got 0"),
    ({"n_step": 0}, r"feed.n_step must be at least 1, got 0"),
    ({"relabel": "future", "n_step": 3}, r"feed.relabel changes the goal of one row, but feed.n_step = 3"),
    ({"relabel_fraction": 2.0}, r"feed.relabel_fraction must be from 0 to 1, got 2.0"),
]  # fmt: skip


@pytest.mark.parametrize(("feed", "message"), REFUSED)
def test_refused_before_anything_is_written(feed, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        whorl.train("dqn", "CartPole-v1", feed=feed, num_envs=4, total_steps=100, runs=tmp_path, quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_hindsight_needs_an_environment_with_goals(tmp_path):
    with pytest.raises(Incompatible, match="does not say how a goal is rewarded"):
        whorl.train("dqn", "CartPole-v1", feed={"relabel": "future"}, total_steps=100, runs=tmp_path, quiet=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("env", ["CartPole-v1", "BitFlipping8-v0"])
def test_frames_are_for_stacks(env, tmp_path):
    message = r"must be \[stack, height, width\] or \[stack, numbers\], those of .* are .*; use storage='memory', or stack frames"
    with pytest.raises(Incompatible, match=message):
        whorl.train("dqn", env, feed={"storage": "frames"}, total_steps=100, runs=tmp_path, quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_a_memmap_run_keeps_checkpoints(tmp_path):
    with pytest.raises(BadInput, match="'memmap' keeps its rows with the checkpoints, and checkpoint_every is 0"):
        whorl.train(
            "dqn",
            "CartPole-v1",
            feed={"storage": "memmap"},
            total_steps=9,
            checkpoint_every=0,
            runs=tmp_path,
            quiet=True,
        )
    assert list(tmp_path.iterdir()) == []


def test_the_slack_of_rare_checkpoints_counts_as_memory(tmp_path):
    with pytest.raises(BadInput, match="needs .* bytes .* but memory has"):
        whorl.train("dqn", "CartPole-v1", total_steps=100, checkpoint_every=10**12, runs=tmp_path, quiet=True)
    assert list(tmp_path.iterdir()) == []


def test_the_size_of_the_buffer_is_said(tmp_path, capsys):
    whorl.train("dqn", "CartPole-v1", config=config(), num_envs=4, total_steps=60, eval_every=0, runs=tmp_path)
    assert "replay: 400 rows, 0 MiB in memory when full" in capsys.readouterr().err


def test_epsilon_0_at_the_start_does_not_freeze_the_actions(tmp_path):
    """Random numbers are drawn for thousands of steps at once, when epsilon may still be 0."""
    fields = override(config(), {"epsilon": 0.0, "epsilon_min": 1.0, "epsilon_steps": 10})
    parts = build("dqn", "CartPole-v1", fields, num_envs=4)
    actions = []
    for _ in range(100):
        rollout = parts.agent.prepare(parts.collector.collect())
        actions += rollout["action"].flatten().tolist()
    assert 0.35 < sum(actions[80:]) / len(actions[80:]) < 0.65


@pytest.mark.parametrize("agent", ["td3", "redq", "crossq"])
def test_metrics_after_a_resume_are_those_of_an_unbroken_run(agent, tmp_path):
    """The actor has its turn every `policy_delay` updates, and losses are logged until there are others."""
    feed = {"batch_size": 8, "capacity": 1000, "replay_ratio": 0.5, "warmup": 20}
    common = {
        "hidden": (8,),
        "policy_delay": 30,
        "feed": feed,
        "num_envs": 1,
        "eval_every": 0,
        "log_every": 1,
        "quiet": True,
    }
    whole = whorl.train(agent, "Pendulum-v1", total_steps=130, checkpoint_every=45, runs=tmp_path / "a", **common)
    part = whorl.train(agent, "Pendulum-v1", total_steps=90, checkpoint_every=45, runs=tmp_path / "b", **common)
    whorl.resume(part.path, total_steps=130, quiet=True)
    logged = [[json.loads(line) for line in (run.path / "metrics.jsonl").open()] for run in (whole, part)]
    rows = [[{k: v for k, v in row.items() if k not in CLOCK} for row in run] for run in logged]
    assert rows[0] == rows[1] and "train/actor_loss" in rows[0][-1]


def test_a_prioritized_nan_is_named_and_can_be_mended():
    parts = build("dqn", "CartPole-v1", config(prioritized=True), num_envs=4)
    for _ in range(20):
        parts.buffer.add(parts.agent.prepare(parts.collector.collect()))
    good = parts.agent.target.module.advantage[0].weight.clone()
    parts.agent.target.module.advantage[0].weight.fill_(float("nan"))
    with pytest.raises(NotFinite, match="the loss became NaN or infinite"):
        parts.agent.learn(parts.buffer)
    parts.agent.target.module.advantage[0].weight.copy_(good)
    for _ in range(10):
        parts.buffer.add(parts.agent.prepare(parts.collector.collect()))
    assert parts.agent.learn(parts.buffer)["loss"].isfinite()


def test_a_memmap_needs_a_folder(tmp_path):
    parts = build("dqn", "CartPole-v1", config(storage="memmap"), buffer=False)
    with pytest.raises(BadInput, match="storage='memmap' keeps its rows in a folder"):
        new_buffer(parts.agent, parts.env)
    assert len(new_buffer(parts.agent, parts.env, folder=tmp_path / "rows")) == 0


def config(**feed):
    return override(whorl.training.catalog.agent_class("dqn").Config(), {"feed": SMALL | feed})


@pytest.mark.parametrize(("steps", "kind"), [(1, StreamCollector), (5, SerialCollector)])
def test_one_step_at_a_time_or_several(steps, kind):
    parts = build("dqn", "CartPole-v1", config(steps=steps), num_envs=3)
    assert type(parts.collector) is kind
    assert parts.collector.collect().batch_size == (steps, 3)


def test_updates_are_those_of_the_replay_ratio(tmp_path):
    run = whorl.train(
        "dqn", "CartPole-v1", config=config(), num_envs=4, total_steps=400, eval_every=0, runs=tmp_path, quiet=True
    )
    assert run.agent.updates == 35  # 0.1 of the 350 steps after the warm-up
    assert int(run.agent.env_steps) == run.steps == 400


def test_the_noise_of_an_update_is_a_stream_of_its_own():
    parts = build("sac", "Pendulum-v1", SACConfig(hidden=(8,)), seed=3)
    agent: SAC = parts.agent
    agent.updates = 7
    generator = torch.Generator().manual_seed(stream(3, "learning", 7))
    first = agent.noise((4, 2))
    assert torch.equal(first, torch.randn(4, 2, generator=generator))
    assert torch.equal(first, agent.noise((4, 2)))
    agent.updates += 1
    assert not torch.equal(first, agent.noise((4, 2)))
    assert ((agent.noise((1000,), "uniform") >= 0) & (agent.noise((1000,), "uniform") < 1)).all()


def test_updates_are_counted_on_after_a_resume(tmp_path):
    run = whorl.train(
        "dqn", "CartPole-v1", config=config(), num_envs=4, total_steps=400, eval_every=0, runs=tmp_path, quiet=True
    )
    again = whorl.resume(run.path, total_steps=600, quiet=True)
    assert (run.agent.updates, again.agent.updates) == (35, 55)


def test_a_finished_run_with_a_wrapped_ring_goes_on_like_one_that_was_never_stopped(tmp_path):
    common = {"config": config(prioritized=True, n_step=3), "num_envs": 4, "eval_every": 0, "quiet": True}
    whole = whorl.train("dqn", "CartPole-v1", total_steps=1_200, checkpoint_every=100, runs=tmp_path / "a", **common)
    part = whorl.train("dqn", "CartPole-v1", total_steps=800, checkpoint_every=100, runs=tmp_path / "b", **common)
    again = whorl.resume(part.path, total_steps=1_200, quiet=True)
    a, b = whole.agent.state_dict(), again.agent.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_rows_that_were_overwritten_are_said_and_not_drawn(tmp_path, capsys):
    """The two newest checkpoints are damaged: the rows of the third were partly overwritten since."""
    run = whorl.train(
        "dqn", "CartPole-v1", config=config(), num_envs=4, total_steps=1_600, checkpoint_every=100, eval_every=0,
        runs=tmp_path, quiet=True,
    )  # fmt: skip
    steps = sorted((run.path / "checkpoints").glob("step_*"), key=lambda path: int(path.name.removeprefix("step_")))
    for path in steps[1:]:
        (path / "state.json").write_text("{}")
    (run.path / "eval.json").unlink()
    again = whorl.resume(run.path)
    assert "rows of the replay buffer that this checkpoint used have been overwritten since" in capsys.readouterr().err
    assert again.steps == 1_600


def test_a_checkpoint_does_not_hold_the_rows(tmp_path):
    run = whorl.train(
        "sac", "Pendulum-v1", total_steps=1_500, eval_every=0, checkpoint_every=500, runs=tmp_path, quiet=True,
        config=SACConfig(hidden=(8,), feed=Replay(batch_size=8, capacity=100_000, replay_ratio=0.01, warmup=100)),
    )  # fmt: skip
    checkpoint = (run.path / "checkpoints" / "last").resolve()
    assert sum(file.stat().st_size for file in checkpoint.iterdir()) < 100_000
    assert json.loads((checkpoint / "state.json").read_text())["buffer"]["storage"]["count"] == [1500]
    rows = run.path / "replay" / "rows.bin"
    assert rows.stat().st_blocks * 512 < 1_000_000 < rows.stat().st_size  # a hole where no row was written yet


class EndsAt(whorl.Logger):
    """A kill in the place of a row of metrics."""

    def log(self, step, metrics):
        raise SystemExit(9)


def test_a_run_that_is_killed_before_a_checkpoint_knows_its_rows(tmp_path):
    options = {
        "total_steps": 64,
        "num_envs": 2,
        "log_every": 16,
        "eval_every": 0,
        "checkpoint_every": 32,
        "quiet": True,
        "hidden": (4,),
    }
    options["feed"] = {"capacity": 64, "warmup": 8, "batch_size": 4, "storage": "memmap"}
    with pytest.raises(SystemExit):
        whorl.train("dqn", "CartPole-v1", runs=tmp_path / "cut", loggers=[EndsAt()], **options)
    whole = whorl.train("dqn", "CartPole-v1", runs=tmp_path / "whole", **options)
    resumed = whorl.resume(tmp_path / "cut" / "last", quiet=True)
    ours, theirs = (checkpoint.load(run.path / "checkpoints" / "last")[0]["policy"] for run in (resumed, whole))
    assert all(torch.equal(x, theirs[name]) for name, x in ours.items())


def test_stacks_of_vectors_may_be_kept_frame_by_frame(tmp_path):
    feed = {"warmup": 20, "capacity": 1000, "batch_size": 8, "n_step": 2, "replay_ratio": 0.1}
    options = {"transforms": [{"name": "stack_frames", "count": 3}], "hidden": (8,), "num_envs": 2, "update": "eager"}
    one, two = (
        whorl.train(
            "dqn",
            "CartPole-v1",
            total_steps=200,
            feed=feed | {"storage": storage},
            eval_every=0,
            runs=tmp_path,
            quiet=True,
            **options,
        )
        for storage in ("frames", "memory")
    )
    index = torch.arange(200)
    frames, memory = (run.parts.buffer.storage.read(index) for run in (one, two))
    for key in ("observation", "action"):
        assert torch.equal(frames[key], memory[key])
    assert torch.equal(frames["next"]["observation"], memory["next"]["observation"])
    mine, theirs = one.agent.state_dict(), two.agent.state_dict()
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)  # sums go along other strides
