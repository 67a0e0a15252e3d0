"""whorl and its peers side by side, interleaved, one thread, in one run: a table of medians with ratios, and JSON.

make bench                                    installs the peers into benchmarks/peers/.venv the first time
python benchmarks/peers/run.py --repeats 5 --out results/speed.json
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
OWN = HERE / ".venv" / "bin" / "python"
PROGRAMS = [  # name, whose interpreter, command
    ("whorl", "whorl", ["ppo_whorl.py"]),
    ("whorl --compile", "whorl", ["ppo_whorl.py", "--compile"]),
    ("stable-baselines3", "peers", ["ppo_sb3.py"]),
    ("cleanrl-style", "peers", ["ppo_cleanrl.py"]),
    ("torchrl", "peers", ["ppo_torchrl.py"]),
]
# Whether freed megabytes are reused or fetched anew (page faults) is luck from process to process, and moved the ratio of GAE at
# [128, 4096] from 17x to 57x. So both sides get an allocator (glibc) that reuses them.
REUSE = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_TOP_PAD_": str(2**28)}


def install(python=OWN, wanted=HERE / "requirements.txt"):
    """The peers' own environment, once; again when the list changed or an earlier installation did not finish."""
    folder = python.parents[1]
    installed = folder / "installed.txt"
    if not installed.exists() or installed.read_text() != wanted.read_text():
        print(f"installing the peers into {folder} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(wanted)], check=True)
        installed.write_text(wanted.read_text())


def call(interpreter, command, **extra):
    """(JSON lines, None), or (None, last line of its error)."""
    pin = ["taskset", "-c", str(min(os.sched_getaffinity(0)))] if shutil.which("taskset") else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src"), "PYTHONWARNINGS": "ignore"}
    environment |= extra
    done = subprocess.run([*pin, interpreter, *command], capture_output=True, text=True, env=environment, cwd=HERE)
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or ["no message"])[-1]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return (lines, None) if lines else (None, "it printed no result")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "speed.json")
    parser.add_argument(
        "--peers-python", type=Path, help="an interpreter that has the peers; default: an environment of our own"
    )
    parser.add_argument("--install-only", action="store_true")
    o = parser.parse_args()
    if o.peers_python is None:
        install()
    if o.install_only:
        return
    interpreters = {"whorl": sys.executable, "peers": str((o.peers_python or OWN).absolute())}

    rows, failed = {name: [] for name, _, _ in PROGRAMS}, {}
    for repeat in range(o.repeats):
        for name, whose, command in PROGRAMS:
            lines, error = call(interpreters[whose], [*command, "--steps", str(o.steps), "--seed", str(repeat + 1)])
            if error:
                failed[name] = error
            else:
                rows[name].append(lines[-1])
            print(f"  {name}: {error or format(lines[-1]['steps_per_second'], ',.0f') + ' steps/s'}", flush=True)

    speed = {name: statistics.median(r["steps_per_second"] for r in found) for name, found in rows.items() if found}
    print("\nPPO, CartPole-v1, 8 x 128, 4 epochs x 4 minibatches, 64x64 tanh, learning included, one thread")
    print(f"{'':20}{'steps/s':>10}{'min':>10}{'max':>10}{'whorl is':>11}{'compiled is':>13}{'return':>9}")
    for name, found in rows.items():
        if not found:
            print(f"{name:20} FAILED: {failed[name]}")
            continue
        all_speeds = [r["steps_per_second"] for r in found]
        ratios = [
            f"{speed[ours] / speed[name]:.2f}x" if ours in speed else "-" for ours in ("whorl", "whorl --compile")
        ]
        final = statistics.median(r["final_return"] for r in found)
        print(
            f"{name:20}{speed[name]:10,.0f}{min(all_speeds):10,.0f}{max(all_speeds):10,.0f}"
            f"{ratios[0]:>11}{ratios[1]:>13}{final:9.0f}"
        )
        if name in failed:
            print(f"{'':20} FAILED in {o.repeats - len(found)} of {o.repeats} runs: {failed[name]}")

    others = {}
    for title, whose, command, extra in (
        ("collection, 64x64 policy", "whorl", ["collect.py"], {}),
        ("GAE", "peers", [str(ROOT / "benchmarks" / "gae.py"), "--torchrl"], REUSE),
    ):
        lines, error = call(interpreters[whose], command, **extra)
        others[title] = lines if lines else error
        print(f"\n{title}")
        for line in lines or [{"FAILED": error}]:
            name, *rest = line.items()
            cells = (f"{k} {v:,.3f}" if isinstance(v, float) else str(v) for k, v in rest)
            print(f"  {name[1]}  " + "  ".join(cells))
        if error:
            failed[title] = error

    machine = {"python": platform.python_version(), "platform": platform.platform(), "cores": os.cpu_count()}
    command = "python benchmarks/peers/run.py " + " ".join(sys.argv[1:])
    o.out.parent.mkdir(exist_ok=True)
    o.out.write_text(
        json.dumps(
            {
                "command": command.strip(),
                "machine": machine,
                "ppo": rows,
                "median": speed,
                "others": others,
                "failed": failed,
            },
            indent=1,
        )
        + "\n"
    )
    print(f"\nwritten to {o.out}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
