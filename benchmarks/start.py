"""What it costs to start: whole processes, one after the other, each in turn; medians.

python benchmarks/start.py --repeats 5

Prints JSON, one line for each kind of process, and what it takes beside the first, the imports that nobody who trains in torch does
without. `cpu_seconds` stands still where other processes take the cores. Stable-Baselines3 is there where `make peers` was.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
PEERS = HERE / "peers" / ".venv" / "bin" / "python"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent / "src"), "PYTHONWARNINGS": "ignore"}
IMPORTS = "import torch, gymnasium, numpy"
FIRST = "first process"  # of this name begin those without numba's cache


def programs(folder, steps, peers):
    """Name -> the command."""
    call = [sys.executable, "-c"]
    whorl = [*call, "from whorl.apps.cli import main; main()"]
    run = ["train", "ppo", "CartPole-v1", "--total-steps", str(steps), "--runs", folder, "--quiet"]
    found = {
        IMPORTS: [*call, IMPORTS],
        "import whorl.training.start": [*call, "import whorl.training.start"],
        "whorl list agents": [*whorl, "list", "agents"],
        f"whorl train, {steps:,} steps": [*whorl, *run],
        f"{FIRST}: whorl train, {steps:,} steps": [*whorl, *run],
        f"whorl train, {steps:,} steps, no evaluation": [*whorl, *run, "--eval-every", "0"],
    }
    if peers.exists():
        found[f"stable-baselines3, {steps:,} steps"] = [str(peers), str(HERE / "peers" / "start_sb3.py"), str(steps)]
    return found


def measure(what, command):
    """(seconds, of them on a processor, most memory in MiB) of one process."""
    with tempfile.TemporaryDirectory() as empty:
        cache = {"NUMBA_CACHE_DIR": empty} if what.startswith(FIRST) else {}
        began = time.perf_counter()
        process = subprocess.Popen(command, env=ENVIRONMENT | cache, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1024)
    parser.add_argument("--peers-python", type=Path, default=PEERS, help="an interpreter that has Stable-Baselines3")
    o = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asked = programs(folder, o.steps, o.peers_python)
        for what, command in asked.items():  # compiles what is kept on disk, and reads files into memory
            measure(what, command)
        rows = {what: [] for what in asked}
        for _ in range(o.repeats):
            for what, command in asked.items():
                rows[what].append(measure(what, command))
    medians = {what: [statistics.median(each) for each in zip(*own)] for what, own in rows.items()}
    for what, (seconds, cpu, rss) in medians.items():
        base = medians[IMPORTS]
        row = {"what": what, "seconds_median": round(seconds, 3), "cpu_seconds": round(cpu, 3), "rss_mib": round(rss)}
        row |= {"repeats": o.repeats, "cpu_ratio": round(cpu / base[1], 2), "rss_ratio": round(rss / base[2], 2)}
        print(json.dumps(row))


if __name__ == "__main__":
    main()
