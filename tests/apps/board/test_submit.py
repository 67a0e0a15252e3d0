"""A run becomes an entry: what it claims is what the run's folder and the held-out episodes say."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import gymnasium
import imageio.v3 as imageio
import numpy as np
import pytest
import torch

import whorl
from tests.training import run_folders
from whorl.apps.board import rank
from whorl.apps.board import submit as submit_module
from whorl.apps.board.entry import entries, read
from whorl.apps.board.forms import EPISODES, HELD_OUT
from whorl.apps.board.page import export
from whorl.apps.board.submit import FRAMES, SIDE, submit
from whorl.apps.board.verify import verify
from whorl.envs.make import EnvKind, make_env
from whorl.errors import BadInput
from whorl.training import checkpoint
from whorl.training.evaluate import Evaluation, evaluate
from whorl.transforms import chain
from whorl.transforms.transform import Transform


def train(agent, env, folder, **options):
    given = {"total_steps": 600, "num_envs": 8, "eval_episodes": 8, "quiet": True} | options
    return whorl.train(agent, env, runs=folder / "runs", **given)


@pytest.fixture
def copy(run, tmp_path):
    """The same run, to be changed."""
    return shutil.copytree(run.path, tmp_path / "run", symlinks=True)


@pytest.fixture
def scored(made, monkeypatch):
    """What is submitted is not played again: its score is known, and it has no pictures."""
    score = Evaluation(np.array(made.returns), np.array(made.lengths))
    monkeypatch.setattr(submit_module, "examine", lambda policy, env_id: (score, made.reward_threshold))
    monkeypatch.setattr(submit_module, "pictures", lambda policy, env_id, score: {})


def rows(path, change):
    """Rewrites `metrics.jsonl`: each row as `change(row)`."""
    found = [change(json.loads(line)) for line in (path / "metrics.jsonl").read_text().splitlines()]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    return found


def test_the_score_is_that_of_the_best_checkpoint_on_held_out_episodes(run, made):
    policy = whorl.load(run.path, "best").policy
    score = evaluate(policy, make_env("CartPole-v1", EPISODES), EPISODES, HELD_OUT)
    assert made.returns == score.returns.tolist() and made.lengths == score.lengths.tolist()
    assert made.mean == pytest.approx(score.returns.mean(), rel=1e-12)
    assert made.std == pytest.approx(score.returns.std(), rel=1e-12)
    assert len(set(made.returns)) > 10, "episodes of different seeds"
    assert made.which == "best"
    best = run.path / "checkpoints" / "best" / "policy.safetensors"
    assert (made.path / "policy.safetensors").read_bytes() == best.read_bytes()


def test_the_rest_is_what_the_run_folder_says(run, made):
    config, meta = (json.loads((run.path / name).read_bytes()) for name in ("config.json", "meta.json"))
    assert made.config == config["config"] and (made.env, made.agent) == ("CartPole-v1", "ppo")
    assert made.settings["seed"] == 3 and made.settings == {name: config[name] for name in made.settings}
    assert made.versions == made.evaluated["versions"] == meta["versions"]
    assert made.machine == {name: meta[name] for name in ("cpu", "cpu_count", "system")}
    assert meta["host"] not in json.dumps(json.loads((made.path / "entry.json").read_bytes())["machine"])
    assert (made.steps, made.reward_threshold) == (1000, 475.0)
    assert made.created.endswith("Z") and made.commit == meta["commit"]
    logged = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    evaluations = [row for row in logged if "eval/mean_reward" in row]
    assert len(evaluations) == 5
    assert made.curve == {
        "step": [row["step"] for row in evaluations],
        "mean": [row["eval/mean_reward"] for row in evaluations],
        "std": [row["eval/std_reward"] for row in evaluations],
        "seconds": [row["time/seconds"] for row in evaluations],
    }
    last = logged[-1]
    assert made.seconds == last["time/seconds"] and made.steps_per_second == last["step"] / last["time/seconds"]


def test_the_same_run_gives_the_same_entry_once(run, made, tmp_path):
    assert submit(run.path, run.path / "board", made.author, made.note) == made
    assert entries(run.path / "board") == ([made], [])
    assert submit(run.path, tmp_path, "Grace").id != made.id


def test_another_process_plays_the_same_episodes(run, made, tmp_path):
    code = """
import sys
from whorl.apps.board.page import export
from whorl.apps.board.submit import submit
from whorl.apps.board.verify import verify
print(verify(sys.argv[1]).confirmed, submit(*sys.argv[2:]).id)
"""
    command = [sys.executable, "-c", code, made.path, run.path, tmp_path, made.author, made.note]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["True", made.id]


def test_the_pictures_are_of_the_best_and_of_a_typical_episode(made):
    assert made.gif_returns == {"best": max(made.returns), "typical": sorted(made.returns)[(EPISODES - 1) // 2]}
    for name, ret in made.gif_returns.items():
        frames = imageio.imread(made.path / f"{name}.gif", index=None)
        every = -(-int(ret) // FRAMES)  # CartPole pays 1 a step
        assert 1 < len(frames) <= -(-int(ret) // every) and max(frames.shape[1:3]) <= SIDE


def test_episodes_are_played_again_exactly_where_gymnasium_steps_and_the_ice_is_slippery(tmp_path):
    run = train("random", "FrozenLake-v1", tmp_path, total_steps=64, num_envs=2, eval_every=0)
    made = submit(run.path, tmp_path / "board")
    assert made.gif_returns == {"best": max(made.returns), "typical": sorted(made.returns)[(EPISODES - 1) // 2]}
    assert made.gif_returns["best"] == 1.0 > made.mean
    assert made.which == "last" and made.curve == {"step": [], "seconds": [], "mean": [], "std": []}
    assert made.steps_to_threshold is None and made.steps == 64


def test_options_of_the_environment_stand_in_the_entry_and_are_a_world_of_their_own(tmp_path):
    given = {"total_steps": 64, "num_envs": 2, "eval_every": 0}
    board, icy = tmp_path / "board", train("random", "FrozenLake-v1", tmp_path, **given)
    firm = train("random", "FrozenLake-v1", tmp_path, env_kwargs={"is_slippery": False}, **given)
    made, plain = submit(firm.path, board), submit(icy.path, board)
    assert made.env_kwargs == {"is_slippery": False} and made.world == "FrozenLake-v1 is_slippery=false"
    assert "env_kwargs" not in plain.settings and plain.world == "FrozenLake-v1"
    assert made.mean > 2 * plain.mean and made.setting != plain.setting and made.gif_returns is not None
    assert verify(made.path).confirmed
    assert {world: [row.env for row in table] for world, table in rank.rows([made, plain]).items()} == {
        "FrozenLake-v1": ["FrozenLake-v1"], "FrozenLake-v1 is_slippery=false": ["FrozenLake-v1 is_slippery=false"],
    }  # fmt: skip
    page = export(board, tmp_path / "pages")
    assert "FrozenLake-v1 is_slippery=false" in (page / "index.html").read_text()
    assert "FrozenLake-v1 is_slippery=false" in (page / "run" / f"{made.id}.html").read_text()


class Counted(Transform):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))


def test_wrappers_and_texts_that_name_something_are_refused(tmp_path, monkeypatch):
    given = {"total_steps": 64, "num_envs": 2, "eval_every": 0}
    wrapped = train("random", "FrozenLake-v1", tmp_path, wrappers=[gymnasium.Wrapper], **given)
    run = train("random", "FrozenLake-v1", tmp_path, env_kwargs={"map_name": "4x4"}, **given)
    run_folders.change(run.path, env_kwargs={"map_name": "../4x4"})
    monkeypatch.setattr(chain, "TRANSFORMS", dict(chain.TRANSFORMS))
    whorl.register_transform("counted", Counted)
    learned = train("random", "FrozenLake-v1", tmp_path, transforms=["counted"], **given)
    for path, message in (
        (wrapped.path, "with wrappers .Wrapper., which are code"),
        (learned.path, r"through transforms that learn \(Counted1.seen\), and an entry holds the policy alone"),
        (run.path, "could name a file or a module"),
    ):
        with pytest.raises(BadInput, match=message):
            submit(path, tmp_path / "board")
    assert not (tmp_path / "board").exists()


def test_an_environment_without_a_picture_has_none(tmp_path):
    run = train("a2c", "ProbeAction-v0", tmp_path)
    made = submit(run.path, tmp_path / "board")
    assert made.gif_returns is made.gif_sha256 is None
    assert sorted(os.listdir(made.path)) == ["curve.json", "entry.json", "policy.safetensors"]
    assert made.reward_threshold is made.steps_to_threshold is None


def test_the_protocol_has_the_time_limit_of_the_environment_not_of_the_run(tmp_path):
    run = train("random", "Pendulum-v1", tmp_path, total_steps=64, eval_every=0, max_episode_steps=10)
    made = submit(run.path, tmp_path / "board")
    assert made.lengths == [200] * EPISODES and made.settings["max_episode_steps"] == 10
    assert verify(made.path).confirmed, "a policy that draws, too"


def test_where_an_environment_sets_no_limit_episodes_are_cut_and_all_of_them_count(tmp_path):
    run = train("random", "CliffWalking-v1", tmp_path, total_steps=64, eval_every=0)
    assert len(submit(run.path, tmp_path / "board").returns) == EPISODES


def test_the_threshold_is_reached_at_the_first_evaluation_that_does(copy, scored, tmp_path):
    scores = iter([100.0, 475.0, 400.0, 500.0, *[300.0] * 50])
    found = rows(copy, lambda row: row | ({"eval/mean_reward": next(scores)} if "eval/mean_reward" in row else {}))
    second = [row for row in found if "eval/mean_reward" in row][1]
    made = submit(copy, tmp_path / "board")
    assert (made.steps_to_threshold, made.seconds_to_threshold) == (second["step"], second["time/seconds"])


def test_a_run_of_before_times_were_written_down(copy, scored, tmp_path):
    rows(copy, lambda row: {name: value for name, value in row.items() if name != "time/seconds"} | {"time/fps": 123.5})
    made = submit(copy, tmp_path / "board")
    assert made.curve["seconds"] is made.seconds is made.seconds_to_threshold is None and made.steps_per_second == 123.5


def test_a_row_that_was_written_half_is_passed_over(copy, made, scored, tmp_path):
    with open(copy / "metrics.jsonl", "a") as file:
        file.write('{"step": 2000, "eval/mean_reward": 4, "time/sec')
    again = submit(copy, tmp_path / "board", made.author, made.note)
    assert again.curve == made.curve and again.seconds == made.seconds


def test_the_policy_is_the_one_that_was_scored_when_best_moves_meanwhile(copy, made, tmp_path, monkeypatch):
    best = (copy / "checkpoints" / "best").resolve()
    other = next(path for path in (copy / "checkpoints").glob("step_*") if path != best)
    examine = submit_module.examine

    def while_it_trains(*arguments):
        checkpoint.mark(copy / "checkpoints", "best", other)
        return examine(*arguments)

    monkeypatch.setattr(submit_module, "examine", while_it_trains)
    again = submit(copy, tmp_path / "board", made.author, made.note)
    assert again.policy_sha256 == made.policy_sha256 and again.returns == made.returns


def test_a_picture_of_another_episode_is_left_out(run):
    policy = whorl.load(run.path, "best").policy
    score, _ = submit_module.examine(policy, EnvKind("CartPole-v1"))
    assert sorted(submit_module.pictures(policy, EnvKind("CartPole-v1"), score)) == ["best", "typical"]
    otherwise = dataclasses.replace(score, returns=score.returns + 1)
    assert submit_module.pictures(policy, EnvKind("CartPole-v1"), otherwise) == {}


def test_a_run_that_was_stopped_counts_with_the_steps_it_took(copy, scored, tmp_path):
    run_folders.change(copy, total_steps=10_000)
    (copy / "eval.json").unlink()
    made = submit(copy, tmp_path / "board")
    assert made.steps == int((copy / "checkpoints" / "last").resolve().name.removeprefix("step_")) < 10_000


def test_a_command_that_would_run_when_it_is_pasted_is_not_shown(copy, scored, tmp_path):
    meta = json.loads((copy / "meta.json").read_bytes())
    for command, shown in (
        ("/opt/venv/bin/whorl train a2c CartPole-v1", "whorl train a2c CartPole-v1"),
        ("train.py --fast", "train.py --fast"),
        ("whorl train a2c 'x\nrm -rf y'", None),
    ):
        (copy / "meta.json").write_text(json.dumps(meta | {"command": command}))
        assert submit(copy, tmp_path / "board").command == shown


def test_a_run_on_a_server_is_scored_in_the_environment_of_that_name_here(made, copy, tmp_path):

    def on(env):
        url = f"http://127.0.0.1:9/{env}"  # nobody answers there, and nobody is asked
        run_folders.change(copy, env=url)
        return submit(copy, tmp_path / "board")

    there = on("CartPole-v1")
    assert (there.env, there.returns, there.setting) == ("CartPole-v1", made.returns, made.setting)
    with pytest.raises(BadInput, match="http://127.0.0.1:9/Acrobot-v1, whose spaces are not those of Acrobot-v1 here"):
        on("Acrobot-v1")
    with pytest.raises(BadInput, match="no environment is called 'Unknown-v0'"):
        on("Unknown-v0")


def test_what_cannot_be_submitted(run, tmp_path):
    board = tmp_path / "board"
    with pytest.raises(BadInput, match="author should be a line of at most 200 characters"):
        submit(run.path, board, "a\nb")
    with pytest.raises(BadInput, match="note should be a line"):
        submit(run.path, board, "Ada", "x" * 201)
    with pytest.raises(BadInput, match="is not a run folder"):
        submit(tmp_path, board)
    own = train("random", make_env("CartPole-v1", 2), tmp_path, num_envs=None, total_steps=64)
    with pytest.raises(BadInput, match="was trained on an environment object .CartPole-v1., with which nobody else"):
        submit(own.path, board)
    none = train("random", "CartPole-v1", tmp_path, total_steps=64, eval_every=0, checkpoint_every=0)
    with pytest.raises(BadInput, match="has no checkpoint to score: let it train with checkpoint_every above 0"):
        submit(none.path, board)
    assert not board.exists()


def test_an_entry_can_be_read_without_torch(made):
    code = "import sys; from whorl.apps.board.entry import read; print(read(sys.argv[1]).id, 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code, made.path], capture_output=True, text=True, check=True)
    assert found.stdout.split() == [made.id, "False"]
    assert np.isfinite(read(made.path).returns).all()
