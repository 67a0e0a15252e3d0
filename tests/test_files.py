"""Files that are whole or not there, locks, and folders that names from outside cannot leave."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whorl import files
from whorl.errors import BadInput, Damaged
from whorl.files import confined, read_regular


def test_json_is_replaced_at_once_and_read_back(tmp_path):
    path = tmp_path / "config.json"
    for data in ({"a": 0.1, "b": [1, None, "ü"]}, {"a": 1e308}):
        files.write_json(path, data)
        assert files.read_json(path) == data
    with pytest.raises(BadInput, match=r"config.json\['a'\] is inf: JSON keeps only finite numbers"):
        files.write_json(path, {"a": float("inf")})
    assert files.read_json(path) == {"a": 1e308}
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_a_json_file_that_was_cut_off(tmp_path):
    path = tmp_path / "config.json"
    with pytest.raises(Damaged, match="config.json is missing"):
        files.read_json(path)
    path.write_text('{"a": [1, 2')
    with pytest.raises(
        Damaged, match=r"config.json is not valid JSON \(.*line 1 column 12.*\): it was cut off or changed"
    ):
        files.read_json(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Damaged, match="is not valid JSON"):
        files.read_json(path)


def test_a_failed_replacement_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "taken"
    target.mkdir()
    with pytest.raises(OSError):
        files.write(target, b"data")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_lines_grow_and_rewind(tmp_path):
    lines = files.Lines(tmp_path / "log")
    lines.append("one\n")
    position = lines.position()
    lines.append("two\n")
    lines.close()
    lines = files.Lines(tmp_path / "log")  # as a resumed process
    lines.rewind(position)
    lines.append("three\n")
    assert (tmp_path / "log").read_text() == "one\nthree\n" and json.loads(json.dumps(position)) == {"bytes": 4}
    with pytest.raises(Damaged, match="log has 10 bytes but had 99 at the checkpoint: lines were lost"):
        lines.rewind({"bytes": 99})
    lines.append("four\n")
    assert (tmp_path / "log").read_text() == "one\nthree\nfour\n"
    lines.close()


# ---------------------------------------------------------------------------------------------------------- lock

HOLD = """
import sys
from whorl.files import lock
with lock(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    return process


def test_the_second_process_is_told_who_holds_the_run(tmp_path):
    with holder(tmp_path) as process:
        with pytest.raises(BadInput) as error, files.lock(tmp_path):
            raise AssertionError("two owners")
        process.stdin.close()
    owner = f"process {process.pid} on {socket.gethostname()}"
    assert f"{tmp_path} is in use by {owner}: two processes would overwrite" in str(error.value)
    assert error.value.exit_code == 2
    with files.lock(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()


def test_the_lock_of_a_killed_process_is_no_obstacle(tmp_path):
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with files.lock(tmp_path):
        pass


def test_the_lock_excludes_this_process_too_and_ends_with_an_exception(tmp_path):
    with pytest.raises(KeyError), files.lock(tmp_path):
        with pytest.raises(BadInput, match="is in use by process"), files.lock(tmp_path):
            pass
        raise KeyError
    with files.lock(tmp_path):
        pass


def test_a_run_that_outlives_its_sweep_keeps_the_lock(tmp_path):
    with files.lock(tmp_path, heirs=True) as descriptor:
        left_behind = subprocess.Popen(["sleep", "1000"], pass_fds=(descriptor,))
    with pytest.raises(BadInput, match="is in use"), files.lock(tmp_path, heirs=True):
        pass
    left_behind.kill()
    left_behind.wait()
    with files.lock(tmp_path, heirs=True):
        pass


# ---------------------------------------------------------------------------------------------------- confined


INSIDE = {
    "results": "results",
    "a/b/c": "a/b/c",
    "./a//b/": "a/b",
    "random-agent_2.1": "random-agent_2.1",
    "/tmp/random-agent-results": "random-agent-results",
    "/var/folders/zz/T/random-agent-results/": "random-agent-results",
    "/etc/passwd": "passwd",
    "//server/share": "share",
}


def test_a_name_becomes_a_folder_inside_the_root(tmp_path):
    for number, (name, inner) in enumerate(INSIDE.items()):
        top = tmp_path / str(number)
        root = top / "not" / "yet"
        assert confined(root, name).path == root / inner and (root / inner).is_dir()
        assert confined(root, name).path == root / inner  # the second time, too
        assert confined(root, name, create=False).path == root / inner
        assert [path for path in top.rglob("*") if not (root / inner).is_relative_to(path)] == []


HOSTILE = [
    *("", ".", "..", "/", "//", "/.", "/..", "../x", "a/../x", "a/..", "/a/../x", "/tmp/..", "..\\x", "a\\b", "\\\\host\\share"),
    *("a\0b", "\0", "a\n", "a\rb", "a\x1b[2J", "a\x7f", "a\x85b", "C:", "C:\\x", "c:/x", "/C:/x", "C:x", "a:b"),
    *("%2e%2e/x", "%2e%2e%2fx", "%252e%252e%252fx", "..%2f..%2fx", "%c0%ae%c0%ae/x", "a%00b", "%", "..%5cx", "%u002e%u002e"),
    *("~", "~root", "~/x", "-rf", ".hidden", ".tmp-x", "$HOME", "a b", "*", "a;b", "`id`", "$(id)", "a|b", "'", '"', "<b>"),
    *("．．/x", "‥/x", "a∕..∕x", "é", "\ud800", "\u202etxt", "a\u200b", "/tmp/é", "/a\\..\\b/c", "/%2e%2e/x"),
    *("x" * 101, "/" + "x" * 101, "x/" * 500 + "x", "/".join("abcdefghi"), "a" * 100_000, "/" * 2000 + "x", ".../x", "..../x"),
    *(None, 5, True, ["a"], {"a": 1}, b"a", 1.5),
]  # fmt: skip


def test_a_name_that_could_lead_elsewhere_is_refused_and_makes_nothing(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    for name in HOSTILE:
        for create in (True, False):
            with pytest.raises(BadInput, match="cannot be a folder here|a folder is named by a string") as error:
                confined(root, name, create)
            assert list(tmp_path.rglob("*")) == [root] and len(str(error.value)) < 400, ascii(name)[:40]


@given(st.text(st.characters() | st.sampled_from("./\\%:~\0ab"), max_size=30))
def test_no_name_at_all_leads_out_of_the_root(tmp_path_factory, name):
    top = tmp_path_factory.mktemp("top")
    root = top / "a" / "b" / "root"
    root.mkdir(parents=True)
    try:
        made = confined(root, name).path
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
            with pytest.raises(BadInput, match="cannot be a folder here|there is no folder"):
                confined(root, name, create)
    assert list(outside.iterdir()) == [] and list((root / "real").iterdir()) == [root / "real" / "out"]


def test_the_root_itself_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "disk")
    assert confined(tmp_path / "root", "a").path == tmp_path / "disk" / "a"


def test_a_file_in_the_way_and_a_folder_that_is_missing(tmp_path):
    (tmp_path / "file").write_text("keep")
    for name in ("file", "file/x"):
        with pytest.raises(BadInput, match="'file.*' cannot be a folder here: a link or a file is in the way"):
            confined(tmp_path, name)
    for name in ("missing", "missing/x"):
        with pytest.raises(BadInput, match="there is no folder 'missing.*' here"):
            confined(tmp_path, name, create=False)
    assert (tmp_path / "file").read_text() == "keep" and os.listdir(tmp_path) == ["file"]


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
            patch.setattr(files.os, call.__name__, swapping(call))
        try:
            confined(root.resolve(), "a/b").write("mine", b"data")
        except BadInput as error:
            assert "'a/b' cannot be a folder here: a link" in str(error)
        else:
            assert (tmp_path / "aside" / "b" / "mine").read_bytes() == b"data"
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


def test_only_small_regular_files_are_read(tmp_path):
    path, before = tmp_path / "data", len(os.listdir("/proc/self/fd"))

    def refusal(words):
        with pytest.raises(Damaged, match=words):
            read_regular(path, 10)

    refusal("data is missing")
    path.write_bytes(b"0123456789")
    assert read_regular(path, 10) == b"0123456789"
    path.write_bytes(b"0123456789a")
    refusal("data has 11 bytes, more than the 10 it may have")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    refusal("data is not a regular file but a symbolic link")
    path.unlink()
    os.link(tmp_path / "elsewhere", path)
    refusal("data is not a regular file but one with 2 names")
    path.unlink()
    os.mkfifo(path)
    refusal("data is not a regular file but a pipe")
    path.unlink()
    path.mkdir()
    refusal("data is not a regular file but a folder")
    assert len(os.listdir("/proc/self/fd")) == before
