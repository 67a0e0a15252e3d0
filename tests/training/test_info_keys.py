"""Entries of info that a run asks for: in the batch, in the metrics, in episodes.csv; resumed to the same bits."""

import csv
import math

import gymnasium
import numpy as np
import pytest

import whorl
from tests.training.fingerprint import fingerprint
from whorl.collectors.tally import Tally, text_of, ways_of
from whorl.errors import BadInput, EnvError

SHORT = {"total_steps": 512, "eval_every": 0, "checkpoint_every": 256, "log_every": 1, "quiet": True}


class Telling(gymnasium.Env):
    """Five steps; info says the step's number at every other step, and `success` at the end. A reset says something else."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    said = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {"x": 1000.0, "other": "word"}

    def step(self, action):
        self.t += 1
        info = {"x": self.t} if self.t % 2 else {"other": self.t}
        if self.t == 5:
            info["success"] = True
        if self.said is not None:
            info["x"] = self.said
        return np.zeros(2, np.float32), float(self.t == 5), self.t == 5, False, info


def episodes(run):
    with open(run.path / "episodes.csv", newline="") as file:
        return list(csv.DictReader(file))


ASKED = {"x": "mean", "success": "last", "never": "sum", "discounted_return": "sum", "nonzero_rewards": "sum"}


@pytest.mark.parametrize("agent", ["ppo", "reinforce", "dqn"])
def test_what_is_asked_for_reaches_batch_metrics_and_episodes(tmp_path, agent):
    seen = []
    options = {**SHORT, "num_envs": 2 if agent != "dqn" else 1, "runs": tmp_path, "discount": 0.5}
    run = whorl.train(
        agent, Telling, info_keys=ASKED, hooks=[lambda rollout, _: seen.append(rollout["info"].clone())], **options
    )
    assert sorted(seen[0].keys()) == ["never", "success", "x"]
    steps = np.concatenate([each["x"].numpy().ravel() for each in seen])
    assert set(steps[~np.isnan(steps)]) == {1.0, 3.0, 5.0}  # nothing of a reset
    table = episodes(run)
    assert table and all(
        (row["x"], row["success"], row["never"], row["nonzero_rewards"]) == ("3.0", "1.0", "", "1.0") for row in table
    )
    assert all(float(row["discounted_return"]) == 0.5**4 for row in table)
    columns = run.metrics()
    assert "rollout/never" not in columns and {x for x in columns["rollout/x"] if x is not None} == {3.0}
    assert {x for x in columns["rollout/discounted_return"] if x is not None} == {0.0625}


def test_it_is_resumed_to_the_same_bits_and_changes_no_bit_of_the_rest(tmp_path):
    options = {**SHORT, "num_envs": 2, "feed": {"steps": 64}, "log_every": 300}
    asked = {"info_keys": ["discounted_return", "nonzero_rewards"]}
    plain = whorl.train("ppo", "CartPole-v1", runs=tmp_path / "plain", **options)
    whole = whorl.train("ppo", "CartPole-v1", runs=tmp_path / "whole", **options, **asked)
    assert [row["return"] for row in episodes(whole)] == [row["return"] for row in episodes(plain)]
    cut = whorl.train("ppo", "CartPole-v1", runs=tmp_path / "cut", **options, **asked, hooks=[AtStep(256)])
    whorl.resume(cut.path, quiet=True)
    assert fingerprint(cut.path) == fingerprint(whole.path)
    for row in episodes(whole):
        n = int(row["length"])
        assert float(row["nonzero_rewards"]) == n
        assert float(row["discounted_return"]) == pytest.approx((1 - 0.99**n) / (1 - 0.99), rel=1e-6)


class AtStep:
    def __init__(self, step):
        self.step = step

    def begin(self, run):
        self.run = run

    def __call__(self, rollout, metrics):
        return self.run.steps >= self.step


def test_an_entry_that_is_no_number_names_its_environment(tmp_path):
    class Wordy(Telling):
        said = "far"

    with pytest.raises(EnvError, match=r"info\['x'\] of environment 0 should be a number.* got 'far'"):
        whorl.train("ppo", Wordy, runs=tmp_path, num_envs=2, info_keys="x", **SHORT)


def test_ways_are_read_from_texts_lists_and_dicts():
    assert ways_of("a, b:last") == {"a": "sum", "b": "last"} == ways_of(text_of({"a": "sum", "b": "last"}))
    assert ways_of(text_of(["a"])) == {"a": "sum"} and ways_of("") == {}
    with pytest.raises(BadInput, match="info_keys takes KEY or KEY:sum, KEY:mean, KEY:last.* got 'a:max'"):
        ways_of("a:max")
    for wrong in (3, [3], {"a": 3}):
        with pytest.raises(BadInput, match="info_keys takes a text, a list of texts, or a dict"):
            text_of(wrong)


def test_what_nobody_steps_here_says_nothing(tmp_path):
    for agent, options in (("a3c", {}), ("td", {"compile": True, "num_envs": 1})):
        with pytest.raises(BadInput, match="info_keys reads what environments say, step by step"):
            whorl.train(agent, "MountainCar-v0", runs=tmp_path, info_keys="x", **SHORT, **options)
    assert list(tmp_path.iterdir()) == []


def test_an_episode_without_a_number_has_none():
    tally = Tally({"x": "sum"}, 1)
    nothing = np.full((1, 1), math.nan, np.float32)
    flags = {"terminated": np.ones((1, 1), bool), "truncated": np.zeros((1, 1), bool), "reward": np.zeros((1, 1))}
    (episode,) = tally.add({"next": flags, "mask": np.ones((1, 1), bool), "info": {"x": nothing}}, 1, [whorl_episode()])
    assert math.isnan(episode.info[0])


def whorl_episode():
    from whorl.collectors.ledger import Episode

    return Episode(1, 0, 0.0, 1)


def test_a_discounted_return_needs_a_discount(tmp_path):
    with pytest.raises(
        BadInput, match="info_keys asks for discounted_return, and RandomConfig has no field 'discount'"
    ):
        whorl.train("random", Telling, info_keys=["discounted_return"], runs=tmp_path, **SHORT)


def test_an_entry_that_no_info_has_is_said_once(tmp_path, capfd):
    options = {**SHORT, "num_envs": 2, "runs": tmp_path, "feed": {"steps": 16}}
    for given in (
        {"eval_every": 64, "eval_episodes": 2},
        {"hooks": [AtStep(64)]},
    ):  # at the first evaluation, or at the end
        whorl.train("ppo", Telling, info_keys="x,sucess,zzzz", **{**options, **given, "quiet": False})
        lines = [line for line in capfd.readouterr().err.splitlines() if "info_keys" in line]
        assert lines == [
            "info_keys: no step's info has had 'sucess' so far; did you mean 'success'?",
            "info_keys: no step's info has had 'zzzz' so far: there was other, success, x",
        ]
