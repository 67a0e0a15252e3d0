"""The exported pages: complete without scripts, closed in themselves, right in their numbers, and written all at once."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import numpy as np
import pytest
from PIL import Image

from benchmarks.board import fill, gif, invented
from tests.cases import each
from whorl.apps.board import chart, entry, page, rank, view
from whorl.apps.board.page import MARKER, export
from whorl.apps.board.references import references
from whorl.errors import BadInput
from whorl.functional.bands import iqm_band
from whorl.training.plot import Curves, Evaluations, flat

VOID = {"meta", "link", "img", "input", "source", "line", "path", "circle"}


class Page(HTMLParser):
    """What a browser would see: elements with their attributes, and the text of tables' cells."""

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.elements, self.open = path, [], []
        self.tables: list[dict] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open, f"{path.name} leaves {self.open} open"

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        assert len(given) == len(attributes), f"{tag} has an attribute twice"
        self.elements.append((tag, given))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append({"rows": [], "head": [], "caption": "", "class": given.get("class", "")})
        if tag == "tr" and "tbody" in self.open:
            self.tables[-1]["rows"].append([])
        if tag in ("td", "th") and "tbody" in self.open:
            self.tables[-1]["rows"][-1].append("")
        if tag == "th" and "thead" in self.open:
            self.tables[-1]["head"].append("")

    handle_startendtag = lambda self, tag, attributes: self.elements.append((tag, dict(attributes)))  # noqa: E731

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"{self.path.name}: </{tag}> closes nothing"

    def handle_data(self, data):
        if "caption" in self.open:
            self.tables[-1]["caption"] += data
        elif "tbody" in self.open and {"td", "th"} & set(self.open):
            self.tables[-1]["rows"][-1][-1] += data
        elif "thead" in self.open and "th" in self.open:
            self.tables[-1]["head"][-1] += data

    def cells(self, table: int) -> list[list[str]]:
        return [[re.sub(r"\s+", " ", cell).strip() for cell in row] for row in self.tables[table]["rows"]]

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """Three environments: one with ties and few seeds, one without pictures or references, one of a single run."""
    root = tmp_path_factory.mktemp("pages") / "board"
    fill(root, ["CartPole-v1"], 9, 5, 12)
    fill(root, ["ALE/Pong-v5"], 2, 2, 12, gifs=False)
    fill(root, ["Lonely-v0"], 1, 1, 12)
    return root


@pytest.fixture(scope="module")
def pages(board, tmp_path_factory):
    return export(board, tmp_path_factory.mktemp("export") / "pages")


def slug(env: str) -> str:
    return view.slugs([env])[env]


def one(board: Path, **changes) -> entry.Entry:
    """An entry of its own on a board."""
    claim, curve = invented(np.random.default_rng(0), "CartPole-v1", 0, 0, 12)
    gifs = changes.pop("gifs", {})
    curve |= changes.pop("curve", {})
    claim |= {"gif_returns": dict.fromkeys(gifs, 1.0) or None} | changes
    return entry.write(board, claim, curve, b"policy", gifs)


# ------------------------------------------------------------------------------------------------ closed in itself


def test_every_link_stays_in_the_folder_and_leads_somewhere(pages):
    reached = {pages / "index.html"}
    waiting = [pages / "index.html"]
    while waiting:
        path = waiting.pop()
        found = Page(path)
        ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
        assert len(ids) == len(set(ids))
        for tag, attributes in found.elements:
            for name in ("href", "src", "srcset"):
                target = attributes.get(name)
                if target is None or (tag == "a" and target.startswith("https://") and "noopener" in attributes["rel"]):
                    continue
                assert not re.match(r"[a-z]+:|//|/", target), f"{path.name} asks for {target}"
                place, fragment = urldefrag(target)
                assert not fragment or fragment in ids
                file = (path.parent / unquote(place)).resolve() if place else path
                assert file.is_relative_to(pages) and file.is_file(), f"{path.name} leads to {target}"
                if file.suffix == ".html" and file not in reached:
                    reached.add(file)
                    waiting.append(file)
    assert reached == set(pages.rglob("*.html"))  # and no page is out of reach


def test_nothing_runs_or_styles_but_the_two_files(pages):
    for path in pages.rglob("*.html"):
        found = Page(path)
        [policy] = [meta["content"] for meta in found.all("meta") if "http-equiv" in meta]
        assert policy == page.POLICY and "unsafe" not in policy and "*" not in policy
        assert [s.get("src", s.get("type")) for s in found.all("script")][0].endswith("static/board.js")
        assert all("src" in s or s["type"] == "application/json" for s in found.all("script"))
        assert not found.all("style") and not found.all("iframe") and not found.all("object")
        assert not [name for _, given in found.elements for name in given if name == "style" or name.startswith("on")]
    static = {path.name for path in (pages / "static").iterdir()}
    assert static == {"board.css", "board.js", "whorl.svg"}
    assert "http" not in (pages / "static" / "board.css").read_text()
    assert not re.search(r"eval|Function\(|innerHTML|fetch|XMLHttp|http", (pages / "static" / "board.js").read_text())


def test_tables_and_pictures_are_described(pages):
    for path in pages.rglob("*.html"):
        found = Page(path)
        assert found.all("html") == [{"lang": "en"}] and len(found.all("h1")) == 1
        assert all(table["caption"].strip() for table in found.tables)
        assert all(given.get("scope") in ("col", "row") for given in found.all("th"))
        assert all(given["alt"] for given in found.all("img") if "whorl.svg" not in given["src"])
        assert all(given["loading"] == "lazy" for given in found.all("img") if "media/" in given["src"])
        for given in found.all("svg"):
            assert given.get("aria-hidden") == "true" or (given["role"] == "img" and given["aria-label"])
        boxes = [given for given in found.all("div") if given.get("class") == "scroll"]
        assert all(given["tabindex"] == "0" and given["role"] == "region" and given["aria-label"] for given in boxes)


# ------------------------------------------------------------------------------------------------ what it says


def test_the_ranking_shows_the_rows(board, pages):
    good, _ = entry.entries(board)
    for env, rows in rank.rows(good).items():
        found = Page(pages / "env" / f"{slug(env)}.html")
        assert found.tables[0]["head"][:3] == ["Rank", "Agent", "IQM"]
        shown = found.cells(0)
        assert len(shown) == len(rows)
        for cells, row in zip(shown, rows):
            assert cells[0] == ("=" if row.tied else "") + str(row.rank)
            assert cells[1].startswith(row.agent)
            assert all(name in cells[1] for name in list(row.differences)[: view.SHOWN])
            assert cells[2] == f"{row.iqm:.1f}"
            assert cells[3] == (f"{row.low:.1f} to {row.high:.1f}" if row.seeds > 1 else "one seed")
            assert cells[4] == f"{row.seeds}" + (" few seeds" if row.seeds < 5 else "")
            assert cells[8].split() == [str(each.settings["seed"]) for each in row.entries]
            if row.steps_to_threshold is None:
                assert cells[5] == (f"{row.reached} of {row.seeds} seeds" if row.reached else "–")
            else:
                assert cells[5] == f"{row.steps_to_threshold / 1000:g}k" and cells[6].endswith((" s", " min"))


def test_the_first_page_shows_the_best_of_each_environment(board, pages):
    good, _ = entry.entries(board)
    tables = rank.rows(good)
    cells = {row[0]: row for row in Page(pages / "index.html").cells(0)}
    assert list(cells) == sorted(tables, key=str.lower)
    for env, rows in tables.items():
        runs = [each for row in rows for each in row.entries]
        assert cells[env][1] == f"{rows[0].iqm:.1f}" and cells[env][3].startswith(rows[0].agent)
        assert [int(cell.split()[0]) for cell in cells[env][4:7]] == [rows[0].seeds, len(rows), len(runs)]
        assert cells[env][7] == max(each.created for each in runs)[:10]


def test_published_scores_stand_apart_and_name_their_source(pages):
    found = Page(pages / "env" / "CartPole-v1.html")
    published = [
        cells for i, table in enumerate(found.tables) if "published" in table["class"] for cells in found.cells(i)
    ]
    known = references("CartPole-v1")
    assert len(published) == len(known) > 0
    for cells, reference in zip(published, known):
        assert cells[0] == f"{reference.agent} published" and cells[6] == f"{reference.source}, {reference.note}"
        assert float(cells[1].replace(",", "")) == pytest.approx(reference.score, abs=0.051)
    links = [given["href"] for given in found.all("a") if given["href"].startswith("https://")]
    assert links == [reference.url for reference in known]
    assert "Published" not in (pages / "env" / f"{slug('ALE/Pong-v5')}.html").read_text()


def test_the_csv_is_the_table(board, pages):
    rows = rank.rows(entry.entries(board)[0])["CartPole-v1"]
    lines = list(csv.DictReader(io.StringIO((pages / "data" / "CartPole-v1.csv").read_text())))
    for line, row in zip(lines, rows, strict=True):
        assert (int(line["rank"]), line["agent"], int(line["seeds"])) == (row.rank, row.agent, row.seeds)
        assert (float(line["iqm"]), float(line["low"]), float(line["high"])) == (row.iqm, row.low, row.high)
        assert line["steps_to_threshold"] == ("" if row.steps_to_threshold is None else str(row.steps_to_threshold))


def test_a_run_page_says_what_the_entry_says(board, pages):
    for one_run in entry.entries(board)[0]:
        found = Page(pages / "run" / f"{one_run.id}.html")
        pairs = dict(row for i, table in enumerate(found.tables) if "pairs" in table["class"] for row in found.cells(i))
        config = flat(one_run.config)
        assert {name: json.loads(pairs[name]) for name in config} == config
        assert pairs["entry"] == one_run.id and pairs["seed"] == str(one_run.settings["seed"])
        assert pairs["versions"] == ", ".join(f"{name} {version}" for name, version in one_run.versions.items())
        assert pairs["protocol"] == "100 episodes, seed 20170901, greedy actions" and "Invented CPU" in pairs["machine"]
        text = (pages / "run" / f"{one_run.id}.html").read_text()
        assert f'<code id="command">{one_run.command}</code>' in text
        assert f'<b class="score">{chart.number(one_run.mean)}</b>' in text
        assert ", ".join(map(chart.number, one_run.returns)) in text


def test_the_config_difference_is_that_of_the_rows(board, pages):
    rows = rank.rows(entry.entries(board)[0])["CartPole-v1"]
    here = rows[3]
    html = (pages / "run" / f"{here.entries[0].id}.html").read_text()
    settings = json.loads(re.search(r'id="settings">(.*?)</script>', html)[1])
    others = [row for row in rows if row is not here]
    assert len(settings["others"]) == len(others) and html.count("<option ") == len(others)
    for pairs, other in zip(settings["others"], others):
        mine, theirs = dict(settings["here"]), dict(pairs)
        differing = {
            name: (mine.get(name), theirs.get(name)) for name in mine | theirs if mine.get(name) != theirs.get(name)
        }
        expected = rank.config_difference(here, other)
        assert set(differing) == set(expected)
        for name, values in expected.items():
            assert differing[name] == tuple(None if name not in row.options and name != "agent" else json.dumps(value)
                                            for row, value in zip((here, other), values))  # fmt: skip
    found = Page(pages / "run" / f"{here.entries[0].id}.html")
    [shown] = [found.cells(i) for i, table in enumerate(found.tables) if "differ" in table["caption"]]
    assert {row[0] for row in shown} == set(rank.config_difference(here, rows[0]))


def test_eight_rows_are_drawn_over_both_axes(board, pages):
    html = (pages / "env" / "CartPole-v1.html").read_text()
    assert html.count('<path class="line"') == html.count('<path class="band"') == 2 * 8
    assert html.count('<path class="seed"') == 2 * 8 * 5
    assert 'class="by-steps"' in html and 'class="by-seconds"' in html and "1 more in the table" in html
    swatches = re.findall(r"swatch s(\d)", html)
    assert sorted(swatches) == sorted([str(i) for i in range(8)] * 2)  # in the table and in the legend


def test_runs_without_times_have_one_axis(tmp_path):
    one(tmp_path / "board", curve={"seconds": None})
    html = (export(tmp_path / "board", tmp_path / "out") / "env" / "CartPole-v1.html").read_text()
    assert 'class="by-steps"' in html and "by-seconds" not in html and "axis-seconds" not in html


def test_a_seed_that_ran_twice_is_linked_and_does_not_count(tmp_path):
    for seconds in (1.0, 2.0):
        one(tmp_path / "board", seconds=seconds)
    pages = export(tmp_path / "board", tmp_path / "out")
    [cells] = Page(pages / "env" / "CartPole-v1.html").cells(0)
    assert cells[4] == "1 few seeds" and cells[8] == "0 again: 0"
    assert len(list((pages / "run").iterdir())) == 2


def test_rows_of_an_unknown_agent_can_be_told_apart(tmp_path):
    made = [one(tmp_path / "board", agent="mystery", config={"x": x}, note=str(x)) for x in (1, 2)]
    shown = [row[1] for row in Page(export(tmp_path / "board", tmp_path / "out") / "env" / "CartPole-v1.html").cells(0)]
    assert sorted(shown) == sorted(f"mystery setting {each.setting[:6]}" for each in made)


def test_an_empty_board_says_what_to_do(tmp_path):
    (tmp_path / "board" / "entries").mkdir(parents=True)
    assert "whorl submit RUN" in (export(tmp_path / "board", tmp_path / "out") / "index.html").read_text()


@pytest.mark.parametrize(
    "returns", [[0.0] * 100, [1e12] * 99 + [np.nextafter(1e12, 0)], [-1e-300] * 99 + [0.0], [-1e12] * 50 + [1e12] * 50]
)
def test_no_numbers_of_an_entry_break_the_pages(tmp_path, returns):
    numbers = {"step": [0, 2**62], "seconds": [0.0, 1e-300], "mean": [returns[0], returns[-1]], "std": [0.0, 0.0]}
    one(tmp_path / "board", returns=returns, reward_threshold=1e12, curve=numbers, seconds=1e12, steps=2**62)
    html = "".join(path.read_text() for path in export(tmp_path / "board", tmp_path / "out").rglob("*.html"))
    assert not re.search(r"[\s\">](nan|inf|-inf|none)\b", html, re.IGNORECASE)


def test_an_entry_of_a_thousand_options_makes_no_large_pages(tmp_path):
    tree = {f"group{i}": {f"option{j}": "x" * 190 for j in range(99)} for i in range(40)}
    one(tmp_path / "board", config=tree)
    claim, curve = invented(np.random.default_rng(1), "CartPole-v1", 1, 0)
    other = entry.write(tmp_path / "board", claim | {"gif_returns": None}, curve, b"policy", {})
    pages = export(tmp_path / "board", tmp_path / "out")
    assert (pages / "run" / f"{other.id}.html").stat().st_size < 150_000
    assert (pages / "env" / "CartPole-v1.html").stat().st_size < 50_000


def test_a_real_run_on_the_page(made, tmp_path):
    pages = export(made.path.parents[1], tmp_path / "out")
    found = Page(pages / "run" / f"{made.id}.html")
    pictures = [given for given in found.all("img") if "media" in given["src"]]
    assert [given["alt"] for given in pictures] == [
        f"{title} of ppo in CartPole-v1: return {chart.number(made.gif_returns[name])}"
        for name, title in (("best", "Best episode"), ("typical", "Typical episode"))
    ]
    for name, given in zip(("best", "typical"), pictures):
        file = pages / "media" / made.id / f"{name}.gif"
        assert file.read_bytes() == (made.path / f"{name}.gif").read_bytes()
        with Image.open(file) as moving, Image.open(file.with_suffix(".png")) as still:
            assert (int(given["width"]), int(given["height"])) == moving.size
            assert np.array_equal(
                np.asarray(moving.convert("RGB")), np.asarray(still.convert("RGB"))
            )  # its first frame
    assert "Ada" in (pages / "run" / f"{made.id}.html").read_text()


# ------------------------------------------------------------------------------------------------ strangers


def test_damaged_entries_are_named_and_counted_nowhere(tmp_path):
    good = one(tmp_path / "board")
    other = one(tmp_path / "board", note="to be forged")
    data = json.loads((other.path / "entry.json").read_text())
    (other.path / "entry.json").write_text(json.dumps(data | {"mean": 500.0}))
    (tmp_path / "board" / "entries" / "<i>stray").mkdir()
    pages = export(tmp_path / "board", tmp_path / "out")
    html = (pages / "index.html").read_text()
    assert "1 run of 1 setting in 1 environment" in html
    assert f"entries/{other.id}/entry.json: mean is 500.0" in html and "entries/&lt;i&gt;stray is not an entry" in html
    assert str(tmp_path) not in html  # pages are for others
    assert [path.stem for path in (pages / "run").iterdir()] == [good.id]


def test_pictures_that_are_links_or_no_pictures_are_left_out(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"GIF89a the secret")
    linked = one(tmp_path / "board", gifs={"best": gif(2), "typical": gif(2)})
    (linked.path / "best.gif").unlink()
    (linked.path / "best.gif").symlink_to(secret)
    broken = one(tmp_path / "board", gifs={"best": b"GIF89a", "typical": gif(2)}, note="no picture")
    pages = export(tmp_path / "board", tmp_path / "out")
    assert not [
        path for path in pages.rglob("*") if path.is_symlink() or (path.is_file() and b"secret" in path.read_bytes())
    ]
    html = (pages / "index.html").read_text()
    assert (
        f"entries/{broken.id}/best.gif is not shown" in html
        and f"entries/{linked.id}/best.gif is not a regular file" in html
    )
    assert os.listdir(pages / "media") == [broken.id]
    assert sorted(os.listdir(pages / "media" / broken.id)) == ["typical.gif", "typical.png"]


def test_slugs_are_safe_and_never_alike():
    envs = [
        "CartPole-v1",
        "cartpole-v1",
        "ALE/Pong-v5",
        "ALE_Pong-v5",
        "../../etc/passwd",
        "..",
        "",
        "日本",
        "Ünï-v0",
        "a" * 300,
        "\ud800",
        "a\0b",
        "CON",
    ]
    found = view.slugs(envs)
    assert list(found) == envs and len({name.lower() for name in found.values()}) == len(envs)
    assert all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", name) for name in found.values()), found
    assert found["CON"] == "CON" and view.slugs(["CartPole-v1"]) == {"CartPole-v1": "CartPole-v1"}


# ------------------------------------------------------------------------------------------------ all at once


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_board_gives_the_same_bytes(board, pages, tmp_path):
    shutil.copytree(board, tmp_path / "elsewhere")
    assert contents(export(tmp_path / "elsewhere", tmp_path / "out")) == contents(pages)


def test_an_earlier_export_is_replaced(tmp_path):
    first, second = one(tmp_path / "board"), one(tmp_path / "board", note="later")
    out = export(tmp_path / "board", tmp_path / "out")
    assert (out / "run" / f"{second.id}.html").exists()
    shutil.rmtree(second.path)
    assert export(tmp_path / "board", str(tmp_path / "out")) == out
    assert os.listdir(out / "run") == [f"{first.id}.html"] and sorted(os.listdir(tmp_path)) == ["board", "out"]


def test_a_folder_that_is_no_export_is_not_touched(tmp_path):
    one(tmp_path / "board")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(BadInput, match="mine is not empty and no earlier export: name another folder, or an empty one"):
        export(tmp_path / "board", mine)
    with pytest.raises(BadInput, match="thesis.txt is a file: pages are exported into a folder"):
        export(tmp_path / "board", mine / "thesis.txt")
    assert contents(mine) == {"thesis.txt": b"years of work"}


def test_what_was_added_to_an_export_is_not_deleted(tmp_path):
    one(tmp_path / "board")
    out = export(tmp_path / "board", tmp_path / "out")
    (out / ".git").mkdir()
    before = contents(out)
    with pytest.raises(
        BadInput, match=r"out holds '.git', which no export wrote and this one would delete: move it away"
    ):
        export(tmp_path / "board", out)
    assert contents(out) == before and (out / ".git").is_dir()


def test_a_board_does_not_replace_itself(tmp_path):
    one(tmp_path / "pages" / "board")
    (tmp_path / "pages" / MARKER).touch()
    for out in (tmp_path / "pages", tmp_path / "pages" / "board"):
        with pytest.raises(BadInput, match="holds the board itself: export into another folder"):
            export(tmp_path / "pages" / "board", out)
    with pytest.raises(BadInput, match="nowhere is not a board"):
        export(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("broken", ["write", "_swap"])
def test_an_export_that_fails_leaves_the_earlier_one(tmp_path, monkeypatch, broken):
    one(tmp_path / "board")
    out = export(tmp_path / "board", tmp_path / "out")
    before = contents(out)
    one(tmp_path / "board", note="later")
    rename = os.rename

    def full(source, target):
        if Path(target) == out and not failed:
            failed.append(source)
            raise OSError(28, "No space left on device")
        rename(source, target)

    failed: list[Path] = []
    if broken == "write":
        monkeypatch.setattr(page, "references", lambda env: 1 / 0)
    else:
        monkeypatch.setattr(page.os, "rename", full)
    with pytest.raises((ZeroDivisionError, OSError)):
        export(tmp_path / "board", out)
    assert contents(out) == before and sorted(os.listdir(tmp_path)) == ["board", "out"]


def test_an_export_goes_through_a_link_to_a_folder(tmp_path):
    one(tmp_path / "board")
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    assert export(tmp_path / "board", tmp_path / "out") == tmp_path / "real"
    assert (tmp_path / "out").is_symlink() and (tmp_path / "out" / "index.html").is_file()


# ------------------------------------------------------------------------------------------------ geometry


def test_a_curve_is_the_iqm_of_the_seeds_and_its_band():
    rng = np.random.default_rng(0)
    step, mean = np.arange(1, 11) * 1000.0, rng.uniform(0, 100, (4, 10))
    seeds = [Evaluations(step, step / 50 * (1 + i / 10), each, np.zeros(10)) for i, each in enumerate(mean)]
    found = chart.chart("steps", [Curves("ppo", "E-v0", {}, seeds)])
    to_y = dict(zip((float(label) for _, label in found.y_ticks), (y for y, _ in found.y_ticks)))
    (low, y_low), (high, y_high) = min(to_y.items()), max(to_y.items())

    def numbers(path: str) -> np.ndarray:
        points = np.array([point.split() for point in path.strip("MZ").split("L")], float)
        return np.stack(
            [
                (points[:, 0] - found.left) / (found.right - found.left) * 10_000,
                low + (points[:, 1] - y_low) / (y_high - y_low) * (high - low),
            ]
        )

    [curve] = found.curves
    middle, under, over = iqm_band(mean)
    x, y = numbers(curve.line)
    assert np.allclose(x, step, atol=2) and np.allclose(y, middle, atol=0.05)
    around = numbers(curve.band)[1]
    assert np.allclose(around[:10], over, atol=0.05) and np.allclose(around[10:], under[::-1], atol=0.05)
    assert all(np.allclose(numbers(path)[1], each, atol=0.05) for path, each in zip(curve.seeds, mean, strict=True))


def test_seeds_without_a_common_stretch_are_drawn_alone():
    early, late = (Evaluations(np.array([a, a + 1.0]), None, np.array([0.0, 1.0]), np.zeros(2)) for a in (1, 10))
    found = chart.chart("steps", [Curves("ppo", "E-v0", {}, [early, late])])
    assert found.curves[0].line == found.curves[0].band == "" and len(found.curves[0].seeds) == 2
    assert chart.chart("seconds", [Curves("ppo", "E-v0", {}, [early, late])]) is None
    assert chart.chart("steps", [Curves("ppo", "E-v0", {}, [])]) is None


def test_a_threshold_far_away_does_not_press_the_curves_together():
    curves = [Curves("ppo", "E-v0", {}, [Evaluations(np.array([0.0, 1.0]), None, np.array([0.0, 10.0]), np.zeros(2))])]
    assert chart.chart("steps", curves, 15.0).threshold is not None
    assert chart.chart("steps", curves, 1000.0).threshold is None


def test_the_histogram_counts_every_return():
    found = chart.histogram([0.0, 0.0, 5.0, 10.0])
    bars = re.findall(r"M([\d.]+) ([\d.]+)V([\d.]+)h([\d.]+)", found.bars)
    heights = [(found.bottom - float(top)) / (found.bottom - found.top) for _, _, top, _ in bars]
    assert heights == pytest.approx([1, 0.5, 0.5], abs=1e-3)
    assert found.mean == pytest.approx(found.left + 0.375 * (found.right - found.left))


def test_equal_returns_are_one_bar_on_an_axis_of_different_numbers():
    found = chart.histogram([500.0] * 100)
    assert found.bars.count("M") == 1 and len({label for _, label in found.x_ticks}) == len(found.x_ticks) > 1


def test_ticks_are_round_and_few():
    for low, high in each([(0, 500), (-200, -90), (0, 1), (0.2, 0.21), (-1e12, 1e12), (9, 500), (3, 3.000006)]):
        found = chart.ticks(low, high, 6)
        assert 2 <= len(found) <= 6 and low - 1e-9 * abs(low) <= found[0] and found[-1] <= high + 1e-9 * abs(high)
        steps = np.diff(found)
        assert np.allclose(steps, steps[0], rtol=1e-3) and f"{steps[0]:.0e}"[0] in "125"


def test_numbers_as_they_are_read():
    assert [chart.number(x) for x in (0, -0.0001, 0.05, 9.5, 475, 489.34, 1234567.8, -110.25)] == [
        "0", "−0.0001", "0.05", "9.5", "475", "489.3", "1,234,568", "−110.2",
    ]  # fmt: skip
    assert [chart.number(x, 1) for x in (500, -0.01, 489.34)] == ["500.0", "0.0", "489.3"]
    assert [chart.steps_text(x) for x in (0, 999, 8192, 50_000, 999_999, 1_200_000)] == [
        "0",
        "999",
        "8.19k",
        "50k",
        "1000k",
        "1.2M",
    ]
    assert [chart.seconds_text(x) for x in (0.5, 40, 720, 12_600)] == ["0.5 s", "40 s", "12 min", "3.5 h"]
