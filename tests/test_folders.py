"""Folders that names from outside cannot leave."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whorl import folders
from whorl.errors import BadInput
from whorl.folders import confined

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
            patch.setattr(folders.os, call.__name__, swapping(call))
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
