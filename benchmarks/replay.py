"""What the replay buffer costs on one CPU thread: rows in, batches out. Observations of 17, actions of 6, float32.

    python benchmarks/replay.py [--rows 1000000] [--folder FOLDER] [--rounds 5]

One JSON line for each measurement: {name, us (median of the rounds), us_least, per_second (of the median)}. With a folder also
the memory-mapped storage, whose files it makes and deletes there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from whorl import batch
from whorl.buffers.buffer import ReplayBuffer
from whorl.buffers.sample_uniform import Uniform
from whorl.buffers.storage_memmap import Memmap
from whorl.buffers.storage_memory import Memory

BATCH = 256


def rollout(steps: int, envs: int) -> Any:
    flag = torch.zeros(steps, envs, dtype=torch.bool)
    result = {"observation": torch.randn(steps, envs, 17), "reward": torch.randn(steps, envs), "terminated": flag}
    entries = {"observation": torch.randn(steps, envs, 17), "action": torch.randn(steps, envs, 6)}
    return batch.make({**entries, "next": {**result, "truncated": flag.clone()}}, (steps, envs))


def measure(name: str, f: Callable[[], object], rounds: int, calls: int, rows: int = 1) -> None:
    f()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            f()
        times.append((time.perf_counter() - start) / calls * 1e6)
    us = sorted(times)[rounds // 2]
    line = {"name": name, "us": round(us, 2), "us_least": round(min(times), 2), "per_second": round(rows / us * 1e6)}
    print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    makers: dict[str, Callable[[int], Any]] = {"memory": lambda lanes: Memory(options.rows, lanes)}
    if options.folder:
        makers["memmap"] = lambda lanes: Memmap(options.folder / f"rows-{lanes}", options.rows, lanes)
    for name, make in makers.items():
        for steps, envs in ((1, 1), (64, 1), (1, 64)):
            buffer, rows = ReplayBuffer(make(envs), Uniform(0), batch_size=BATCH), rollout(steps, envs)
            label = f"{name}: add [{steps}, {envs}], rows"
            measure(label, lambda buffer=buffer, rows=rows: buffer.add(rows), options.rounds, 3000, steps * envs)
            if options.folder:
                shutil.rmtree(options.folder / f"rows-{envs}", ignore_errors=True)
        buffer, rows = ReplayBuffer(make(1), Uniform(0), batch_size=BATCH), rollout(10_000, 1)
        while len(buffer) < options.rows:
            buffer.add(rows)
        measure(f"{name}: sample {BATCH} of {len(buffer)}", buffer.sample, options.rounds, 3000)
        if options.folder:
            shutil.rmtree(options.folder / "rows-1", ignore_errors=True)


if __name__ == "__main__":
    main()
