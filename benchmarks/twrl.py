"""torch-twrl's commands over many seeds: runs them, and writes results/twrl_<name>.json and results/twrl.md.

    python benchmarks/twrl.py                               every command, its number of seeds, two runs at a time
    python benchmarks/twrl.py readme --seeds 3 --jobs 1     one of them

Score: the mean return of 100 consecutive training episodes, the best and the last such window of a run.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent.parent / "results"

# As printed in torch-twrl's README and in its announcement, `th run.lua` and `th testScript.lua` replaced
README = (
    "whorl run -env 'CartPole-v0' -policy categorical -learningUpdate reinforce -model mlp -optimAlpha 0.9 "
    "-timestepsPerBatch 1000 -stepsizeStart 0.3 -gamma 1 -nHiddenLayerSize 10 -gradClip 5 "
    "-baselineType padTimeDepAvReturn -beta 0.01 -weightDecay 0 -windowSize 10 -nSteps 1000 -nIterations 1000 "
    "-video 100 -optimType rmsprop -verboseUpdate true -uploadResults false -renderAllSteps false"
)
ANNOUNCEMENT = (
    "whorl run -env 'CartPole-v0' -policy categorical -learningUpdate reinforce -model mlp "
    "-nSteps 1000 -nIterations 1000 -video 0 -uploadResults true -renderAllSteps false"
)
PENDULUM = (
    "whorl run -env 'Pendulum-v1' -policy normal -learningUpdate reinforce -model mlp -optimType rmsprop -optimAlpha 0.9 "
    "-timestepsPerBatch 1000 -nHiddenLayerSize 10 -gradClip 5 -baselineType padTimeDepAvReturn -weightDecay 0 "
    "-windowSize 100 -nSteps 1000 -video 0 -uploadResults false -renderAllSteps false "
)


@dataclass(frozen=True)
class Setting:
    about: str
    command: str
    bar: float
    seeds: int
    best: tuple[int, int] | None  # fewest and most seeds whose best window reaches the bar; None: only reported
    last: int = 0  # fewest seeds whose last window reaches it


SETTINGS = {
    "readme": Setting("README, word for word", README, 195, 20, (2, 11)),
    "readme_0.05": Setting("README with -stepsizeStart 0.05", README.replace("Start 0.3", "Start 0.05"), 195, 20, (19, 20)),
    "readme_0.05_v1": Setting(
        "the same on CartPole-v1", README.replace("Start 0.3", "Start 0.05").replace("CartPole-v0", "CartPole-v1"), 475, 20, (19, 20)
    ),
    "announcement": Setting("announcement, word for word", ANNOUNCEMENT, 195, 20, (2, 11)),
    "pendulum": Setting(
        "examples/pendulum-pg.sh",
        PENDULUM + "-stepsizeStart 0.02 -policyStd 0.5 -gamma 0.95 -nIterations 5000",
        -900, 5, (5, 5), 4,
    ),
    "pendulum_original": Setting(
        "torch-twrl's own pendulum-pg",
        PENDULUM + "-stepsizeStart 0.3 -policyStd 0.1 -gamma 1 -beta 0.01 -nIterations 500",
        -900, 5, None,
    ),
}  # fmt: skip


def run(command: str, bar: float, seed: int) -> dict:
    """One seed in a process of its own."""
    with tempfile.TemporaryDirectory() as runs:
        words = [*shlex.split(command)[1:], "-seed", str(seed), "-runs", runs, "-json", "true"]
        began = time.monotonic()
        code = "from whorl.apps.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{command} -seed {seed} failed: {done.stderr[-2000:]}")
        line = json.loads(done.stdout.splitlines()[-1])
        folder = Path(line["run"])
        table = np.loadtxt(folder / "episodes.csv", delimiter=",", skiprows=1, ndmin=2)[: line["episodes"]]
        means = np.convolve(table[:, 2], np.full(100, 0.01), "valid")
        reached = np.flatnonzero(means >= bar - 1e-9)
        print(
            f"  seed {seed}: best {line['best_mean_100']:.1f}, last {line['last_mean_100']:.1f}",
            file=sys.stderr,
            flush=True,
        )
        return {
            "seed": seed,
            "episodes": line["episodes"],
            "steps": int(table[-1, 0]),
            "best_mean_100": line["best_mean_100"],
            "last_mean_100": line["last_mean_100"],
            "reached_after_episodes": int(reached[0]) + 100 if len(reached) else None,
            "curve": [round(float(m), 2) for m in means[:: max(1, len(means) // 40)]],
            "seconds": round(time.monotonic() - began, 1),
            "meta": json.loads((folder / "meta.json").read_text()),
        }


def measure(s: Setting, seeds: int, jobs: int) -> dict:
    with ThreadPoolExecutor(jobs) as pool:
        runs = list(pool.map(lambda seed: run(s.command, s.bar, seed), range(seeds)))
    meta = {key: value for key, value in runs[0]["meta"].items() if key != "command"}  # it names a temporary folder
    for r in runs:
        del r["meta"]
    best, last = (sum(r[f"{which}_mean_100"] >= s.bar for r in runs) for which in ("best", "last"))
    low, high = s.best or (0, seeds)
    return {
        "about": s.about, "command": f"{s.command} -seed S", "bar": s.bar, "expected": bar_in_words(s),
        "best_reached": f"{best} of {seeds}", "last_reached": f"{last} of {seeds}",
        "passed": None if s.best is None or seeds != s.seeds else low <= best <= high and last >= s.last,
        "meta": meta, "seeds": runs,
    }  # fmt: skip


def bar_in_words(s: Setting) -> str:
    if s.best is None:
        return "reported"
    low, high = s.best
    best = f"best window on {low}{f' to {high}' if high != s.seeds else ' or more' if low < high else ''} of {s.seeds}"
    return best + (f", last on {s.last} or more" if s.last else "")


def write_table() -> None:
    """results/twrl.md from the JSON files."""
    rows, commands = [], []
    for name in SETTINGS:
        file = RESULTS / f"twrl_{name}.json"
        if not file.exists():
            continue
        r = json.loads(file.read_text())
        scores = {which: np.array([seed[f"{which}_mean_100"] for seed in r["seeds"]]) for which in ("best", "last")}
        spread = lambda x: f"{np.median(x):.1f} ({x.min():.1f} to {x.max():.1f})"  # noqa: E731
        rows.append(
            f"| {name} | {r['about']} | {r['bar']:g} | {r['expected']} | {r['best_reached']} | {r['last_reached']} "
            f"| {spread(scores['best'])} | {spread(scores['last'])} |"
        )
        commands.append(f"{name}:\n\n```text\n{r['command']}\n```\n")
    text = """# torch-twrl's commands

Produced by `python benchmarks/twrl.py`; S is the seed, from 0. A window is the mean return of 100 consecutive training episodes, within the
first nIterations of them. The JSON files `twrl_<name>.json` hold the figures and the curve of every seed, the versions and the machine.

| name | what | bar | expected | best reaches it | last reaches it | best window, median (range) | last window, median (range) |
|---|---|---|---|---|---|---|---|
"""
    (RESULTS / "twrl.md").write_text(text + "\n".join(rows) + "\n\n" + "\n".join(commands))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(SETTINGS)}; all by default")
    parser.add_argument("--seeds", type=int, help="instead of each setting's own number")
    parser.add_argument("--jobs", type=int, default=2)
    o = parser.parse_args()
    unknown = set(o.names) - set(SETTINGS)
    if unknown:
        parser.error(f"no setting {', '.join(sorted(unknown))}; there are {', '.join(SETTINGS)}")
    failed = []
    for name in o.names or SETTINGS:
        setting = SETTINGS[name]
        result = measure(setting, o.seeds or setting.seeds, o.jobs)
        (RESULTS / f"twrl_{name}.json").write_text(json.dumps(result, indent=1) + "\n")
        means = [round(r["best_mean_100"], 1) for r in result["seeds"]]
        print(f"{name}: {result['best_reached']} reached {setting.bar:g} ({result['expected']}): {means}", flush=True)
        failed += [name] if result["passed"] is False else []
    write_table()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
