"""What an entry is: read back as written, refused wherever it was changed, and never on a board in parts."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cases import each
from whorl.apps.board import entry
from whorl.apps.board.forms import EPISODES
from whorl.apps.board.merge import merge
from whorl.errors import BadInput, Damaged


@pytest.fixture
def copy(made, tmp_path):
    """The same entry on a board of its own."""
    return copied(made, tmp_path)


def copied(made, folder: Path) -> Path:
    shutil.copytree(made.path.parent, folder / "board" / "entries")
    return folder / "board" / "entries" / made.id


def canonical(data) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":")).encode()


def change(path: Path, place: str, value, forged: bool = True) -> Path:
    """Writes a field (dotted where nested) into entry.json; forged: with the id that fits, in a folder of that name."""
    data = json.loads((path / "entry.json").read_bytes())
    *outer, name = place.split(".")
    inner = data
    for key in outer:
        inner = inner[key]
    inner[name] = value
    if forged:
        data["id"] = hashlib.sha256(canonical({k: v for k, v in data.items() if k != "id"})).hexdigest()[:16]
    (path / "entry.json").write_text(json.dumps(data))
    return path.rename(path.with_name(data["id"]))


def test_an_entry_reads_back_as_it_was_written(made):
    again = entry.read(made.path)
    assert again == made
    data = json.loads((made.path / "entry.json").read_bytes())
    assert {name: getattr(made, name) for name in data} == data
    assert (made.author, made.note) == ("Ada", "first <b>try</b> \N{GRINNING FACE} Zürich")
    assert sorted(os.listdir(made.path)) == sorted(entry.LIMITS)


def test_id_and_setting_are_hashes_that_anybody_can_compute(made):
    data = json.loads((made.path / "entry.json").read_bytes())
    content = canonical({name: value for name, value in data.items() if name != "id"})
    assert made.id == made.path.name == hashlib.sha256(content).hexdigest()[:16]
    of_run = ("num_envs", "total_steps", "total_episodes", "max_episode_steps", "compile")
    parts = {name: data[name] for name in ("env", "agent", "config")} | {n: data["settings"][n] for n in of_run}
    assert made.setting == hashlib.sha256(canonical(parts)).hexdigest()[:12]
    policy = (made.path / "policy.safetensors").read_bytes()
    assert made.policy_sha256 == hashlib.sha256(policy).hexdigest()


def test_the_layout_of_the_json_is_nobodys_business(copy, made):
    data = json.loads((copy / "entry.json").read_bytes())
    (copy / "entry.json").write_text(json.dumps(dict(reversed(data.items())), indent=4))
    assert entry.read(copy).returns == made.returns


def test_a_field_that_was_changed_is_found(made, tmp_path):
    for number, field in enumerate(
        each(["author", "mean", "returns", "config.learning_rate", "settings.seed", "machine.cpu", "steps", "command"])
    ):
        copy = copied(made, tmp_path / str(number))
        old = json.loads((copy / "entry.json").read_bytes())
        for key in field.split("."):
            old = old[key]
        new = f"{old}!" if isinstance(old, str) else [*old[:-1], old[-1] + 1] if isinstance(old, list) else old * 2 + 1
        path = change(copy, field, new, forged=False)
        with pytest.raises(Damaged, match="entry.json.*(is .*, but the rest of the entry gives|it was changed)"):
            entry.read(path)


BAD = [
    ("format", 2, "format should be 1"),
    ("format", True, "format should be 1"),
    ("env", "os:system-v0", "env should be an environment's id, without ':', got 'os:system-v0'"),
    ("env", "http://127.0.0.1:5000/CartPole-v1", "env should be an environment's id"),
    ("env", "../CartPole-v1", "env should be an environment's id"),
    ("env", "a/b/c", "env should be"),
    ("env", "CartPole-v1\n", "env should be"),
    ("env", "x" * 101, "env should be"),
    ("agent", "../ppo", "agent should be an agent's name"),
    ("author", "a\nb", "author should be a line of at most 200 characters"),
    ("author", "\x1b[2J", "author should be a line"),
    ("author", "x" * 201, "author should be a line"),
    ("author", "\u202etxt.exe", "author should be a line"),
    ("author", "\ud800", "author should be a line"),
    ("author", "a\u2028b", "author should be a line"),
    ("note", None, "note should be a line"),
    ("note", ["x"], "note should be a line"),
    ("command", "whorl train\nrm -rf x", "command should be null, or a line of at most 2000"),
    ("created", "2026-13-01T00:00:00Z", "created should be a time such as"),
    ("created", "yesterday", "created should be a time"),
    ("settings", [], "settings should be an object"),
    ("settings.seed", "0", "settings.seed should be a whole number of 0 or more"),
    ("settings.seed", True, "settings.seed should be a whole number"),
    ("settings.num_envs", 0, "settings.num_envs should be a whole number of 1 or more"),
    ("settings.compile", 1, "settings.compile should be a switch"),
    ("settings.more", {"a": 1}, "settings.more should be null, a switch, a number or a short line"),
    ("config", {"a": {"b": {"c": {"d": {"e": {"f": {}}}}}}}, "config should be an object of numbers"),
    ("config.<b>", 1, "config should be an object of numbers"),
    ("config.hidden", list(range(101)), "config should be an object of numbers"),
    ("versions.torch", 2, "versions.torch should be null, or a line"),
    ("machine.host", "secret", "'?machine.host'? is no field of an entry"),
    ("commit", "main; rm", "commit should be null, or a commit"),
    ("evaluated", {}, "evaluated should be an object of versions and machine"),
    ("steps", 1.5, "steps should be a whole number of 0 or more"),
    ("seconds", -1, "seconds should be null, or a number of 0 or more"),
    ("steps_per_second", float("inf"), "Infinity is no JSON number"),
    ("protocol", {"episodes": EPISODES, "seed": 1, "greedy": True}, "protocol should be .*20170901"),
    ("returns", [500.0] * 99, "returns should be 100 finite numbers"),
    ("returns", [float("nan")] * 100, "NaN is no JSON number"),
    ("returns", ["500"] * 100, "returns should be 100 finite numbers"),
    ("returns", [500.0] * 100, "(mean|std) is .*, but the rest of the entry gives"),
    ("lengths", [0] * 100, "lengths should be 100 whole numbers of 1 or more"),
    ("mean", 500.0, "mean is 500.0, but the rest of the entry gives"),
    ("std", 0.0, "std is 0.0, but the rest of the entry gives"),
    ("reward_threshold", -5, "steps_to_threshold is None, but the rest of the entry gives"),
    ("steps_to_threshold", 5, "steps_to_threshold is 5, but the rest of the entry gives None"),
    ("setting", "0" * 12, "setting is .*000000000000.*, but the rest"),
    ("which", "luckiest", "which should be best or last"),
    ("policy_sha256", "0" * 64, "policy_sha256 is .*, but the rest"),
    ("gif_returns", None, "gif_returns is None, but the rest of the entry gives"),
    ("gif_returns", {"best": 500.0, "typical": 500.0}, "gif_returns is .*, but the rest of the entry gives"),
    ("gif_sha256", None, "gif_sha256 is None, but the rest"),
    ("anything", 1, "anything is no field of an entry"),
]  # fmt: skip


def test_a_field_that_no_entry_may_have_is_refused_even_under_the_right_id(made, tmp_path):
    for number, (field, value, message) in enumerate(each(BAD)):
        copy = copied(made, tmp_path / str(number))
        path = change(copy, field, value)
        with pytest.raises(Damaged, match=rf"{path.name}.*entry.json.*{message}"):
            entry.read(path)


def test_a_field_that_is_missing_is_named(made, tmp_path):
    for number, field in enumerate(each(["env", "returns", "settings", "protocol", "gif_sha256"])):
        copy = copied(made, tmp_path / str(number))
        data = json.loads((copy / "entry.json").read_bytes())
        del data[field]
        (copy / "entry.json").write_text(json.dumps(data))
        with pytest.raises(Damaged, match=f"entry.json: {field} is missing"):
            entry.read(copy)


def test_what_is_no_json_object(made, tmp_path):
    for number, (text, message) in enumerate(
        each(
            [
                (b"", "is not valid JSON"),
                (b'{"id": "', "is not valid JSON"),
                (b"[" * 100_000, "is not valid JSON"),
                (b'{"mean": ' + b"9" * 10_000 + b"}", "is not valid JSON"),
                (b"\xff\xfe\x00", "is not valid JSON"),
                (b"[1, 2]", r"should hold one JSON object, got '\[1, 2\]'|should hold one JSON object, got \[1, 2\]"),
            ]
        )
    ):
        copy = copied(made, tmp_path / str(number))
        (copy / "entry.json").write_bytes(text)
        with pytest.raises(Damaged, match=message):
            entry.read(copy)


def test_a_curve_that_is_none(made, tmp_path):
    for number, (curve, message) in enumerate(
        each(
            [
                (
                    {"step": [2, 1], "seconds": None, "mean": [1, 1], "std": [0, 0]},
                    "step should be rising whole numbers",
                ),
                ({"step": [1], "seconds": [1, 2], "mean": [1], "std": [0]}, "its lists should be of equal length"),
                ({"step": [1], "seconds": [-1], "mean": [1], "std": [0]}, "seconds should be null, or rising numbers"),
                ({"step": [1], "seconds": None, "mean": ["<i>"], "std": [0]}, "mean should be finite numbers"),
                ({"step": [1], "seconds": None, "mean": [1]}, "std is missing"),
            ]
        )
    ):
        copy = copied(made, tmp_path / str(number))
        (copy / "curve.json").write_text(json.dumps(curve))
        with pytest.raises(Damaged, match=rf"curve.json.*{message}"):
            entry.read(change(copy, "curve_sha256", hashlib.sha256(json.dumps(curve).encode()).hexdigest()))


def test_a_file_that_was_changed_is_found(made, tmp_path):
    for number, (name, field) in enumerate(
        each(
            [
                ("policy.safetensors", "policy_sha256"),
                ("curve.json", "curve_sha256"),
                ("best.gif", "gif_sha256"),
                ("typical.gif", "gif_sha256"),
            ]
        )
    ):
        copy = copied(made, tmp_path / str(number))
        data = (copy / name).read_bytes()
        (copy / name).write_bytes(data + b" ")
        with pytest.raises(Damaged, match=rf"entry.json: {field} is .*, but the rest of the entry gives"):
            entry.read(copy)


def test_a_page_is_no_gif(copy):
    page = b"<html><script>alert(1)</script>"
    for name in ("best.gif", "typical.gif"):
        (copy / name).write_bytes(page)
    digest = hashlib.sha256(page).hexdigest()
    with pytest.raises(Damaged, match=r"best.gif is not a GIF"):
        entry.read(change(copy, "gif_sha256", {"best": digest, "typical": digest}))


def test_a_folder_that_is_called_otherwise_is_refused(copy):
    with pytest.raises(Damaged, match="entry.json hashes to .* and its folder '?0000000000000000'?: it was changed"):
        entry.read(copy.rename(copy.with_name("0" * 16)))


def test_foreign_missing_and_odd_files(copy, made, tmp_path):
    (copy / "extra.html").write_text("<script>")
    with pytest.raises(Damaged, match="holds extra.html, which is no part of an entry"):
        entry.read(copy)
    (copy / "extra.html").unlink()
    (copy / "policy.safetensors").rename(tmp_path / "elsewhere")
    with pytest.raises(Damaged, match="is not an entry: policy.safetensors is missing"):
        entry.read(copy)
    (copy / "policy.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Damaged, match="policy.safetensors is not a regular file but a symbolic link"):
        entry.read(copy)
    (copy / "policy.safetensors").unlink()
    os.mkfifo(copy / "policy.safetensors")
    with pytest.raises(Damaged, match="policy.safetensors is not a regular file"):
        entry.read(copy)
    (copy / "policy.safetensors").unlink()
    with open(copy / "policy.safetensors", "wb") as file:
        file.truncate(257 << 20)  # takes no room on disk
    with pytest.raises(
        Damaged, match="policy.safetensors has 269,484,032 bytes, more than the 268,435,456 it may have"
    ):
        entry.read(copy)


def test_an_entry_is_found_from_inside_its_folder(made, monkeypatch):
    monkeypatch.chdir(made.path)
    assert entry.read(entry.find(".")) == made


def test_a_name_that_writes_to_the_terminal_is_escaped(tmp_path):
    (tmp_path / "entries" / "\x1b[2J\u202ename").mkdir(parents=True)
    _, [problem] = entry.entries(tmp_path)
    assert problem.isprintable() and "\\x1b[2J\\u202ename" in problem
    assert merge([tmp_path], tmp_path / "all").problems == [problem]


def test_what_is_no_entry_or_no_board(tmp_path, made):
    with pytest.raises(BadInput, match="is not an entry: there is no such folder"):
        entry.read(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="is not a board: there is no folder .*entries. `whorl submit RUN --board"):
        entry.entries(tmp_path)
    with pytest.raises(BadInput, match=r"there is no entry 0123456789abcdef: name its folder, or its id"):
        entry.find("0123456789abcdef", made.path.parents[1])
    assert entry.find(made.id, made.path.parents[1]) == entry.find(made.path) == made.path


def test_one_bad_entry_does_not_hide_the_others(copy, made, tmp_path):
    inside = copy.parent
    other = change(shutil.copytree(copy, tmp_path / "other" / made.id), "author", "Grace")
    other.rename(inside / other.name)
    (inside / "<script>").mkdir()
    (inside / "file.txt").write_text("")
    (inside / "link").symlink_to(copy, target_is_directory=True)
    (inside / ".tmp-of-a-writer").mkdir()
    good, problems = entry.entries(tmp_path / "board")
    assert sorted(e.author for e in good) == ["Ada", "Grace"]
    assert [e.id for e in good] == sorted(e.id for e in good)
    assert [p.split("entries/")[1].split(" is")[0] for p in problems] == ["<script>", "file.txt", "link"]
    assert "entry.json is missing" in problems[0] and "link is not a folder but a symbolic link" in problems[2]


# ------------------------------------------------------------------------------------------------------ publishing


def test_publishing_twice_and_at_the_same_time_gives_one_entry(made, tmp_path):
    files = entry.contents(made.path)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: entry.publish(tmp_path, files), range(16)))
    assert {e.id for e in found} == {made.id} and os.listdir(tmp_path / "entries") == [made.id]
    assert entry.contents(tmp_path / "entries" / made.id) == files


def test_a_full_disk_leaves_the_board_as_it_was(made, tmp_path):
    files = entry.contents(made.path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(files["policy.safetensors"]) - 1, hard))
    try:
        with pytest.raises(OSError, match="File too large: the entry could not be written to .*, which is as it was"):
            entry.publish(tmp_path, files)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path / "entries") == []
    assert entry.publish(tmp_path, files).id == made.id


def test_a_damaged_entry_is_never_taken_for_the_one_that_is_written(copy, made, tmp_path):
    files = entry.contents(made.path)
    (copy / "curve.json").write_text("{}")
    with pytest.raises(Damaged, match=r"curve.json: step is missing"):
        entry.publish(tmp_path / "board", files)
    with pytest.raises(Damaged, match="policy_sha256 is .*, but the rest"):
        entry.publish(tmp_path / "new", files | {"policy.safetensors": b""})
    assert not (tmp_path / "new").exists()


def test_a_claim_that_cannot_be_one_is_refused_before_anything_is_written(made, tmp_path):
    names = set(json.loads((made.path / "entry.json").read_bytes()))
    claim = {name: getattr(made, name) for name in names} | {"author": "a\nb"}
    with pytest.raises(BadInput, match="this cannot be an entry: .*author should be a line"):
        entry.write(tmp_path, claim, made.curve, b"", {})
    assert os.listdir(tmp_path) == []


WRITER = """
import sys
from pathlib import Path
from whorl.apps.board import entry
files = entry.contents(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    entry.publish(sys.argv[2], files)
    for path in entry.folders(sys.argv[2]):
        path.rename(path.with_name(".tmp-used"))
        __import__("shutil").rmtree(path.with_name(".tmp-used"))
"""


@pytest.mark.fault
def test_a_killed_writer_leaves_no_part_of_an_entry(made, tmp_path):
    for number in range(6):
        process = subprocess.Popen([sys.executable, "-c", WRITER, made.path, tmp_path], stdout=subprocess.PIPE)
        assert process.stdout and process.stdout.readline() == b"ready\n"
        time.sleep(0.003 + 0.011 * number)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert entry.entries(tmp_path)[1] == [] if (tmp_path / "entries").exists() else number == 0
        shutil.rmtree(tmp_path / "entries" / ".tmp-used", ignore_errors=True)
