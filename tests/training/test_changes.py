"""What a run begins with and what a resume changes: other weights, other settings."""

from __future__ import annotations

import json

import pytest
import torch

import whorl
from tests.cases import each
from whorl.apps.cli import main
from whorl.errors import BadInput
from whorl.feeds import Rollouts

QUICK = {"total_steps": 400, "num_envs": 2, "checkpoint_every": 200, "eval_every": 0, "quiet": True}
PPO = {
    "hidden": (8,),
    "feed": {"steps": 50, "epochs": 1},
    "normalize_observation": True,
    "learning_rate": 3e-4,
    "anneal_steps": 0,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return whorl.train("ppo", "CartPole-v1", runs=tmp_path_factory.mktemp("runs"), **QUICK, **PPO)


class Seen:
    """A hook that keeps the weights with which learning begins."""

    def begin(self, run):
        self.weights = {name: value.clone() for name, value in run.agent.state_dict().items()}

    def __call__(self, rollout, metrics):
        pass


def test_a_run_begins_with_the_weights_and_statistics_of_another(run, tmp_path):
    for source in each([run, run.path, str(run.path)]):
        seen = Seen()
        new = whorl.train("ppo", "CartPole-v1", runs=tmp_path, init_from=source, hooks=[seen], seed=5, **QUICK, **PPO)
        for name, value in run.agent.state_dict().items():
            assert torch.equal(seen.weights[name], value) or not value.is_floating_point(), name
        assert seen.weights["env_steps"] == 0  # its counters begin anew
        assert new.settings.init_from == str(run.path) and new.steps == 400
    for options, message in each([
        ({"agent": "ppo", "env": "Acrobot-v1"}, "in .*, here .*: the spaces or the networks differ"),
        ({"agent": "ppo", "hidden": (9,)}, "the spaces or the networks differ"),
        ({"agent": "td"}, "keeps traces of its episodes"),
        ({"agent": "ppo", "init_from": "nowhere"}, "not a run folder"),
        ({"agent": "ppo", "init_from": 3}, "the folder of one, got int"),
    ]):  # fmt: skip
        config = {} if options["agent"] == "td" else PPO
        with pytest.raises(BadInput, match=message):
            whorl.train(
                **{"env": "CartPole-v1", "init_from": run.path, "runs": tmp_path / "x", **QUICK, **config, **options}
            )
    assert not (tmp_path / "x").exists()


def test_a_resume_changes_what_may_change_and_writes_it_down(run, capfd):
    again = whorl.resume(run.path, 600, learning_rate=2e-3, discount=0.9, feed={"epochs": 2}, log_every=100)
    said = capfd.readouterr().err
    for line in (
        "learning_rate: 0.0003 -> 0.002",
        "discount: 0.99 -> 0.9",
        "feed.epochs: 1 -> 2",
        "log_every: 2000 -> 100",
    ):
        assert f"changed from here on: {line}" in said
    written = json.loads((run.path / "config.json").read_text())
    assert (
        written["config"]["learning_rate"] == 2e-3
        and written["config"]["feed"]["epochs"] == 2
        and written["log_every"] == 100
    )
    assert float(again.agent.optimizer.param_groups[0]["lr"]) == pytest.approx(2e-3)
    assert whorl.resume(run.path, 700, quiet=True).config.learning_rate == 2e-3  # and stays so
    for options, message in each([
        ({"hidden": (16,)}, "hidden changes the shape of what was learned"),
        ({"log_std": 0.5}, "there is no argument 'log_std'|has no option 'log_std'"),
        ({"seed": 2}, "seed cannot change on the way"),
        ({"num_envs": 4}, "num_envs cannot change on the way"),
        ({"feed": {"unit": "episode"}}, "feed.unit cannot change on the way"),
        ({"learning_rate": "fast"}, "learning_rate must be a number"),
        ({"gamma": 0.9}, "what others call gamma is discount"),
    ]):  # fmt: skip
        before = (run.path / "config.json").read_bytes()
        with pytest.raises(BadInput, match=message):
            whorl.resume(run.path, 900, quiet=True, **options)
        assert (run.path / "config.json").read_bytes() == before


def test_what_only_says_how_learning_begins_does_not_change(tmp_path):
    small = {"hidden": (8,), "feed": {"batch_size": 8, "capacity": 400, "warmup": 50, "replay_ratio": 0.1}}
    path = whorl.train("sac", "Pendulum-v1", runs=tmp_path, **QUICK | {"total_steps": 200}, **small).path
    for options, message in each([
        ({"temperature": 0.5}, "temperature says how learning begins"),
        ({"feed": {"capacity": 500}}, "feed.capacity cannot change on the way.*may change: batch_size, replay_ratio"),
        ({"checkpoint_every": 50}, "checkpoint_every cannot change"),
    ]):  # fmt: skip
        with pytest.raises(BadInput, match=message):
            whorl.resume(path, 300, quiet=True, **options)
    assert whorl.resume(path, 300, quiet=True, target_rate=0.1, feed={"batch_size": 4}).steps == 300


def test_another_replay_ratio_counts_from_here_on(tmp_path):
    small = {"hidden": (8,), "feed": {"batch_size": 8, "capacity": 400, "warmup": 50, "replay_ratio": 0.1}}
    run = whorl.train("sac", "Pendulum-v1", runs=tmp_path, **QUICK | {"total_steps": 200}, **small)
    assert run.agent.updates == 15
    assert whorl.resume(run.path, 250, quiet=True, feed={"replay_ratio": 1.0}).agent.updates == 15 + 50
    assert whorl.resume(run.path, 300, quiet=True, feed={"replay_ratio": 0.2}).agent.updates == 15 + 50 + 10


def test_threads_of_the_process_are_no_change_of_the_run(tmp_path):
    """Initial weights come from a decomposition whose bits depend on them; a run has its own number."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        path = whorl.train("reinforce", "CartPole-v1", runs=tmp_path, **QUICK, hidden=(64, 64)).path
        again = whorl.resume(path, 4000, quiet=True, learning_rate=1e-4)
    finally:
        torch.set_num_threads(before)
    assert again.changes.said[1:] == ("learning_rate: 0.003 -> 0.0001",)


def test_a_field_of_a_feed_is_named_with_a_dot(tmp_path):
    options = QUICK | {"hidden": (8,), "feed.epochs": 1}
    run = whorl.train("ppo", "CartPole-v1", runs=tmp_path, feed={"minibatches": 2}, **options, **{"feed.steps": 50})
    assert (run.config.feed.steps, run.config.feed.epochs, run.config.feed.minibatches) == (50, 1, 2)
    assert whorl.resume(run, 500, quiet=True, **{"feed.epochs": 2}).config.feed.epochs == 2
    for fields, message in each([
        ({"feed.step": 5}, "Rollouts has no option 'step'; did you mean 'steps'"),
        ({"feed": Rollouts(), "feed.steps": 5}, "feed.steps is a field of feed, which is given whole beside it"),
        ({"feed.steps": 5, "feed": Rollouts()}, "feed is given whole, and so are fields of it"),
    ]):  # fmt: skip
        with pytest.raises(BadInput, match=message):
            whorl.train("ppo", "CartPole-v1", runs=tmp_path / "x", **QUICK, **fields)


def test_a_resume_on_the_command_line_changes_the_same(tmp_path, capfd):
    run = whorl.train("ppo", "CartPole-v1", runs=tmp_path, **QUICK, **PPO)
    words = [
        "--learning-rate",
        "1e-4",
        "--feed.epochs=2",
        "--no-normalize-advantage",
        "--log-every",
        "100",
        "--eval-episodes",
        "3",
    ]
    main(["resume", "--total-steps", "600", str(run.path), *words])
    said = [line.partition(": ")[2] for line in capfd.readouterr().err.splitlines() if "changed from here on" in line]
    expected = [
        "total_steps: 400 -> 600",
        "eval_episodes: 100 -> 3",
        "log_every: 2000 -> 100",
        "learning_rate: 0.0003 -> 0.0001",
    ]
    assert said == [*expected, "normalize_advantage: True -> False", "feed.epochs: 1 -> 2"]
    main(["resume", str(run.path), "--total-steps", "800", "--agent.discount", "0.9", "--quiet"])
    written = json.loads((run.path / "config.json").read_text())
    assert (
        written["config"]["discount"] == 0.9
        and written["config"]["learning_rate"] == 1e-4
        and written["log_every"] == 100
    )
    for words, message in each([
        (["--seed", "3"], "seed cannot change on the way"),
        (["--gamma", "0.9"], "what others call gamma is --agent.discount"),
        (["--hidden", "9"], "hidden changes the shape"),
        (["--learning-rte", "0.9"], "learning-rte"),
    ]):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            main(["resume", str(run.path), "--total-steps", "1000", *words])
        captured = capfd.readouterr()
        assert stop.value.code == 2 and message in captured.err + captured.out
