"""The monitor's files as OpenAI Gym wrote them: statistics, manifests, videos; and the options of the wire."""

from __future__ import annotations

import json
import math
import os
import time

import gymnasium
import numpy as np
import pytest

from tests.apps.gym_server.counting import Counting, files, load_results, play
from tests.cases import each
from whorl.apps.gym_server import film, monitor
from whorl.apps.gym_server.monitor import Monitor, flag, score, video_rule
from whorl.errors import BadInput, EnvError

# ------------------------------------------------------------------------------------------------- statistics


def test_files_of_a_session(tmp_path):
    before = time.time()
    env = Monitor(Counting([3, 1, 4]), tmp_path, "Counting-v0")
    play(env, 3)
    env.finish()
    own = f".{os.getpid()}."
    assert [name.startswith("openaigym.") and own in name for name in files(tmp_path)] == [True, True]
    (manifest,), (stats,) = load_results(tmp_path)
    assert manifest["stats"].startswith("openaigym.episode_batch.") and manifest["stats"].endswith(".stats.json")
    info = {"gym_version": gymnasium.__version__, "env_id": "Counting-v0", "reward_threshold": None}
    assert manifest["videos"] == [] and manifest["env_info"] == info
    assert stats["episode_lengths"] == [3, 1, 4] and stats["episode_rewards"] == [6.0, 1.0, 10.0]
    assert stats["episode_types"] == ["t"] * 3 and stats["episode_ends"] == ["terminated"] * 3
    times = [before, stats["initial_reset_timestamp"], *stats["timestamps"], time.time()]
    assert times == sorted(times) and len(stats["timestamps"]) == 3


def test_gymnasium_environment_gives_its_reward_threshold_and_truncation(tmp_path):
    env = Monitor(gymnasium.make("CartPole-v1", max_episode_steps=3), tmp_path, "CartPole-v0")
    env.reset(seed=1)
    for action in (0, 1, 0):
        result = env.step(action)
    env.close()
    (manifest,), (stats,) = load_results(tmp_path)
    assert result[3] and stats["episode_ends"] == ["truncated"]
    assert manifest["env_info"]["reward_threshold"] == 475.0 and manifest["env_info"]["env_id"] == "CartPole-v0"


def test_the_environment_is_stepped_as_without_a_monitor(tmp_path):
    def session(env):
        rows = [env.reset(seed=3)[0].tolist()]
        for step in range(60):
            observation, reward, terminated, _, _ = env.step(step % 2)
            rows.append([*observation.tolist(), reward])
            if terminated:
                rows.append(env.reset()[0].tolist())
        return rows

    watched = Monitor(gymnasium.make("CartPole-v1"), tmp_path, "CartPole-v1")
    assert session(watched) == session(gymnasium.make("CartPole-v1"))


def test_a_reset_in_mid_episode_records_what_was_played(tmp_path):
    env = Monitor(Counting([5, 5, 5, 5]), tmp_path, "Counting-v0")
    env.reset()
    env.step(0)
    env.step(0)
    env.reset()  # in mid-episode: 2 steps
    env.reset()  # before the first step: nothing was played
    for _ in range(5):
        env.step(0)
    env.reset()
    env.step(0)
    env.finish()  # in mid-episode: the episode is not over
    (stats,) = load_results(tmp_path)[1]
    assert stats["episode_lengths"] == [2, 5] and stats["episode_ends"] == ["reset", "terminated"]
    assert stats["episode_rewards"] == [3.0, 15.0]


def test_a_step_outside_an_episode_is_refused_and_not_counted(tmp_path):
    inner = Counting([1, 1])
    inner.reset()
    env = Monitor(inner, tmp_path, "Counting-v0")
    for _ in range(2):  # before the monitor's first reset, and after an end
        with pytest.raises(BadInput, match="Counting-v0 is monitored and no episode is under way: call reset before"):
            env.step(0)
        if inner.at == 0:
            play(env, 1)
    env.finish()
    assert load_results(tmp_path)[1][0]["episode_lengths"] == [1] and inner.at == 1


def test_after_finish_the_environment_goes_on_unrecorded(tmp_path):
    inner = Counting([2, 2, 2])
    env = Monitor(inner, tmp_path, "Counting-v0", video_callable=True)
    play(env, 1)
    env.finish()
    written = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert not inner.closed and play(env, 1) == 2 and play(env.env, 1) == 2
    env.finish()
    env.close()
    assert inner.closed and {path: path.read_bytes() for path in tmp_path.iterdir()} == written


def test_close_writes_what_was_played(tmp_path):
    env = Monitor(Counting([2]), tmp_path, "Counting-v0")
    play(env, 1)
    env.close()
    assert load_results(tmp_path)[1][0]["episode_lengths"] == [2]


def test_files_are_brought_up_to_date_while_playing(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "FLUSH_SECONDS", -1)
    env = Monitor(Counting([1] * 9), tmp_path, "Counting-v0")
    assert load_results(tmp_path)[1][0]["episode_lengths"] == []  # from the start, so that a second monitor sees it
    play(env, 3)
    env.reset()
    assert load_results(tmp_path)[1][0]["episode_lengths"] == [1, 1, 1]
    monkeypatch.setattr(monitor, "FLUSH_SECONDS", 1e9)
    play(env, 3)
    assert load_results(tmp_path)[1][0]["episode_lengths"] == [1, 1, 1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_fails_the_step_and_its_episode_only(tmp_path, bad):
    env = Monitor(
        Counting([3, 3], rewards=lambda at: bad if at == 2 else 1.0), tmp_path, "Counting-v0", video_callable=1
    )
    env.reset()
    env.step(0)
    with pytest.raises(EnvError, match="Counting-v0: the reward .* made the return of the episode"):
        env.step(0)
    with pytest.raises(BadInput, match="call reset"):
        env.step(0)
    env.reset()
    env.step(0)
    env.finish()
    (stats,) = load_results(tmp_path)[1]
    assert stats["episode_lengths"] == []


def test_a_crash_of_the_environment_leaves_the_record_whole(tmp_path):
    def crash(at):
        if at == 2:
            raise RuntimeError("boom")
        return 1.0

    env = Monitor(Counting([1, 3, 1], rewards=crash), tmp_path, "Counting-v0")
    play(env, 1)
    env.reset()
    env.step(0)
    with pytest.raises(RuntimeError, match="boom"):
        env.step(0)
    play(env, 1)
    env.finish()
    assert load_results(tmp_path)[1][0]["episode_ends"] == ["terminated", "reset", "terminated"]


# ------------------------------------------------------------------------------------------------- force, resume


def test_a_folder_with_monitor_files_is_refused_unless_force_or_resume(tmp_path):
    play(first := Monitor(Counting([1]), tmp_path, "Counting-v0"), 1)
    first.finish()
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(BadInput, match="already has monitor files, such as openaigym.manifest.*force=true to delete"):
        Monitor(Counting([1]), tmp_path, "Counting-v0")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before

    play(second := Monitor(Counting([2]), tmp_path, "Counting-v0", resume=True), 1)
    second.finish()
    assert {path: path.read_bytes() for path in before} == before and len(files(tmp_path)) == 4
    assert sorted(stats["episode_lengths"] for stats in load_results(tmp_path)[1]) == [[1], [2]]

    play(third := Monitor(Counting([3]), tmp_path, "Counting-v0", force=True), 1)
    third.finish()
    assert [stats["episode_lengths"] for stats in load_results(tmp_path)[1]] == [[3]] and len(files(tmp_path)) == 2


def test_a_monitor_under_way_is_seen_by_the_next(tmp_path):
    Monitor(Counting([1]), tmp_path, "Counting-v0")
    with pytest.raises(BadInput, match="already has monitor files"):
        Monitor(Counting([1]), tmp_path, "Counting-v0")


def test_only_a_manifest_counts_as_a_recording(tmp_path):
    (tmp_path / "openaigym.notes").write_text("mine")
    (tmp_path / "manifest.json").write_text("mine")
    Monitor(Counting([1]), tmp_path, "Counting-v0").finish()
    assert (tmp_path / "openaigym.notes").read_text() == "mine"


def test_force_deletes_regular_files_with_the_prefix_directly_inside_and_nothing_else(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "openaigym.manifest.x").write_text("keep")
    folder = tmp_path / "folder"
    (folder / "openaigym.folder").mkdir(parents=True)
    (folder / "inner").mkdir()
    kept = ["openaigym", "xopenaigym.manifest.0", "Openaigym.a", "inner/openaigym.b", "openaigym.folder/openaigym.c"]
    for name in kept:
        (folder / name).write_text("keep")
    for name in ("openaigym.manifest.0.1.manifest.json", "openaigym.", "openaigym.video.0.1.video000000.mp4"):
        (folder / name).write_text("old")
    (folder / "openaigym.link").symlink_to(outside / "openaigym.manifest.x")
    (folder / "openaigym.linked_folder").symlink_to(outside)
    os.mkfifo(folder / "openaigym.pipe")
    Monitor(Counting([1]), folder, "Counting-v0", force=True).finish()
    assert [(folder / name).read_text() for name in kept] == ["keep"] * 5
    assert (outside / "openaigym.manifest.x").read_text() == "keep"
    left = [name for name in files(folder) if name.startswith("openaigym.") and f".{os.getpid()}." not in name]
    assert left == ["openaigym.folder", "openaigym.link", "openaigym.linked_folder", "openaigym.pipe"]


def test_names_of_an_earlier_process_with_the_same_number_are_not_taken_again(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "_numbers", iter([7, 7, 8]))
    play(first := Monitor(Counting([1]), tmp_path, "Counting-v0"), 1)
    first.finish()
    play(second := Monitor(Counting([2]), tmp_path, "Counting-v0", resume=True), 1)
    second.finish()
    assert sorted(stats["episode_lengths"] for stats in load_results(tmp_path)[1]) == [[1], [2]]


def test_a_planted_link_is_replaced_and_not_written_through(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "_unused_infix", lambda directory: "0.1")
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    victim.write_text("keep")
    folder.mkdir()
    (folder / "openaigym.episode_batch.0.1.stats.json").symlink_to(victim)
    (folder / "upload.json").symlink_to(victim)
    env = Monitor(Counting([1]), folder, "Counting-v0")
    play(env, 1)
    env.finish()
    score(folder)
    assert victim.read_text() == "keep" and json.loads((folder / "upload.json").read_text())["episodes"] == 1


# ------------------------------------------------------------------------------------------------- videos


def test_every_nth_episode_is_filmed(tmp_path):
    import imageio.v3 as imageio

    env = Monitor(Counting([4, 2, 3, 2, 5]), tmp_path, "Counting-v0", video_callable=2)
    play(env, 5)
    env.finish()
    (manifest,), _ = load_results(tmp_path)
    kind = "mp4" if "mp4" in manifest["videos"][0][0] else "gif"
    for (video, meta), episode, steps in zip(manifest["videos"], (0, 2, 4), (4, 3, 5)):
        assert video.startswith("openaigym.video.") and video.endswith(f".video{episode:06d}.{kind}")
        data = json.loads((tmp_path / meta).read_text())
        assert meta.endswith(f".video{episode:06d}.meta.json") and data["episode_id"] == episode
        assert data["content_type"] in ("video/mp4", "image/gif") and data["frames_drawn"] == steps + 1
        if kind == "gif":
            frames = imageio.imread(tmp_path / video, index=None)
            assert frames.shape == (steps + 1, 16, 24, 3) and frames[:, 0, 0, 0].tolist() == list(range(steps + 1))
    assert len(manifest["videos"]) == 3 and len(files(tmp_path)) == 8


@pytest.mark.parametrize(
    "given, filmed", [(None, []), (False, []), (0, []), (True, [0, 1, 2]), ("2", [0, 2]), (9, [0])]
)
def test_which_episodes_are_filmed(tmp_path, given, filmed):
    env = Monitor(Counting([2, 2, 2]), tmp_path, "Counting-v0", video_callable=given)
    play(env, 3)
    env.finish()
    metas = [json.loads((tmp_path / meta).read_text()) for _, meta in load_results(tmp_path)[0][0]["videos"]]
    assert [meta["episode_id"] for meta in metas] == filmed


def test_a_film_of_an_episode_that_is_broken_off_is_kept_and_an_empty_one_is_not(tmp_path):
    env = Monitor(Counting([9] * 9), tmp_path, "Counting-v0", video_callable=True)
    env.reset()
    env.reset()  # nothing was played: the same episode once more
    env.step(0)
    env.reset()  # broken off
    env.step(0)
    env.step(0)
    env.finish()  # unfinished
    metas = [json.loads((tmp_path / meta).read_text()) for _, meta in load_results(tmp_path)[0][0]["videos"]]
    assert [(meta["episode_id"], meta["frames_drawn"]) for meta in metas] == [(0, 2), (1, 3)]
    again = Monitor(Counting([9]), tmp_path / "empty", "Counting-v0", video_callable=True)
    again.reset()
    again.finish()
    assert len(files(tmp_path / "empty")) == 2


def test_a_long_gif_leaves_frames_out(tmp_path, monkeypatch):
    monkeypatch.setattr(film.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(film, "GIF_FRAMES", 8)
    env = Monitor(Counting([50]), tmp_path, "Counting-v0", video_callable=True)
    play(env, 1)
    env.finish()
    import imageio.v3 as imageio

    ((video, meta),) = load_results(tmp_path)[0][0]["videos"]
    frames = imageio.imread(tmp_path / video, index=None)[:, 0, 0, 0].tolist()
    assert frames == list(range(0, 51, 8)) and json.loads((tmp_path / meta).read_text())["frames_drawn"] == 51
    assert imageio.immeta(tmp_path / video)["duration"] == 8 * 1000 / 50


def test_mp4_where_the_extra_is_installed(tmp_path):
    pytest.importorskip("imageio_ffmpeg", reason="needs the extra video: pip install 'whorl[video]'")
    import imageio.v3 as imageio

    env = Monitor(gymnasium.make("CartPole-v1", render_mode="rgb_array"), tmp_path, "CartPole-v1", video_callable=1)
    play(env, 2)
    env.finish()
    videos = load_results(tmp_path)[0][0]["videos"]
    assert [video.endswith(".mp4") for video, _ in videos] == [True, True]
    for video, meta in videos:
        frames = imageio.imread(tmp_path / video, plugin="FFMPEG")
        assert frames.shape == (json.loads((tmp_path / meta).read_text())["frames_drawn"], 400, 600, 3)


def test_an_environment_without_pictures_is_recorded_without_videos(tmp_path, caplog):
    env = Monitor(Counting([1, 1], render_mode=None), tmp_path, "Counting-v0", video_callable=True)
    play(env, 2)
    env.finish()
    (manifest,), (stats,) = load_results(tmp_path)
    assert manifest["videos"] == [] and stats["episode_lengths"] == [1, 1]
    assert [record.message for record in caplog.records] == [
        "Counting-v0 draws no pictures here: its monitor records no videos"
    ]


@pytest.mark.parametrize("picture", [None, np.zeros((4, 4)), np.zeros((4, 4, 4)), "text"])
def test_a_picture_that_fails_ends_the_videos_and_not_the_step(tmp_path, caplog, picture):
    inner = Counting([3, 3])
    env = Monitor(inner, tmp_path, "Counting-v0", video_callable=True)
    env.reset()
    inner.render = lambda: picture
    assert env.step(0)[0] == 1
    env.step(0), env.step(0)
    play(env, 1)
    env.finish()
    (manifest,), (stats,) = load_results(tmp_path)
    assert manifest["videos"] == [] and stats["episode_lengths"] == [3, 3] and len(files(tmp_path)) == 2
    assert len(caplog.records) == 1 and "no more videos" in caplog.records[0].message


def test_a_video_that_cannot_be_written_ends_the_videos_and_not_the_step(tmp_path, caplog):
    env = Monitor(Counting([1, 1]), tmp_path, "Counting-v0", video_callable=True)
    env.reset()
    names = f"openaigym.video.{env._infix}.video000000"
    for ending in ("gif", "mp4"):
        (tmp_path / f"{names}.{ending}").mkdir()
    assert env.step(0)[2]
    play(env, 1)
    env.finish()
    (manifest,), (stats,) = load_results(tmp_path)
    assert manifest["videos"] == [] and stats["episode_lengths"] == [1, 1] and not files(tmp_path, ".tmp-")
    assert len(caplog.records) == 1 and "no more videos" in caplog.records[0].message


# ------------------------------------------------------------------------------------------------- options from the wire


def test_flag_true():
    for value in each([True, 1, 1.0, "true", "True", "TRUE", "1"]):
        assert flag(value) is True


def test_flag_false():
    for value in each([False, 0, 0.0, None, "", [], "false", "False", "0"]):
        assert flag(value) is False


def test_flag_refuses_the_rest():
    for value in each([2, -1, 0.5, "yes", "on", "null", " true", [1], [[]], {}, {"a": 1}, math.nan, "x" * 9999]):
        with pytest.raises(BadInput, match="force must be true or false, got ") as error:
            flag(value, "force")
        assert len(str(error.value)) < 200


def test_video_rule():
    for value, rule in each(
        [
            (False, 0),
            (0, 0),
            (None, 0),
            ("", 0),
            ([], 0),
            ("false", 0),
            ("0", 0),
            (True, 1),
            (1, 1),
            ("true", 1),
            ("1", 1),
        ]
        + [(10, 10), ("10", 10), (10.0, 10), ("007", 7), (10**9 - 1, 10**9 - 1)]
    ):
        assert video_rule(value) == rule and video_rule(video_rule(value)) == rule


def test_video_rule_refuses_the_rest():
    for value in each(
        [-1, "-1", 0.5, math.inf, math.nan, "ten", "1e3", " 1", "١", 10**9, [1], {}, "lambda e: True", "9" * 9999]
    ):
        with pytest.raises(BadInput, match="video_callable must be false, true or a number N for every N-th") as error:
            video_rule(value)
        assert len(str(error.value)) < 250
