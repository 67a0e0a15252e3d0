"""Files that are whole or not there, and locks."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from whorl import files
from whorl.errors import BadInput, Damaged
from whorl.files import read_regular


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


# ---------------------------------------------------------------------------------------------------- reading


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
