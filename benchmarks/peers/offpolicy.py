"""Replay and the off-policy loops, whorl beside its peers: interleaved, one thread, in one run, with the bars they are held to.

python benchmarks/peers/offpolicy.py --repeats 3            installs the peers the first time; writes results/offpolicy_speed.json
python benchmarks/peers/offpolicy.py --only replay          one part; prints, writes only with --out
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from run import HERE, ROOT, call, install

PYTHON = HERE / ".venv-offpolicy" / "bin" / "python"
EVERY10, EVERY1 = ["--every", "10", "--batch", "128"], ["--every", "1", "--batch", "32"]
PROGRAMS = {  # part: steps that count; name, whose interpreter, command
    "dqn_every10": (20_000, [
        ("whorl", "whorl", ["dqn_whorl.py", *EVERY10]),
        ("whorl --compile", "whorl", ["dqn_whorl.py", "--compile", *EVERY10]),
        ("stable-baselines3", "peers", ["dqn_sb3.py", *EVERY10]),
        ("torchrl", "peers", ["dqn_torchrl.py", *EVERY10]),
    ]),
    "dqn_every1": (8_000, [
        ("whorl", "whorl", ["dqn_whorl.py", *EVERY1]),
        ("whorl --compile", "whorl", ["dqn_whorl.py", "--compile", *EVERY1]),
        ("stable-baselines3", "peers", ["dqn_sb3.py", *EVERY1]),
    ]),
    "sac": (2_000, [
        ("whorl", "whorl", ["sac_whorl.py"]),
        ("whorl --compile", "whorl", ["sac_whorl.py", "--compile"]),
        ("stable-baselines3", "peers", ["sac_sb3.py"]),
        ("sbx", "peers", ["sac_sb3.py", "--jax"]),
    ]),
    "replay": (None, [
        ("whorl", "whorl", ["replay.py", "whorl"]),
        ("stable-baselines3", "peers", ["replay.py", "sb3"]),
        ("torchrl", "peers", ["replay.py", "torchrl"]),
        ("cpprb", "peers", ["replay.py", "cpprb"]),
    ]),
}  # fmt: skip
TITLES = {
    "dqn_every10": "DQN, CartPole-v1, 120x84, batch 128, one update every 10 steps",
    "dqn_every1": "DQN, CartPole-v1, 120x84, batch 32, one update a step",
    "sac": "SAC, Pendulum-v1, 256x256, batch 256, one update a step",
    "sample": "replay: 256 rows of 1,000,000, uniform",
    "prioritized sample": "replay: 256 rows and their weights, prioritized",
    "priority update": "replay: 256 priorities",
    "add": "replay: 64 rows added",
}
BARS = [  # what, ours, theirs, at least this many times theirs
    ("dqn_every10", "whorl", "stable-baselines3", 2.0),
    ("dqn_every10", "whorl", "torchrl", 8.0),
    ("dqn_every1", "whorl", "stable-baselines3", 2.0),
    ("sac", "whorl", "stable-baselines3", 1.8),
    ("sac", "whorl --compile", "sbx", 0.9),
    ("sample", "whorl", "stable-baselines3", 3.0),
    ("sample", "whorl", "torchrl", 8.0),
    ("prioritized sample", "whorl", "cpprb", 2.0),
    ("priority update", "whorl", "cpprb", 3.0),
    ("add", "whorl", "torchrl", 10.0),
]
VERSIONS = "import json, report; print(json.dumps(report.machine()))"


def measured(line):
    """Speeds by the clock and by the process's own time; share: how much of the core it had."""
    if "operation" in line:
        wall, cpu, extra = line["per_second"], line["per_cpu_second"], {}
    else:
        wall, extra = line["steps_per_second"], {"final_return": line["final_return"]}
        cpu = line["steps"] / line["cpu_seconds"]
    return {"per_second": wall, "per_cpu_second": cpu, "share": wall / cpu} | extra


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(PROGRAMS), default=list(PROGRAMS))
    parser.add_argument(
        "--scale", type=float, default=1.0, help="times the usual number of steps, or seconds of replay"
    )
    parser.add_argument("--out", type=Path, help="default: results/offpolicy_speed.json for a whole run")
    parser.add_argument("--peers-python", type=Path, help="an interpreter that has the peers")
    o = parser.parse_args()
    if o.peers_python is None:
        install(PYTHON, HERE / "requirements-offpolicy.txt")
    interpreters = {"whorl": sys.executable, "peers": str((o.peers_python or PYTHON).absolute())}

    rows, failed, unavailable = {}, {}, {}
    for repeat in range(o.repeats):
        for part in o.only:
            steps, programs = PROGRAMS[part]
            for name, whose, command in programs:
                length = ["--steps", str(int(steps * o.scale))] if steps else ["--seconds", str(o.scale)]
                seed = ["--seed", str(repeat + 1)] if steps else []
                lines, error = call(interpreters[whose], [*command, *length, *seed])
                for line in lines or []:
                    what = line.get("operation", part)
                    if "unavailable" in line:
                        unavailable[f"{what}: {name}"] = line["unavailable"]
                        continue
                    rows.setdefault(what, {}).setdefault(name, []).append(measured(line))
                    print(f"  {what}, {name}: {rows[what][name][-1]['per_second']:,.0f}/s", flush=True)
                if error:
                    failed[f"{part}: {name}"] = error
                    print(f"  {part}, {name}: {error}", flush=True)

    median = {
        what: {name: statistics.median(r["per_second"] for r in found) for name, found in by.items()}
        for what, by in rows.items()
    }
    for what in (w for w in TITLES if w in rows):
        print(
            f"\n{TITLES[what]}\n{'':20}{'per s':>10}{'min':>10}{'max':>10}{'whorl is':>11}{'compiled is':>13}{'CPU':>6}{'return':>9}"
        )
        for name, found in rows[what].items():
            all_speeds, share = [r["per_second"] for r in found], statistics.median(r["share"] for r in found)
            ratios = [
                f"{median[what][ours] / median[what][name]:.2f}x" if ours in median[what] else "-"
                for ours in ("whorl", "whorl --compile")
            ]
            final = [
                f"{statistics.median(r['final_return'] for r in found):9.0f}"
                for _ in (0,)
                if "final_return" in found[0]
            ]
            print(
                f"{name:20}{median[what][name]:10,.0f}{min(all_speeds):10,.0f}{max(all_speeds):10,.0f}{ratios[0]:>11}{ratios[1]:>13}"
                f"{share:6.2f}{''.join(final)}"
            )

    bars = []
    print(f"\n{'bar':62}{'ratio':>8}{'CPU time':>10}")
    for what, ours, theirs, least in BARS:
        by = rows.get(what, {})
        if ours in by and theirs in by:
            cpu = {name: statistics.median(r["per_cpu_second"] for r in by[name]) for name in (ours, theirs)}
            bar = {
                "what": what, "ours": ours, "theirs": theirs, "at_least": least,
                "ratio": median[what][ours] / median[what][theirs], "ratio_of_cpu_time": cpu[ours] / cpu[theirs],
            }  # fmt: skip
            bars.append(bar | {"met": bar["ratio"] >= least})
            print(
                f"{f'{what}: {ours} >= {least:g}x {theirs}':62}{bar['ratio']:7.2f}x{bar['ratio_of_cpu_time']:9.2f}x"
                f"{'' if bars[-1]['met'] else '   MISSED'}"
            )
    for title, found in (("FAILED", failed), ("unavailable", unavailable)):
        for what, error in found.items():
            print(f"{title} {what}: {error}")

    out = o.out or (ROOT / "results" / "offpolicy_speed.json" if o.only == list(PROGRAMS) else None)
    if out:
        versions = {}
        for whose, interpreter in interpreters.items():
            done = subprocess.run([interpreter, "-c", VERSIONS], capture_output=True, text=True, cwd=HERE, check=True)
            versions[whose] = json.loads(done.stdout.splitlines()[-1])
        result = {
            "command": ("python benchmarks/peers/offpolicy.py " + " ".join(sys.argv[1:])).strip(), "machine": versions,
            "bars": bars, "median": median, "runs": rows, "failed": failed, "unavailable": unavailable,
        }  # fmt: skip
        out.parent.mkdir(exist_ok=True)
        out.write_text(json.dumps(result, indent=1) + "\n")
        print(f"\nwritten to {out}")
    sys.exit(1 if failed or not all(bar["met"] for bar in bars) else 0)


if __name__ == "__main__":
    main()
