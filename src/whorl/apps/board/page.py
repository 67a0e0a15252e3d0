"""The board as a folder of pages that need nothing else: they open from file://, ask for nothing outside, and work without scripts.

    index.html  env/<environment>.html  run/<id>.html  data/<environment>.csv  media/<id>/  static/  .whorl-board

Whatever an entry says is a stranger's text: only templates write markup, and they escape everything (jinja2, autoescape). Behind that
stands a content-security policy that lets nothing run but board.js.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

import whorl
from whorl import files, folders
from whorl.apps.board import entry as entries
from whorl.apps.board import view
from whorl.apps.board.chart import number
from whorl.apps.board.entry import Entry
from whorl.apps.board.forms import EPISODES
from whorl.apps.board.rank import rows
from whorl.apps.board.references import references
from whorl.errors import BadInput

MARKER = ".whorl-board"  # what makes a folder an export, which the next one may replace
PARTS = {MARKER, "index.html", "env", "run", "data", "media", "static"}
HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; script-src 'self'; base-uri 'none'; form-action 'none'"
)


def export(board: str | Path, out: str | Path) -> Path:
    """Writes the pages of a board into the folder `out`, all at once, and returns it. An earlier export there is replaced.

    Damaged entries are named on the first page and counted nowhere. Raises BadInput when there is no such board, or `out` is something
    else than an earlier export, a new or an empty folder; then nothing was changed.
    """
    board, out = Path(board).resolve(), Path(out).resolve()
    _check_target(board, out)
    good, problems = entries.entries(board)
    problems = [
        problem.replace(f"{board}/", "") for problem in problems
    ]  # pages are for others: they need not know where the board lay
    folders.make(out.parent)
    draft = folders.temporary(out)
    try:
        write(good, problems, draft)
        _swap(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return out


def _check_target(board: Path, out: Path) -> None:
    if board.is_relative_to(out):
        raise BadInput(f"{out} holds the board itself: export into another folder")
    if not out.exists():
        return
    if not out.is_dir():
        raise BadInput(f"{out} is a file: pages are exported into a folder")
    names = set(os.listdir(out))
    if names and MARKER not in names:
        raise BadInput(f"{out} is not empty and no earlier export: name another folder, or an empty one")
    if foreign := sorted(names - PARTS):
        raise BadInput(f"{out} holds {foreign[0]!r}, which no export wrote and this one would delete: move it away")


def _swap(draft: Path, out: Path) -> None:
    """Puts the draft in the place of `out`, which is there whole before and after."""
    if not out.exists():
        os.rename(draft, out)
        return
    old = folders.temporary(out)
    os.rename(out, old)
    try:
        os.rename(draft, out)
    except BaseException:
        os.rename(old, out)
        raise
    shutil.rmtree(old)


def write(good: Sequence[Entry], problems: Sequence[str], out: Path) -> None:
    """Writes all pages into the new folder `out`. good: intact entries; problems: sentences about the others."""
    for part in ("env", "run", "data", "media"):
        (out / part).mkdir(parents=True)
    files.write_synced(out / MARKER, b"The whorl leaderboard; `whorl board --export` may replace this folder.\n")
    shutil.copytree(HERE / "static", out / "static")
    tables, problems = rows(good), list(problems)
    envs = []
    for env, slug in sorted(view.slugs(tables).items(), key=lambda item: item[0].lower()):
        table = tables[env]
        page = view.environment(table, references(env)) | {
            "slug": slug,
            "url": f"env/{slug}.html",
            "csv": f"data/{slug}.csv",
        }
        media = {}
        for row in table:
            for one in (*row.entries, *row.repeated):
                media[one.id] = _media(one, out, problems)
        best = max(table[0].entries, key=lambda one: one.mean)
        page |= {"media": media[best.id], "media_of": f"{best.agent}, seed {best.settings['seed']}"}
        _render(out, f"env/{slug}.html", "env.html", env=page)
        (out / page["csv"]).write_text(_csv(view.csv_rows(page["rows"])), encoding="utf-8", errors="replace")
        differing = view.options(table)
        for row in table:
            for one in (*row.entries, *row.repeated):
                shown = view.run(one, row, page, differing) | {"media": media[one.id], "env_url": page["url"]}
                _render(out, f"run/{one.id}.html", "run.html", run=shown)
        envs.append(page)
    counts = view.counts(good, sum(map(len, tables.values())))
    _render(out, "index.html", "index.html", envs=envs, counts=counts, problems=problems)


@cache
def _templates() -> jinja2.Environment:
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    found.filters["zip"] = zip
    found.globals |= {"policy": POLICY, "version": whorl.__version__, "episodes": EPISODES}
    return found


def _render(out: Path, name: str, template: str, **shown: Any) -> None:
    """Renders a template into the file `name`, whose links begin at the folder of the export, `out`."""
    html = _templates().get_template(template).render(root="../" * name.count("/"), **shown)
    (out / name).write_text(html, encoding="utf-8", errors="replace")  # a lone surrogate becomes "?"


def _csv(table: list[list[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    return text.getvalue()


TITLES = {"best": "Best episode", "typical": "Typical episode"}


def _media(one: Entry, out: Path, problems: list[str]) -> list[dict[str, Any]]:
    """Copies the pictures of an entry, each with its first frame for those who want no motion; adds to `problems` what is no picture."""
    found: list[dict[str, Any]] = []
    for name, reward in (one.gif_returns or {}).items():
        path = f"media/{one.id}/{name}.gif"
        try:
            data = entries.contents(one.path)[f"{name}.gif"]
            with Image.open(io.BytesIO(data), formats=["GIF"]) as image:
                width, height = image.size
                (out / path).parent.mkdir(exist_ok=True)
                image.save((out / path).with_suffix(".png"))
        except (KeyError, OSError, ValueError, Image.DecompressionBombError) as error:
            problems.append(f"entries/{one.id}/{name}.gif is not shown: {error}")
            continue
        (out / path).write_bytes(data)
        reached = number(reward)
        found.append({
            "path": path, "still": path.replace(".gif", ".png"), "width": width, "height": height, "title": TITLES[name],
            "text": f"return {reached}", "alt": f"{TITLES[name]} of {one.agent} in {one.world}: return {reached}",
        })  # fmt: skip
    return found
