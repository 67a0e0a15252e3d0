"""Runs whose environments are stepped by samplers: what is logged, said and resumed, and what is refused before anything is written."""

import json

import gymnasium
import pytest
import torch

import whorl
from whorl.buffers.sum_tree import SumTree
from whorl.errors import BadInput, Incompatible

SMALL = {"num_envs": 2, "eval_every": 0, "quiet": True, "logger": "none", "collector": "async", "log_every": 32}


FEED = {"steps": 16, "batch_size": 8, "replay_ratio": 0.25, "warmup": 32, "capacity": 64, "prioritized": True}


@pytest.mark.parametrize("agent", ["dqn", "rainbow"])
def test_the_replay_ratio_asked_comes_and_priorities_of_rows_that_are_gone_are_ignored(agent, tmp_path):
    """The ring of 64 rows wraps several times."""
    feed = {**FEED, "n_step": 3}
    run = whorl.train(agent, "CartPole-v1", total_steps=512, feed=feed, hidden=(8,), runs=tmp_path, **SMALL)
    buffer, metrics = run.parts.buffer, run.metrics()
    assert (buffer.added, buffer.drawn) == (512, 120)  # (512 - 32) / 4
    assert metrics["train/replay_ratio"][-1] == 0.25
    assert max(metrics["time/version_lag"]) <= 1
    tree = buffer.sampler.priorities.tree
    again = SumTree(tree.size)
    again.set(torch.arange(tree.size), tree.leaves)
    assert torch.equal(tree.nodes, again.nodes) and tree.total > 0
    oldest = torch.arange(2)  # overwritten long ago
    buffer.feedback(oldest, torch.full((2,), 1e6))
    assert torch.equal(tree.nodes, again.nodes)


def test_a_resumed_run_says_what_is_not_promised(tmp_path):
    class Heard(whorl.Logger):
        def message(self, text):
            heard.append(text)

    heard: list[str] = []
    run = whorl.train("dqn", "CartPole-v1", total_steps=128, feed=FEED, hidden=(8,), runs=tmp_path, **SMALL)
    config = json.loads((run.path / "config.json").read_text())
    assert (config["collector"], config["samplers"]) == ("async", 1)
    run = whorl.resume(run.path, total_steps=192, loggers=[Heard()], quiet=True)
    assert (run.steps, run.parts.buffer.drawn) == (192, 40)
    assert "asynchronous samplers: no two runs are equal" in " ".join(heard)
    assert any(
        text.startswith("the samplers keep their environments to themselves: fresh episodes begin here")
        for text in heard
    )


class Own(gymnasium.Wrapper):
    pass


@pytest.mark.parametrize(
    ("agent", "options", "kind", "said"),
    [
        ("dqn", {}, Incompatible, "feed.steps = 1 makes short ones: use feed.steps = 16 or more"),
        ("td", {}, Incompatible, "feed = Stream with unit 'step' is fed otherwise"),
        ("a3c", {}, Incompatible, "feed = Shared with unit 'step' is fed otherwise"),
        ("reinforce", {}, Incompatible, "feed = Rollouts with unit 'episode' is fed otherwise"),
        ("ppo", {"workers": 2}, Incompatible, "leave workers = 2 out, and use more samplers"),
        ("ppo", {"samplers": 3}, BadInput, "samplers = 3, and there are 2 environments to share"),
        ("ppo", {"collector": "serial", "samplers": 2}, BadInput, "samplers = 2 does nothing with collector = 'serial'"),
        ("ppo", {"collector": "serial", "synchronous": True}, BadInput, "synchronous = True does nothing with collector"),
        ("ppo", {"transforms": ["running_normalize"]}, Incompatible, "not what their environments learn"),
    ],
)  # fmt: skip
def test_what_samplers_cannot_do_is_refused_before_anything_is_written(agent, options, kind, said, tmp_path):
    env = "GridWorld-v0" if agent == "td" else "CartPole-v1"
    with pytest.raises(kind, match=said):
        whorl.train(agent, env, runs=tmp_path / "runs", **{**SMALL, **options})
    assert not (tmp_path / "runs").exists()


def test_an_environment_object_is_refused(tmp_path):
    options = {name: value for name, value in SMALL.items() if name != "num_envs"}
    with pytest.raises(Incompatible, match="collector = 'async' makes environments of its own"):
        whorl.train("ppo", Own(gymnasium.make("CartPole-v1")), runs=tmp_path / "runs", **options)
    assert not (tmp_path / "runs").exists()
