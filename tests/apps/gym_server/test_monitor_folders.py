"""The folders that names from outside may mean, and the score of what lies in one."""

from __future__ import annotations

import json
import math
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.apps.gym_server.counting import Counting, files, load_results, play, recording
from whorl.apps.gym_server import monitor
from whorl.apps.gym_server.monitor import Monitor, confined, score
from whorl.errors import BadInput

# ------------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize(
    "name, inner",
    [
        ("results", "results"),
        ("a/b/c", "a/b/c"),
        ("./a//b/", "a/b"),
        ("random-agent_2.1", "random-agent_2.1"),
        ("/tmp/random-agent-results", "random-agent-results"),
        ("/var/folders/zz/T/random-agent-results/", "random-agent-results"),
        ("/etc/passwd", "passwd"),
        ("//server/share", "share"),
    ],
)
def test_a_name_becomes_a_folder_inside_the_root(tmp_path, name, inner):
    root = tmp_path / "not" / "yet"
    assert confined(root, name) == root / inner and (root / inner).is_dir()
    assert confined(root, name) == root / inner  # the second time, too
    assert confined(root, name, create=False) == root / inner
    made = [path for path in tmp_path.rglob("*") if not (root / inner).is_relative_to(path)]
    assert made == []


HOSTILE = [
    *("", ".", "..", "/", "//", "/.", "/..", "../x", "a/../x", "a/..", "/a/../x", "/tmp/..", "..\\x", "a\\b", "\\\\host\\share"),
    *("a\0b", "\0", "a\n", "a\rb", "a\x1b[2J", "a\x7f", "a\x85b", "C:", "C:\\x", "c:/x", "/C:/x", "C:x", "a:b"),
    *("%2e%2e/x", "%2e%2e%2fx", "%252e%252e%252fx", "..%2f..%2fx", "%c0%ae%c0%ae/x", "a%00b", "%", "..%5cx", "%u002e%u002e"),
    *("~", "~root", "~/x", "-rf", ".hidden", ".tmp-x", "$HOME", "a b", "*", "a;b", "`id`", "$(id)", "a|b", "'", '"', "<b>"),
    *("．．/x", "‥/x", "a∕..∕x", "é", "\ud800", "\u202etxt", "a\u200b", "/tmp/é", "/a\\..\\b/c", "/%2e%2e/x"),
    *("x" * 101, "/" + "x" * 101, "x/" * 500 + "x", "/".join("abcdefghi"), "a" * 100_000, "/" * 2000 + "x", ".../x", "..../x"),
    *(None, 5, True, ["a"], {"a": 1}, b"a", 1.5),
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name)[:40])
@pytest.mark.parametrize("create", [True, False])
def test_a_name_that_could_lead_elsewhere_is_refused_and_makes_nothing(tmp_path, name, create):
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(BadInput, match="cannot be a folder on this server|a folder is named by a string") as error:
        confined(root, name, create)
    assert list(tmp_path.rglob("*")) == [root] and len(str(error.value)) < 400


@given(st.text(st.characters() | st.sampled_from("./\\%:~\0ab"), max_size=30))
def test_no_name_at_all_leads_out_of_the_root(tmp_path_factory, name):
    top = tmp_path_factory.mktemp("top")
    root = top / "a" / "b" / "root"
    root.mkdir(parents=True)
    try:
        made = confined(root, name)
    except BadInput:
        assert list(root.iterdir()) == []
    else:
        assert made.resolve() == made and made.is_dir() and made.is_relative_to(root) and made != root
    assert sorted(top.rglob("*"))[:3] == [top / "a", top / "a" / "b", root] and len(list(top.glob("*"))) == 1


def test_symlinks_below_the_root_are_refused_wherever_they_lead(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "real").mkdir(parents=True)
    outside.mkdir()
    for name, target in {"out": outside, "up": tmp_path, "slash": "/", "inside": root / "real", "loop": "loop"}.items():
        (root / name).symlink_to(target)
    (root / "real" / "out").symlink_to(outside)
    (root / "dangling").symlink_to(outside / "new")
    names = (
        "out",
        "out/x",
        "up",
        "up/outside",
        "slash",
        "slash/tmp",
        "inside",
        "inside/x",
        "loop",
        "dangling",
        "dangling/x",
    )
    for name in (*names, "real/out", "real/out/x", "/any/where/out", "./out"):
        for create in (True, False):
            with pytest.raises(BadInput, match="cannot be a folder on this server|there is no folder"):
                confined(root, name, create)
    assert list(outside.iterdir()) == [] and list((root / "real").iterdir()) == [root / "real" / "out"]


def test_the_root_itself_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "disk")
    assert confined(tmp_path / "root", "a") == tmp_path / "disk" / "a"


def test_a_file_in_the_way_and_a_folder_that_is_missing(tmp_path):
    (tmp_path / "file").write_text("keep")
    for name in ("file", "file/x"):
        with pytest.raises(BadInput, match="'file.*' cannot be a folder on this server: Not a directory"):
            confined(tmp_path, name)
    for name in ("missing", "missing/x"):
        with pytest.raises(BadInput, match="there is no folder 'missing.*' on this server"):
            confined(tmp_path, name, create=False)
    assert (tmp_path / "file").read_text() == "keep" and files(tmp_path) == ["file"]


@pytest.mark.parametrize("moment", range(7))
def test_a_folder_that_is_swapped_for_a_link_meanwhile_leads_nowhere(tmp_path, monkeypatch, moment):
    """Before each of the calls that `confined` makes, another process puts a link to outside in the place of `root/a`."""
    root, outside, calls = tmp_path / "root", tmp_path / "outside", []
    (root / "a").mkdir(parents=True)
    (outside / "b").mkdir(parents=True)

    def swapping(call):
        def swapped(*args, **options):
            if len(calls) == moment:
                (root / "a").rename(tmp_path / "aside")
                (root / "a").symlink_to(outside)
            calls.append(call.__name__)
            return call(*args, **options)

        return swapped

    with monkeypatch.context() as patch:
        for call in (os.open, os.mkdir, os.stat):
            patch.setattr(monitor.os, call.__name__, swapping(call))
        with pytest.raises(BadInput, match="'a/b' cannot be a folder on this server|there is no folder 'a/b'"):
            confined(root.resolve(), "a/b")
    assert (root / "a").is_symlink() and list(outside.rglob("*")) == [outside / "b"]
    assert len(calls) > moment, "the swap did not happen"


def test_no_descriptor_is_left_open(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    (tmp_path / "link").symlink_to("/")
    for _ in range(50):
        confined(tmp_path, "a/b")
        for name in ("link", "link/tmp", "..", "a/missing/x"):
            with pytest.raises(BadInput):
                confined(tmp_path, name, create=False)
    assert len(os.listdir("/proc/self/fd")) == before


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
    "stats missing": ({"stats": "openaigym.episode_batch.7.7.stats.json"}, "cannot be read: No such file"),
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


@pytest.mark.parametrize("changes, words", BROKEN.values(), ids=BROKEN)
def test_damaged_or_hostile_files_are_refused(tmp_path, changes, words):
    (tmp_path / "secret.json").write_text('{"timestamps": []}')
    recording(tmp_path / "results", [1.0], **changes)
    with pytest.raises(BadInput, match=words) as error:
        score(tmp_path / "results")
    assert not (tmp_path / "results" / "upload.json").exists() and len(str(error.value)) < 400


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
    refusal("has [0-9]+ bytes, [0-9]+ are allowed")
    path.unlink()
    os.mkfifo(path)
    refusal("must be a regular file")
    path.unlink()
    path.mkdir()
    refusal("cannot be read: Is a directory")
    path.rmdir()
    (tmp_path / "elsewhere.json").write_text(good)
    path.symlink_to(tmp_path / "elsewhere.json")
    refusal("cannot be read: Too many levels of symbolic links")
    path.unlink()
    path.write_text(good)
    assert score(folder)["episodes"] == 1


@pytest.mark.parametrize("bad", [5, ["a"], "a\nb", "a\0", "x" * 201, "\x1b[2J", True])
def test_algorithm_id_is_a_short_text(tmp_path, bad):
    recording(tmp_path, [1.0])
    with pytest.raises(BadInput, match="algorithm_id must be a short text, got "):
        score(tmp_path, bad)
    assert score(tmp_path, "")["algorithm_id"] is None and score(tmp_path)["algorithm_id"] is None
    assert score(tmp_path, "<script>é")["algorithm_id"] == "<script>é"  # data; whoever shows it escapes it


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
