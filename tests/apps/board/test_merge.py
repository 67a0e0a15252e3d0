"""Boards into one: intact entries once each, the damaged ones reported, nothing in parts."""

from __future__ import annotations

import dataclasses
import os
import shutil

import pytest

from whorl.apps.board import entry
from whorl.apps.board.merge import merge
from whorl.errors import BadInput, Damaged


@pytest.fixture
def board(made, tmp_path):
    """(name, authors) -> a board with one entry by each author."""

    def write(name, *authors):
        files = entry.contents(made.path)
        gifs = {gif: files[f"{gif}.gif"] for gif in ("best", "typical")}
        for author in authors:
            claim = {f.name: getattr(made, f.name) for f in dataclasses.fields(made)} | {"author": author}
            del claim["path"], claim["curve"]
            entry.write(tmp_path / name, claim, made.curve, files["policy.safetensors"], gifs)
        return tmp_path / name

    return write


def by(board):
    return {e.author: e.path for e in entry.entries(board)[0]}


def test_two_boards_become_one_and_the_same_entry_comes_once(board, tmp_path):
    one, two = board("one", "Ada", "Grace"), board("two", "Grace", "Hedy")
    into = tmp_path / "new" / "all"
    done = merge([one, two], into)
    assert sorted(done.added) == sorted(os.listdir(into / "entries")) and len(done.added) == 3
    assert done.present == [by(one)["Grace"].name] and done.problems == []
    assert sorted(by(into)) == ["Ada", "Grace", "Hedy"] and entry.entries(into)[1] == []
    for author, path in by(into).items():
        source = by(one).get(author) or by(two)[author]
        assert entry.contents(path) == entry.contents(source)
    again = merge([one, two, into], into)
    assert again.added == [] and len(again.present) == 7 and again.problems == []


def test_what_is_damaged_or_foreign_is_reported_and_stays_out(board, tmp_path):
    one, secret = board("one", "Ada", "Grace"), tmp_path / "secret"
    secret.mkdir()
    (by(one)["Grace"] / "policy.safetensors").write_bytes(b"")
    (one / "entries" / "outside").symlink_to(secret, target_is_directory=True)
    (one / "entries" / "notes.txt").write_text("hello")
    done = merge([one], tmp_path / "into")
    assert len(done.added) == 1 and list(by(tmp_path / "into")) == ["Ada"]
    assert sorted(os.listdir(tmp_path / "into" / "entries")) == done.added
    damaged, notes, outside = sorted(done.problems, key=lambda text: ("outside" in text, "notes" in text))
    assert "policy_sha256 is" in damaged and "but the rest of the entry gives" in damaged
    assert "notes.txt is not a folder but a file" in notes
    assert "outside is not a folder but a symbolic link" in outside


def test_a_damaged_entry_in_the_target_is_reported_and_left_as_it_is(board, tmp_path):
    one, into = board("one", "Ada", "Grace"), tmp_path / "into"
    shutil.copytree(one, into)
    (by(into)["Ada"] / "curve.json").write_text("{}")
    ada = by(one)["Ada"].name
    done = merge([one], into)
    assert done.added == [] and done.present == [by(one)["Grace"].name]
    assert len(done.problems) == 1 and f"into/entries/{ada}/curve.json: step is missing" in done.problems[0]
    assert (into / "entries" / ada / "curve.json").read_text() == "{}"


def test_nothing_is_written_when_a_source_is_no_board(board, tmp_path):
    with pytest.raises(BadInput, match="nowhere is not a board"):
        merge([board("one", "Ada"), tmp_path / "nowhere"], tmp_path / "into")
    assert not (tmp_path / "into").exists()


def test_entries_that_are_a_link_lead_nowhere(board, tmp_path):
    """Neither those of a source nor those of the board that is merged into."""
    one, outside = board("one", "Ada"), tmp_path / "outside"
    outside.mkdir()
    for source, into in ((one, tmp_path / "into"), (tmp_path / "linked", tmp_path / "new")):
        linked = into if source == one else source
        linked.mkdir()
        (linked / "entries").symlink_to(outside if linked == into else one / "entries")
        if linked == into:
            done = merge([source], into)
            assert not done.added and "entries is not a folder but a symbolic link" in done.problems[0]
        else:
            with pytest.raises(Damaged, match="entries is not a folder but a symbolic link"):
                merge([source], into)
        assert not list(outside.iterdir())
