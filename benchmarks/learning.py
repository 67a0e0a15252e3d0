"""Learning to a stated return over several seeds: trains, scores, and writes results/<agent>_<env>.json and results/README.md.

    python benchmarks/learning.py                       every setting, two runs at a time
    python benchmarks/learning.py ppo CartPole-v1       one setting

Score: the best checkpoint (chosen by evaluation during training), greedily over 100 fresh whole episodes; beside it the final policy's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "results"


@dataclass(frozen=True)
class Setting:
    agent: str
    env: str
    total_steps: int
    bar: float | None  # mean return over 100 episodes that the best checkpoint must reach; None: only reported
    seeds_needed: int  # of `seeds`
    seeds: int = 5
    options: tuple[str, ...] = ()  # more of `whorl train`

    @property
    def name(self) -> str:
        """Of its file: with the collector, where that is not the feed's own."""
        return f"{self.agent}_{self.env}" + ("_async" if "async" in self.options else "")

    def command(self, seed: int, runs: str = "runs") -> list[str]:
        return [
            "whorl",
            "train",
            self.agent,
            self.env,
            "--seed",
            str(seed),
            "--total-steps",
            str(self.total_steps),
            "--runs",
            runs,
            *self.options,
        ]


ASYNC = ("--collector", "async")
SETTINGS = [
    Setting("ppo", "CartPole-v1", 150_000, 475, 5),
    Setting("a2c", "CartPole-v1", 500_000, 475, 4),
    Setting("reinforce", "CartPole-v1", 500_000, 475, 4),
    Setting("ppo", "Acrobot-v1", 500_000, -90, 4),
    Setting("ppo", "Pendulum-v1", 500_000, -250, 4),
    Setting("ppo", "LunarLander-v3", 1_000_000, 200, 4),
    Setting("cem", "CartPole-v1", 375_000, 475, 10, seeds=10),
    Setting("trpo", "CartPole-v1", 200_000, 475, 4),
    Setting("trpo", "Pendulum-v1", 500_000, -300, 4),
    Setting("a3c", "CartPole-v1", 500_000, 475, 4),
    Setting("dqn", "CartPole-v1", 100_000, 475, 4),
    Setting("dqn", "CartPole-v1", 100_000, 475, 4, options=(*ASYNC, "--agent.feed.steps", "16")),
    Setting("sac", "Pendulum-v1", 10_000, -200, 4, options=(*ASYNC, "--agent.feed.steps", "16")),
    Setting("ppo", "CartPole-v1", 150_000, 475, 4, options=ASYNC),
    Setting("ppo", "Pendulum-v1", 500_000, -250, 4, options=ASYNC),
    Setting("impala", "CartPole-v1", 500_000, 475, 4, options=ASYNC),
    Setting("ppo", "TMaze20-v0", 200_000, 0.9, 5),
    Setting("ppo", "RepeatPrevious-v0", 250_000, 0.95, 5),
    Setting("ppo", "CartPoleP-v1", 300_000, 450, 4),
    Setting("dqn", "TMaze20-v0", 60_000, 0.9, 5),
    Setting("dqn", "RepeatPrevious-v0", 50_000, 0.95, 5),
    Setting("sac", "PendulumP-v1", 15_000, -300, 3),
    Setting("c51", "CartPole-v1", 100_000, 475, 4),
    Setting("qr_dqn", "CartPole-v1", 100_000, 475, 4),
    Setting("iqn", "CartPole-v1", 100_000, 475, 4),
    Setting("rainbow", "CartPole-v1", 100_000, 475, 4),
    Setting("dqn", "LunarLander-v3", 500_000, 200, 3, options=("--eval-every", "50000")),
    Setting("discrete_sac", "CartPole-v1", 50_000, 475, 4),
    Setting("sac", "Pendulum-v1", 10_000, -200, 5),
    Setting("td3", "Pendulum-v1", 10_000, -200, 5),
    Setting("ddpg", "Pendulum-v1", 15_000, -200, 4),
    Setting("redq", "Pendulum-v1", 4_000, -200, 5),
    Setting("crossq", "Pendulum-v1", 8_000, -200, 5),
    Setting("tqc", "Pendulum-v1", 8_000, -200, 5),
    Setting("sac", "InvertedPendulum-v5", 20_000, 950, 5, options=("--eval-every", "4000")),
    Setting("sac", "MountainCarContinuous-v0", 30_000, 90, 4),
    Setting(
        "sac", "HalfCheetah-v5", 50_000, None, 0, seeds=2, options=("--eval-every", "5000", "--eval-episodes", "20")
    ),
    Setting("sac", "Hopper-v5", 100_000, None, 0, seeds=2, options=("--eval-every", "5000", "--eval-episodes", "20")),
]


def train(setting: Setting, seed: int) -> dict:
    """One seed in a process of its own."""
    with tempfile.TemporaryDirectory() as runs:
        code = "from whorl.apps.cli import main; main()"
        command = [sys.executable, "-c", code, *setting.command(seed, runs)[1:], "--quiet", "--json"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(setting.command(seed))} failed: {done.stderr[-2000:]}")
        line = json.loads(done.stdout.splitlines()[-1])
        run = Path(line["run"])
        scores = json.loads((run / "eval.json").read_text())
        meta = json.loads((run / "meta.json").read_text())
        rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]
        curve = [[row["step"], row["eval/mean_reward"]] for row in rows if "eval/mean_reward" in row]
    return {
        "seed": seed,
        "best": scores["best"],
        "last": scores["last"],
        "seconds": round(line["seconds"], 1),
        "curve": curve,
        "meta": meta,
    }


def run(setting: Setting, jobs: int = 2) -> dict:
    seeds = setting.seeds
    with ThreadPoolExecutor(jobs) as pool:
        runs = list(pool.map(lambda seed: train(setting, seed), range(seeds)))
    meta = {
        key: value for key, value in runs[0]["meta"].items() if key != "command"
    }  # that one names a temporary folder
    for r in runs:
        del r["meta"]
    reached = sum(setting.bar is None or r["best"]["mean"] >= setting.bar for r in runs)
    return {
        "agent": setting.agent, "env": setting.env, "total_steps": setting.total_steps, "bar": setting.bar,
        "needed": f"{setting.seeds_needed} of {seeds}", "reached": f"{reached} of {seeds}", "passed": reached >= setting.seeds_needed,
        "command": " ".join(setting.command(0)).replace("--seed 0", "--seed S"), "meta": meta, "runs": runs,
    }  # fmt: skip


def write_table() -> None:
    """results/README.md from the JSON files."""
    rows, beside = [], []
    for file in sorted(RESULTS.glob("*.json")):
        r = json.loads(file.read_text())
        if "runs" not in r or "agent" not in r:
            continue
        row = f"| {r['agent']} | {r['env']} | {r['total_steps']:,} | "
        scores = f"| {_means(r['runs'], 'best')} | {_means(r['runs'], 'last')} | `{r['command']}` |"
        if r["bar"] is not None:
            rows.append(f"{row}{r['bar']:g} on {r['needed']} | {r['reached']} {scores}")
        else:
            beside.append(f"{row}whorl {scores}")
            peers = [
                json.loads(p.read_text())
                for p in sorted((RESULTS / "peers").glob(f"{r['agent']}_{r['env']}_seed*.json"))
            ]
            command = peers[0]["command"].replace("--seed 0", "--seed S") if peers else "-"
            beside.append(
                f"{row}Stable-Baselines3 | {_means(peers, 'best')} | {_means(peers, 'final')} | `{command}` |"
            )
    text = """# Results

Produced by `python benchmarks/learning.py` (also `make learn`). Each run trains with the preset of the pair; the best checkpoint is chosen
by evaluation during training and scored greedily over 100 fresh whole episodes, beside the final policy. S is the seed, from 0. The JSON
files hold every evaluation of every seed, the versions, the commit and the machine.

TD(lambda) against known numbers is in [td.md](td.md), torch-twrl's own commands are in [twrl.md](twrl.md), hindsight on 15 bits in
[bit_flipping.md](bit_flipping.md).

| agent | environment | steps | bar | reached | best checkpoint, by seed | final policy, by seed | command |
|---|---|---|---|---|---|---|---|
"""
    text += "\n".join(rows) + "\n"
    if beside:
        text += """
Without a bar, beside a peer under the same budget (20 fresh episodes each; the peers' JSON files are in `peers/`):

| agent | environment | steps | library | best checkpoint, by seed | final policy, by seed | command |
|---|---|---|---|---|---|---|
"""
        text += "\n".join(beside) + "\n"
    (RESULTS / "README.md").write_text(text)


def _means(runs: list[dict], which: str) -> str:
    return ", ".join(f"{run[which]['mean']:.1f}" for run in runs) or "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agent", nargs="?")
    parser.add_argument("env", nargs="?")
    parser.add_argument("--jobs", type=int, default=2)
    o = parser.parse_args()
    chosen = [s for s in SETTINGS if o.agent in (None, s.agent) and o.env in (None, s.env)]
    if not chosen:
        parser.error(f"no setting {o.agent} {o.env}; there are {', '.join(f'{s.agent} {s.env}' for s in SETTINGS)}")
    failed = []
    for setting in chosen:
        result = run(setting, o.jobs)
        (RESULTS / f"{setting.name}.json").write_text(json.dumps(result, indent=1) + "\n")
        means = [round(r["best"]["mean"], 1) for r in result["runs"]]
        against = "" if setting.bar is None else f" {result['reached']} reached {setting.bar:g}:"
        print(f"{setting.agent} {setting.env}:{against} {means}", flush=True)
        failed += [] if result["passed"] else [setting]
    write_table()
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
