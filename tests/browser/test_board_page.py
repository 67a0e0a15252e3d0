"""The leaderboard's pages in a real Chromium: from file:// and served, with mouse, keyboard, phone, and without scripts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from benchmarks.board import fill, gif, invented
from tests.apps.board.test_xss import STRINGS, hostile
from whorl.apps.board import entry, page, rank
from whorl.apps.board.serve import running

pytestmark = pytest.mark.browser

PHONE = {"width": 360, "height": 740}
LONG = "x" * 150


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """CartPole-v1 with ties to a long table, and an environment whose texts are as wide as they may be."""
    root = fill(tmp_path_factory.mktemp("browser") / "board", ["CartPole-v1"], 9, 5, 50)
    for seed in range(2):
        claim, curve = invented(np.random.default_rng(seed), "A" * 100, 0, seed, 20)
        wide = {
            "note": f"{LONG} {seed}",
            "author": LONG,
            "command": f"whorl train {LONG * 5}",
            "config": {"c" * 60: LONG, "words": "many " * 30},
        }
        entry.write(
            root,
            claim | wide,
            curve,
            f"policy {seed}".encode(),
            {"best": gif(3), "typical": gif(3)},
        )
    (root / "entries" / "stray").mkdir()
    return root


@pytest.fixture(scope="module")
def pages(board, tmp_path_factory):
    return page.export(board, tmp_path_factory.mktemp("browser pages") / "pages")


@pytest.fixture(scope="module")
def url(board):
    pytest.importorskip("uvicorn", reason='needs the extra server: pip install "whorl[server]"')
    with running(board) as url:
        yield url


@pytest.fixture(scope="module")
def rows(board):
    return rank.rows(entry.entries(board)[0])["CartPole-v1"]


@pytest.fixture(params=["file", "http"])
def at(request, pages):
    """A function from the path of a page to its address, from the disk or served."""
    if request.param == "file":
        return lambda path: (pages / path).as_uri()
    served = request.getfixturevalue("url")
    return lambda path: f"{served}/{path}"


ENV = "env/CartPole-v1.html"


def run_page(rows: list[rank.Row], row: int = 0) -> str:
    return f"run/{rows[row].entries[0].id}.html"


def every_page(pages: Path) -> list[str]:
    """One of each kind and all environments."""
    envs = [f"env/{path.name}" for path in sorted((pages / "env").iterdir())]
    runs = [f"run/{path.name}" for path in sorted((pages / "run").iterdir())]
    wide = next(run for run in runs if LONG in (pages / run).read_text())
    return ["index.html", *envs, wide, runs[0]]


def column(tab: Any, number: int) -> list[str]:
    return tab.locator(f".ranking tbody tr > :nth-child({number})").evaluate_all(
        "cells => cells.map(cell => cell.dataset.value)"
    )


# ------------------------------------------------------------------------------------------------ sorting


def test_a_click_sorts_and_another_turns_the_order(tabs, at):
    tab = tabs.open(at(ENV))
    header = tab.locator(".ranking thead th", has_text="IQM")
    assert column(tab, 1) == sorted(column(tab, 1), key=float)
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert column(tab, 3) == sorted(column(tab, 3), key=float) and column(tab, 1) != sorted(column(tab, 1), key=float)
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    assert column(tab, 3) == sorted(column(tab, 3), key=float, reverse=True)
    assert tab.locator(".ranking th[aria-sort]").count() == 1


def test_the_keyboard_sorts(tabs, at):
    tab = tabs.open(at(ENV))
    for _ in range(20):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.textContent") == "Steps/s":
            break
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"  # focus can be seen
    tab.keyboard.press("Enter")
    assert column(tab, 8) == sorted(column(tab, 8), key=float)
    tab.keyboard.press("Space")
    assert column(tab, 8) == sorted(column(tab, 8), key=float, reverse=True)


def test_words_sort_as_words_and_missing_numbers_come_last(tabs, pages):
    tab = tabs.open((pages / ENV).as_uri())
    button = lambda name: tab.locator(".ranking thead").get_by_role("button", name=name)  # noqa: E731
    button("Agent").click()
    assert column(tab, 2) == sorted(column(tab, 2))
    for _ in range(2):
        button("Steps to 475").click()
        found = column(tab, 6)
        known = [value for value in found if value]
        assert known and found == known + [""] * (len(found) - len(known))


# ------------------------------------------------------------------------------------------------ curves


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_the_axis_switches_between_steps_and_time(tabs, at, scripts):
    tab = tabs.open(at(ENV), java_script_enabled=scripts)
    steps, seconds = tab.locator("figure.by-steps"), tab.locator("figure.by-seconds")
    assert steps.is_visible() and not seconds.is_visible()
    tab.get_by_role("radio", name="time").check()
    assert seconds.is_visible() and not steps.is_visible()
    tab.get_by_role("radio", name="time").focus()
    tab.keyboard.press("ArrowLeft")
    assert steps.is_visible() and not seconds.is_visible()


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_the_seeds_can_be_shown(tabs, at, scripts):
    tab = tabs.open(at(ENV), java_script_enabled=scripts)
    seeds = tab.locator(".by-steps .seed")
    assert seeds.count() == 8 * 5 and not any(seed.is_visible() for seed in seeds.all())
    tab.get_by_role("checkbox", name="each seed").check()
    assert all(seed.is_visible() for seed in seeds.all())
    tab.get_by_role("checkbox", name="each seed").uncheck()
    assert not any(seed.is_visible() for seed in seeds.all())


def test_lines_differ_in_more_than_colour(tabs, pages):
    tab = tabs.open((pages / ENV).as_uri())
    dashes = tab.locator(".by-steps .line").evaluate_all(
        "lines => lines.map(line => getComputedStyle(line).strokeDasharray)"
    )
    assert len(set(dashes)) == len(dashes) == 8
    colours = tab.locator(".by-steps .line").evaluate_all("lines => lines.map(line => getComputedStyle(line).stroke)")
    assert len(set(colours)) == 8
    swatches = tab.locator(".legend .swatch line").evaluate_all(
        "lines => lines.map(line => getComputedStyle(line).stroke)"
    )
    assert swatches == colours[::-1]  # the best is drawn last, on top


# ------------------------------------------------------------------------------------------------ config and command


def test_the_config_difference_opens_against_any_row(tabs, at, rows):
    tab = tabs.open(at(run_page(rows, 2)))
    others = [row for row in rows if row is not rows[2]]
    choices = tab.locator("#other option")
    assert choices.count() == len(others) and not tab.locator("#other-name").is_visible()
    for number, other in enumerate(others):
        tab.get_by_label("Against").select_option(index=number)
        shown = tab.locator("#differences tbody tr").evaluate_all(
            "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
        )
        assert {name for name, _, _ in shown} == set(rank.config_difference(rows[2], other))
        assert (
            all(here != there for _, here, there in shown)
            and choices.nth(number).text_content().split()[1] == other.agent
        )


def test_the_button_copies_the_command(tabs, at, rows):
    tab = tabs.open(at(run_page(rows)), permissions=("clipboard-read", "clipboard-write"))
    tab.get_by_role("button", name="Copy").click()
    tab.get_by_role("button", name="Copied").wait_for()
    assert tab.evaluate("navigator.clipboard.readText()") == rows[0].entries[0].command
    tab.get_by_role("button", name="Copy", exact=True).wait_for()  # and is ready again


def test_without_a_clipboard_it_copies_all_the_same(tabs, at, rows):
    hidden = "window.read = () => clipboard.readText(); const clipboard = navigator.clipboard;"
    hidden += "Object.defineProperty(navigator, 'clipboard', {value: undefined})"
    tab = tabs.open(at(run_page(rows)), permissions=("clipboard-read", "clipboard-write"), script=hidden)
    assert tab.evaluate("navigator.clipboard === undefined")
    tab.get_by_role("button", name="Copy").click()
    tab.get_by_role("button", name="Copied").wait_for()
    assert tab.evaluate("window.read()") == rows[0].entries[0].command


def test_where_nothing_copies_the_command_is_selected(tabs, pages, rows):
    broken = "Object.defineProperty(navigator, 'clipboard', {value: undefined}); document.execCommand = () => false"
    tab = tabs.open((pages / run_page(rows)).as_uri(), script=broken)
    tab.get_by_role("button", name="Copy").click()
    tab.get_by_role("button", name="Press Ctrl+C").wait_for()
    assert tab.evaluate("getSelection().toString()") == rows[0].entries[0].command


# ------------------------------------------------------------------------------------------------ without scripts


def test_everything_can_be_read_without_scripts(tabs, at, rows):
    tab = tabs.open(at(ENV), java_script_enabled=False)
    assert tab.locator(".ranking tbody tr").count() == len(rows)
    assert tab.locator(".ranking button").count() == 0
    tab.locator(".ranking tbody tr").first.get_by_role("link").first.click()
    assert (
        tab.locator("h1").text_content()
        == f"{rows[0].agent} on CartPole-v1, seed {rows[0].entries[0].settings['seed']}"
    )
    assert not tab.get_by_role("button").count() and not tab.locator("select").is_visible()
    assert tab.locator("#other-name").is_visible() and tab.locator("#differences tbody tr").count() > 0
    tab.get_by_role("link", name="whorl leaderboard").click()
    assert tab.locator("table tbody tr").count() == 2 and tab.get_by_text("entries/stray is not an entry").is_visible()


# ------------------------------------------------------------------------------------------------ closed in itself


def test_no_request_leaves_the_folder(tabs, pages, tmp_path):
    for path in every_page(pages):
        tab = tabs.open((pages / path).as_uri())
        for picture in tab.locator("img").all():
            picture.scroll_into_view_if_needed()
            picture.evaluate("async picture => { await picture.decode(); }")
    assert len(tabs.requests) > 20
    assert all(request.startswith(pages.as_uri()) for request in tabs.requests)


def test_no_request_leaves_the_server(tabs, pages, url):
    for path in every_page(pages):
        tab = tabs.open(f"{url}/{path}")
        for picture in tab.locator("img").all():
            picture.scroll_into_view_if_needed()
            picture.evaluate("async picture => { await picture.decode(); }")
    assert len(tabs.requests) > 20
    assert {urlsplit(request).netloc for request in tabs.requests} == {urlsplit(url).netloc}


def test_the_policy_is_in_force(tabs, at):
    tab = tabs.open(at(ENV))
    blocked = """() => new Promise(done => {
        document.addEventListener("securitypolicyviolation", event => done(event.effectiveDirective));
        setTimeout(() => done("nothing"), 5000);
        %s
    })"""
    inline = (
        "document.head.append(Object.assign(document.createElement('script'), {textContent: 'window.hacked = 1'}));"
    )
    handler = "document.body.setAttribute('onclick', 'window.hacked = 1'); document.body.click();"
    outside = "document.body.append(Object.assign(document.createElement('img'), {src: 'http://127.0.0.1:9/x.png'}));"
    style = "document.body.setAttribute('style', 'color: red');"
    found = [tab.evaluate(blocked % attempt) for attempt in (inline, handler, outside, style)]
    assert found == ["script-src-elem", "script-src-attr", "img-src", "style-src-attr"]
    assert tab.evaluate("window.hacked === undefined")
    assert all("Content Security Policy" in complaint or "127.0.0.1:9" in complaint for complaint in tabs.complaints)
    tabs.complaints.clear()  # they were asked for


def test_hostile_strings_run_nothing(tabs, board, tmp_path):
    real = entry.entries(board)[0][0]
    made = [hostile(real, text.replace("alert", "window.hacked = alert")) for text in STRINGS]
    made = [
        entry.Entry(**{**vars(one), "id": f"{number:016x}", "setting": f"{number:012x}", "env": "E"})
        for number, one in enumerate(made)
    ]
    page.write(made, STRINGS, tmp_path / "out")
    for path in [
        tmp_path / "out" / "index.html",
        *(tmp_path / "out" / "env").iterdir(),
        *sorted((tmp_path / "out" / "run").iterdir())[::10],
    ]:
        tab = tabs.open(path.as_uri())
        if tab.locator("#other").count():
            for number in range(0, tab.locator("#other option").count(), 5):
                tab.locator("#other").select_option(index=number)
        assert tab.evaluate("window.hacked === undefined")
        assert not re.search(
            r"evil\.example|javascript:",
            " ".join(tab.locator("[src], a, link").evaluate_all("all => all.map(e => e.src ?? e.href)")),
        )
        tab.context.close()
    assert all(request.startswith((tmp_path / "out").as_uri()) for request in tabs.requests)


# ------------------------------------------------------------------------------------------------ phone, dark, still


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_no_page_scrolls_sideways(tabs, pages, width):
    for path in every_page(pages):
        tab = tabs.open((pages / path).as_uri(), viewport={"width": width, "height": 740})
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, path
        tab.evaluate("window.scrollTo(1000, 0)")
        assert tab.evaluate("window.scrollX") == 0, path


def test_on_a_phone_the_table_scrolls_in_its_box_by_keyboard(tabs, pages):
    tab = tabs.open((pages / ENV).as_uri(), viewport=PHONE)
    box = tab.get_by_role("region", name="Ranking")
    assert box.evaluate("box => box.scrollWidth > box.clientWidth")
    box.focus()
    scrolled = "box => new Promise(done => box.addEventListener('scroll', () => done(box.scrollLeft)))"
    box.evaluate(f"box => {{ window.scrolled = ({scrolled})(box) }}")
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate("window.scrolled") > 0 and tab.evaluate("window.scrollX") == 0
    assert tab.evaluate("parseFloat(getComputedStyle(document.body).fontSize)") >= 16


def luminance(colour: str) -> float:
    """Relative luminance of "rgb(r, g, b)", as in WCAG 2."""
    channels = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_modes_have_contrast(tabs, pages, scheme):
    tab = tabs.open((pages / ENV).as_uri(), color_scheme=scheme)
    colour = "(found, name) => getComputedStyle(found)[name]"
    paper = tab.locator("body").evaluate(colour, "backgroundColor")
    assert (luminance(paper) > 0.5) == (scheme == "light")
    for text in (
        "h1",
        ".lead",
        ".ranking caption",
        ".score",
        ".interval",
        ".differences",
        ".note a",
        "footer p",
        ".source",
    ):
        assert contrast(tab.locator(text).first.evaluate(colour, "color"), paper) >= 4.5, text
    for line in tab.locator(".by-steps .line").all():
        assert contrast(line.evaluate(colour, "stroke"), paper) >= 3
    assert contrast(tab.locator(".chart text").first.evaluate(colour, "fill"), paper) >= 4.5


def test_badges_have_contrast_in_both_modes(tabs, pages):
    wide = next(path for path in (pages / "env").iterdir() if path.name.startswith("AAAA"))
    for scheme in ("light", "dark"):
        badge = tabs.open(wide.as_uri(), color_scheme=scheme).locator(".badge").first
        assert badge.text_content() == "few seeds"
        found = [badge.evaluate(f"found => getComputedStyle(found).{name}") for name in ("color", "backgroundColor")]
        assert contrast(*found) >= 4.5


@pytest.mark.parametrize(("motion", "ending"), [("no-preference", ".gif"), ("reduce", ".png")])
def test_who_wants_no_motion_gets_still_pictures(tabs, pages, rows, motion, ending):
    tab = tabs.open((pages / run_page(rows)).as_uri(), reduced_motion=motion)
    for picture in tab.locator(".episodes img").all():
        picture.scroll_into_view_if_needed()
        picture.evaluate("async picture => { await picture.decode(); }")
        assert picture.evaluate("picture => picture.currentSrc").endswith(ending)
        assert picture.evaluate("picture => [picture.naturalWidth, picture.naturalHeight]") == [320, 213]
    assert tab.get_by_role("link", name="Play").count() == (2 if motion == "reduce" else 0)
    assert any(request.endswith(".gif") for request in tabs.requests) == (motion != "reduce")
