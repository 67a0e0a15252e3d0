"""Runs that stop after episodes, with shorter time limits, windows, videos and loggers of one's own; all of it resumed exactly."""

import json

import pytest

import whorl
from tests.training.fingerprint import fingerprint
from whorl.errors import BadInput

QUIET = {"quiet": True, "eval_every": 0, "checkpoint_every": 200, "log_every": 50}


def rows(run):
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def test_stops_after_episodes_and_says_so(tmp_path):
    run = whorl.train("random", "CartPole-v1", total_steps=10**6, total_episodes=30, num_envs=2, runs=tmp_path, **QUIET)
    result = json.loads((run.path / "eval.json").read_text())
    assert 30 <= result["episodes"] < 60 and result["steps"] == run.steps < 10**5
    assert run.parts.collector.finished == result["episodes"] == run.window.count
    with pytest.raises(BadInput, match="is finished: it was started for 30 episodes"):
        whorl.resume(run.path)


def test_steps_come_first_when_they_are_over_first(tmp_path):
    run = whorl.train(
        "random", "CartPole-v1", total_steps=256, total_episodes=10**6, num_envs=2, runs=tmp_path, **QUIET
    )
    assert run.steps == 256 and json.loads((run.path / "eval.json").read_text())["steps"] == 256


def test_the_number_of_steps_is_the_same_everywhere(tmp_path):
    """A rollout is taken whole, and what was taken is what is said; a whole number may be written 1e2."""
    run = whorl.train("ppo", "CartPole-v1", total_steps=1e2, num_envs=2, runs=tmp_path, **QUIET, feed={"steps": 8e1})
    assert run.settings.total_steps == 100 and run.config.feed.steps == 80 and run.steps == 160
    steps = {"log": rows(run)[-1]["step"], "eval": json.loads((run.path / "eval.json").read_text())["steps"]}
    assert steps == {"log": 160, "eval": 160} and (run.path / "checkpoints" / "step_160").exists()
    with pytest.raises(BadInput, match="is finished at 160 steps; give more: whorl resume .* --total-steps 320"):
        whorl.resume(run.path, 150)
    assert whorl.resume(run.path, 2e2, quiet=True).steps == 320


def test_a_shorter_time_limit_holds_everywhere(tmp_path):
    options = {
        "runs": tmp_path,
        "num_envs": 2,
        "total_steps": 512,
        "quiet": True,
        "eval_every": 256,
        "eval_episodes": 4,
    }
    for env, limit, expected in (("CartPole-v1", 7, 7), ("FrozenLake-v1", 3, 3), ("CartPole-v1", 10**6, 500)):
        run = whorl.train("random", env, max_episode_steps=limit, **options)
        assert run.parts.env.max_episode_steps == expected
        assert run.evaluate(4).lengths.max() <= expected and run.window.mean_length <= expected
        assert whorl.load(run.path, "last").evaluate(4).lengths.max() <= expected
        table = (run.path / "episodes.csv").read_text().splitlines()[1:]
        assert table and all(int(row.split(",")[3]) <= expected for row in table)


def test_the_window_slides_over_as_many_episodes_as_asked(tmp_path):
    run = whorl.train("random", "CartPole-v1", total_steps=600, num_envs=1, window=3, runs=tmp_path, **QUIET)
    table = [row.split(",") for row in (run.path / "episodes.csv").read_text().splitlines()[1:]]
    returns = [float(row[2]) for row in table]
    last = [row for row in rows(run) if "rollout/ep_rew_mean" in row][-1]
    assert last["rollout/ep_rew_mean"] == pytest.approx(sum(returns[-3:]) / 3)
    mean = sum(returns[-3:]) / 3
    assert last["rollout/ep_rew_std"] == pytest.approx((sum((x - mean) ** 2 for x in returns[-3:]) / 3) ** 0.5)
    windows = [sum(returns[i : i + 3]) / 3 for i in range(len(returns) - 2)]
    assert run.window.best_mean == pytest.approx(max(windows)) and run.window.count == len(returns)


def test_videos_every_so_many_episodes_change_nothing_else(tmp_path):
    options = {"total_steps": 400, "num_envs": 1, "seed": 3, "epsilon": 1.0, "runs": tmp_path, **QUIET}
    plain = whorl.train("td", "CartPole-v1", **options)
    filmed = whorl.train("td", "CartPole-v1", video_every=5, **options)
    films = sorted(path.name for path in (filmed.path / "video").iterdir())
    episodes = filmed.parts.collector.finished
    assert films == [f"episode_{k:06d}.gif" for k in range(5, episodes + 1, 5)] and len(films) > 1
    assert (filmed.path / "video" / films[0]).read_bytes()[:6] == b"GIF89a"
    assert fingerprint(plain.path) == fingerprint(filmed.path)


def test_a_logger_of_ones_own_sees_what_the_others_see(tmp_path):
    class Listener(whorl.Logger):
        def __init__(self):
            self.episodes, self.steps = [], []

        def add(self, episodes):
            self.episodes += episodes

        def log(self, step, metrics):
            self.steps.append(step)

    listener = Listener()
    run = whorl.train("random", "CartPole-v1", total_steps=600, num_envs=2, runs=tmp_path, loggers=[listener], **QUIET)
    assert len(listener.episodes) == run.window.count > 0 and listener.steps == [row["step"] for row in rows(run)]


@pytest.mark.parametrize("compile", [False, True])
def test_all_of_it_resumes_to_the_same_bits(tmp_path, compile):
    options = {
        "num_envs": 1, "seed": 1, "total_episodes": 60, "max_episode_steps": 50, "window": 7, "compile": compile, "total_steps": 10**6,
        "epsilon": 0.1, "trace": "replacing", **QUIET,
    }  # fmt: skip
    whole = whorl.train("td", "MountainCar-v0", runs=tmp_path / "whole", **options)

    class Stop(whorl.Logger):
        def log(self, step, metrics):
            if step >= 1_000:
                raise KeyboardInterrupt  # not an Exception: as a kill between two checkpoints

    with pytest.raises(KeyboardInterrupt):
        whorl.train("td", "MountainCar-v0", runs=tmp_path / "cut", loggers=[Stop()], **options)
    cut = whorl.resume(tmp_path / "cut" / "last", quiet=True)
    assert cut.steps == whole.steps and cut.window.state() == whole.window.state()
    assert fingerprint(cut.path) == fingerprint(whole.path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"total_episodes": 0}, "total_episodes must be at least 1, got 0"),
        ({"max_episode_steps": 0}, "max_episode_steps must be at least 1, got 0"),
        ({"window": 0}, "window must be at least 1, got 0"),
        ({"video_every": -1}, "video_every must be at least 0, got -1"),
        ({"anneal_episodes": 10}, "anneal_episodes = 10 needs total_episodes of at most that"),
    ],
)
def test_bad_options_write_nothing(tmp_path, options, message):
    with pytest.raises(BadInput, match=message):
        whorl.train("reinforce", "CartPole-v1", runs=tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_videos_of_a_world_without_a_picture_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(BadInput, match="RandomWalk-v0 has no picture to record"):
        whorl.train("td", "RandomWalk-v0", video_every=5, runs=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_options_that_need_an_id_refuse_objects(tmp_path):
    env = whorl.make_env("CartPole-v1", 2)
    for options in ({"video_every": 5}, {"max_episode_steps": 5}):
        with pytest.raises(BadInput, match="pass an id for video_every and max_episode_steps"):
            whorl.train("random", env, runs=tmp_path, **options)
    with pytest.raises(BadInput, match="the workers of a3c make environments of their own"):
        whorl.train("a3c", env, runs=tmp_path)
