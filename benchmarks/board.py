"""How long a large board takes to export, and how soon Chromium shows the first table of its pages.

    python benchmarks/board.py [--environments 20] [--settings 10] [--seeds 5] [--keep DIR] [--no-browser]

Makes a board of environments x settings x seeds entries with invented results, exports it to a folder and opens index.html and the
largest environment's page from file://, 5 times each in a fresh browser context. Prints JSON lines: {entries, seconds, megabytes} of the
export, {page, kilobytes, first_table_ms, loaded_ms} (medians) of each page. Issue's bars: export under 20 s, first table under 1 s.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from whorl.apps.board import entry
from whorl.apps.board.page import export
from whorl.options import to_json
from whorl.training.catalog import find

AGENTS = ("ppo", "a2c", "dqn", "reinforce", "trpo")
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
ARGUMENTS += ["--disable-sync", "--no-first-run", "--disable-quic"]
FIRST_TABLE = """() => new Promise(done => requestAnimationFrame(() => setTimeout(() => done({
    table: document.querySelector("table").getBoundingClientRect().height > 0 ? performance.now() : NaN,
    paint: performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? 0,
    loaded: performance.getEntriesByType("navigation")[0].loadEventEnd}))))"""


def fill(
    board: Path, environments: list[str], settings: int, seeds: int, evaluations: int = 50, gifs: bool = True
) -> Path:
    """A board of invented entries, each environment with so many settings of so many seeds."""
    for number, env in enumerate(environments):
        for setting in range(settings):
            for seed in range(seeds):
                rng = np.random.default_rng((number, setting, seed))
                claim, curve = invented(rng, env, setting, seed, evaluations)
                pictures = {"best": gif(40, 3 * setting + seed), "typical": gif(30, 5 * seed)} if gifs else {}
                entry.write(
                    board,
                    claim,
                    curve,
                    f"policy {setting} {seed}".encode(),
                    pictures,
                )
    return board


def invented(
    rng: np.random.Generator, env: str, setting: int, seed: int, evaluations: int = 50
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(claim, curve) of one entry: a score between 0 and 500 that falls with `setting`."""
    agent = AGENTS[setting % len(AGENTS)]
    config = to_json(find(agent, "CartPole-v1").config)
    if setting >= len(AGENTS):
        config["learning_rate" if "learning_rate" in config else "gamma"] = round(0.001 * setting, 6)
    level = 500 - 22 * setting - abs(rng.normal(0, 6))
    step = (np.arange(evaluations) + 1) * 2000
    rise = 1 - np.exp(-step / (12_000 + 4_000 * setting))
    mean = np.clip(level * rise + rng.normal(0, 14, evaluations) * (1.1 - rise), 9, 500).round(2)
    seconds = (step / 4000 * rng.uniform(0.9, 1.1)).round(2)
    returns = np.clip(rng.normal(level, 20, 100), 9, 500).round(1)
    packages = {"whorl": "0.5.0", "torch": "2.11.0", "numpy": "2.3.0", "gymnasium": "1.2.0", "python": "3.11.2"}
    machine = {"cpu": "Invented CPU 3000", "cpu_count": 2, "system": "Linux"}
    claim = {
        "env": env, "agent": agent, "author": "somebody", "note": "", "created": f"2026-01-{1 + seed % 28:02d}T12:00:00Z",
        "settings": {
            "seed": seed, "num_envs": 8, "total_steps": 100_000, "total_episodes": None, "max_episode_steps": None,
            "compile": False, "device": "cpu", "threads": 1,
        },
        "config": config, "versions": packages, "commit": "0123abc", "machine": machine,
        "command": f"whorl train {agent} {env} --seed {seed}", "evaluated": {"versions": packages, "machine": machine},
        "steps": 100_000, "seconds": float(seconds[-1]), "steps_per_second": round(100_000 / float(seconds[-1]), 1),
        "returns": returns.tolist(), "lengths": [int(max(r, 1)) for r in returns], "reward_threshold": 475.0, "which": "best",
    }  # fmt: skip
    return claim, {
        "step": step.tolist(),
        "seconds": seconds.tolist(),
        "mean": mean.tolist(),
        "std": [5.0] * evaluations,
    }


def gif(frames: int, height: int = 0) -> bytes:
    """A moving square."""
    pictures = []
    for i in range(frames):
        picture = Image.new("P", (320, 213), 0)
        picture.putpalette([255, 255, 255, 15, 118, 110])
        ImageDraw.Draw(picture).rectangle((4 * i, 90 - height, 4 * i + 40, 120 - height), fill=1)
        pictures.append(picture)
    data = io.BytesIO()
    pictures[0].save(data, "GIF", save_all=True, append_images=pictures[1:], duration=40, loop=0)
    return data.getvalue()


def load(page: Path, times: int = 5) -> dict[str, Any]:
    """How soon the page's first table is laid out and painted, milliseconds after the navigation began; medians."""
    from playwright.sync_api import sync_playwright

    shown, loaded = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for _ in range(times):
            context = browser.new_context()
            tab = context.new_page()
            tab.goto(page.as_uri())
            found = tab.evaluate(FIRST_TABLE)
            shown.append(max(found["table"], found["paint"]))
            loaded.append(found["loaded"])
            context.close()
        browser.close()
    size = round(page.stat().st_size / 1000)
    return {
        "page": page.name, "kilobytes": size, "first_table_ms": round(statistics.median(shown)),
        "loaded_ms": round(statistics.median(loaded)),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", type=int, default=20)
    parser.add_argument("--settings", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="a new folder that the board and its pages are left in")
    parser.add_argument("--no-browser", action="store_true")
    options = parser.parse_args()
    root = options.keep or Path(tempfile.mkdtemp())
    try:
        board = fill(
            root / "board", [f"Task{i}-v0" for i in range(options.environments)], options.settings, options.seeds
        )
        begin = time.perf_counter()
        pages = export(board, root / "pages")
        seconds = time.perf_counter() - begin
        size = sum(file.stat().st_size for file in pages.rglob("*") if file.is_file())
        count = len(list((board / "entries").iterdir()))
        print(
            json.dumps({"entries": count, "seconds": round(seconds, 1), "megabytes": round(size / 1e6, 1)}), flush=True
        )
        largest = max((pages / "env").iterdir(), key=lambda page: page.stat().st_size)
        for page in () if options.no_browser else (pages / "index.html", largest):
            print(json.dumps(load(page)), flush=True)
    finally:
        if not options.keep:
            shutil.rmtree(root)


if __name__ == "__main__":
    main()
