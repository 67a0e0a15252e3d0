"""The score of what lies in a monitor's folder."""

from __future__ import annotations

import json
import math
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.apps.gym_server.counting import Counting, load_results, play, recording
from tests.cases import each
from whorl.apps.gym_server.monitor import Monitor, score
from whorl.errors import BadInput
from whorl.folders import confined

# ------------------------------------------------------------------------------------------------- score


def reference_score(rewards, threshold):
    """OpenAI's scoring: the best mean of 100 in a row, and where the first begins that reaches the threshold."""
    means = [sum(rewards[i : i + 100]) / 100 for i in range(len(rewards) - 99)]
    solved = [i for i, mean in enumerate(means) if mean >= threshold]
    return (max(means) if means else None), (solved[0] if solved else None)


def test_score_of_a_real_session(tmp_path):
    env = Monitor(Counting([2] * 60 + [4] * 60), tmp_path, "Counting-v0", video_callable=50)
    play(env, 120)
    env.finish()
    result = score(tmp_path, "ppo")
    assert result["env"] == "Counting-v0" and result["algorithm_id"] == "ppo" and result["episodes"] == 120
    assert result["best_100_mean"] == pytest.approx((40 * 3 + 60 * 10) / 100) and result["episodes_to_solve"] is None
    assert len(result["videos"]) == 3 and all((tmp_path / video).is_file() for video in result["videos"])
    assert json.loads((tmp_path / "upload.json").read_text()) == result
    assert set(result) == {"env", "algorithm_id", "episodes", "best_100_mean", "episodes_to_solve", "videos"}


@given(st.lists(st.floats(0, 500), min_size=0, max_size=130), st.floats(0, 500))
def test_score_follows_openais_definition(tmp_path_factory, rewards, threshold):
    result = score(recording(tmp_path_factory.mktemp("results"), rewards, threshold=threshold))
    best, solved = reference_score(rewards, threshold)
    assert result["episodes"] == len(rewards)
    assert result["best_100_mean"] == (best if best is None else pytest.approx(best, rel=1e-12, abs=1e-12))
    means = [sum(rewards[i : i + 100]) / 100 for i in range(len(rewards) - 99)]
    if all(abs(mean - threshold) > 1e-9 for mean in means):  # else rounding decides
        assert result["episodes_to_solve"] == solved


def test_episodes_to_solve_by_hand(tmp_path):
    assert score(recording(tmp_path / "a", [0.0] * 7 + [475.0] * 100))["episodes_to_solve"] == 7
    assert score(recording(tmp_path / "b", [500.0] * 150))["episodes_to_solve"] == 0
    assert score(recording(tmp_path / "c", [500.0] * 99))["episodes_to_solve"] is None
    assert score(recording(tmp_path / "d", [500.0] * 100, threshold=None))["episodes_to_solve"] is None
    assert score(recording(tmp_path / "e", [474.9] * 300))["best_100_mean"] == pytest.approx(474.9)


def test_episodes_that_the_client_broke_off_do_not_raise_the_score(tmp_path):
    honest = score(recording(tmp_path / "a", [-200.0] * 100, env_id="MountainCar-v0", threshold=-110.0))
    assert honest["best_100_mean"] == -200 and honest["episodes_to_solve"] is None
    breaker = recording(tmp_path / "b", [-1.0] * 100 + [-200.0] * 100, ["reset"] * 100 + ["terminated"] * 100)
    assert score(breaker)["best_100_mean"] == -200 and score(breaker)["episodes"] == 200
    assert score(recording(tmp_path / "c", [-1.0] * 100, ["reset"] * 100))["best_100_mean"] is None


def test_several_recordings_are_joined_in_the_order_of_time(tmp_path):
    recording(tmp_path, [500.0] * 60, infix="9.1", timestamps=list(range(60)))
    recording(tmp_path, [0.0] * 60, infix="1.1", timestamps=list(range(100, 160)))
    recording(tmp_path, [500.0] * 60, infix="5.1", timestamps=list(range(200, 260)))
    result = score(tmp_path)
    assert result["episodes"] == 180 and result["best_100_mean"] == pytest.approx(500 * 60 / 100)
    recording(tmp_path, [0.0], infix="2.1", env_id="Acrobot-v1")
    with pytest.raises(BadInput, match=r"mixes environments \(\['Acrobot-v1', 'CartPole-v1'\]\): use one folder"):
        score(tmp_path)


def test_files_without_our_additions_are_read(tmp_path):
    recording(tmp_path, [1.0] * 100, env_info={"gym_version": "0.7.4", "env_id": "CartPole-v0"})
    assert score(tmp_path)["best_100_mean"] == 1 and score(tmp_path)["episodes_to_solve"] is None


def test_a_folder_without_monitor_files(tmp_path):
    (tmp_path / "openaigym.manifest.notes").write_text("{}")
    with pytest.raises(BadInput, match="has no monitor files: start the monitor there, play, and close it"):
        score(tmp_path)
    assert not (tmp_path / "upload.json").exists()


BROKEN = {
    "stats outside": ({"stats": "../secret.json"}, "stats must be the name of a file beside it"),
    "stats absolute": ({"stats": "/etc/passwd"}, "stats must be the name of a file beside it"),
    "stats a path": ({"stats": "openaigym.episode_batch./../../x"}, "stats must be the name of a file beside it"),
    "stats another file": ({"stats": "upload.json"}, "stats must be the name of a file beside it"),
    "stats missing": (
        {"stats": "openaigym.episode_batch.7.7.stats.json"},
        "openaigym.episode_batch.7.7.stats.json is missing",
    ),
    "stats a number": ({"stats": 5}, "stats must be the name of a file beside it"),
    "videos a string": ({"videos": "x"}, "videos must be pairs of files"),
    "videos outside": ({"videos": [["../x.mp4", "../x.json"]]}, "videos must be pairs of files"),
    "videos single": ({"videos": [["openaigym.video.0.mp4"]]}, "videos must be pairs of files"),
    "env_info": ({"env_info": []}, "env_info must be an object"),
    "env_id": ({"env_id": 5}, "env_id must be the id of an environment"),
    "env_id empty": ({"env_id": ""}, "env_id must be the id of an environment"),
    "env_id long": ({"env_id": "x" * 1000}, "env_id must be the id of an environment"),
    "threshold": ({"reward_threshold": "low"}, "reward_threshold must be a finite number or null"),
    "threshold infinite": ({"reward_threshold": math.inf}, "Infinity is no JSON number"),
    "rewards NaN": ({"episode_rewards": [math.nan]}, "NaN is no JSON number"),
    "rewards huge": ({"episode_rewards": [10**400]}, "must be finite numbers"),
    "rewards strings": ({"episode_rewards": ["500"]}, "must be finite numbers"),
    "rewards booleans": ({"episode_rewards": [True]}, "must be finite numbers"),
    "rewards null": ({"episode_rewards": [None]}, "must be finite numbers"),
    "rewards short": ({"episode_rewards": []}, "must have the same number of entries"),
    "rewards an object": ({"episode_rewards": {"0": 1}}, "must be lists"),
    "times": ({"timestamps": ["now"]}, "must be finite numbers"),
    "lengths": ({"episode_lengths": None}, "must be lists"),
}


def test_damaged_or_hostile_files_are_refused(tmp_path):
    for number, (changes, words) in enumerate(each(BROKEN.values())):
        here = tmp_path / str(number)
        here.mkdir()
        (here / "secret.json").write_text('{"timestamps": []}')
        recording(here / "results", [1.0], **changes)
        with pytest.raises(BadInput, match=words) as error:
            score(here / "results")
        assert not (here / "results" / "upload.json").exists() and len(str(error.value)) < 400


@pytest.mark.parametrize("name", ["openaigym.manifest.0.1.manifest.json", "openaigym.episode_batch.0.1.stats.json"])
def test_only_small_regular_json_files_are_read(tmp_path, name):
    folder = recording(tmp_path / "results", [1.0])
    path, good = folder / name, (folder / name).read_text()

    def refusal(words):
        with pytest.raises(BadInput, match=words):
            score(folder)

    for text in ("", "{", "[1]", "5", good[:-2], "{'a': 1}", "[" * 100_000, '{"a": "\udcff"}'):
        path.write_bytes(text.encode(errors="surrogateescape"))
        refusal("is not valid JSON|must hold a JSON object")
    path.write_text(good + " " * (17 << 20))
    refusal("has [0-9,]+ bytes, more than the [0-9,]+ it may have")
    path.unlink()
    os.mkfifo(path)
    refusal("is not a regular file")
    path.unlink()
    path.mkdir()
    refusal("is not a regular file")
    path.rmdir()
    (tmp_path / "elsewhere.json").write_text(good)
    path.symlink_to(tmp_path / "elsewhere.json")
    refusal("is not a regular file but a symbolic link")
    path.unlink()
    path.write_text(good)
    assert score(folder)["episodes"] == 1


def test_algorithm_id_is_a_short_text(tmp_path):
    for number, bad in enumerate(each([5, ["a"], "a\nb", "a\0", "x" * 201, "\x1b[2J", True])):
        here = tmp_path / str(number)
        here.mkdir()
        recording(here, [1.0])
        with pytest.raises(BadInput, match="algorithm_id must be a short text, got "):
            score(here, bad)
        assert score(here, "")["algorithm_id"] is None and score(here)["algorithm_id"] is None
        assert score(here, "<script>é")["algorithm_id"] == "<script>é"  # data; whoever shows it escapes it


def test_upload_json_that_cannot_be_written(tmp_path):
    recording(tmp_path, [1.0])
    (tmp_path / "upload.json").mkdir()
    with pytest.raises(BadInput, match="upload.json cannot be written there"):
        score(tmp_path)


def test_a_video_that_is_gone_is_not_listed(tmp_path):
    env = Monitor(Counting([1, 1]), tmp_path, "Counting-v0", video_callable=True)
    play(env, 2)
    env.finish()
    first, second = (video for video, _ in load_results(tmp_path)[0][0]["videos"])
    (tmp_path / first).unlink()
    assert score(tmp_path)["videos"] == [second]


def test_many_monitors_in_one_folder_at_once(tmp_path):
    def session(length):
        play(env := Monitor(Counting([length] * 5), tmp_path, "Counting-v0", resume=True), 5)
        env.finish()

    threads = [threading.Thread(target=session, args=(n,)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(stats["episode_lengths"] for stats in load_results(tmp_path)[1]) == [[n] * 5 for n in range(1, 9)]
    assert score(tmp_path)["episodes"] == 40


def test_a_folder_that_is_swapped_for_a_link_gets_nothing(tmp_path):
    """Also while it is recorded into: the folder that `confined` opened is held, wherever it is called meanwhile."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    env = Monitor(Counting([2, 2]), confined(root, "results"), "Counting-v0", video_callable=True)
    (root / "results").rename(root / "aside")
    (root / "results").symlink_to(outside)
    play(env, 2)
    env.finish()
    assert not list(outside.iterdir())
    assert score(root / "aside")["episodes"] == 2 and len(score(root / "aside")["videos"]) == 2
    with pytest.raises(BadInput, match="cannot be a folder here"):
        confined(root, "results")
