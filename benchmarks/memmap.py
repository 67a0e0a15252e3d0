"""A replay buffer on disk that is larger than the memory the process uses: fills it, trains on it, and says what stayed resident.

    python benchmarks/memmap.py FOLDER [--gigabytes 20] [--updates 20000]

Needs that much free disk. Not part of the tests: it writes for minutes. One JSON line at the end: {gigabytes, rows, fill_s,
updates_per_s, resident_gigabytes (the largest seen), resident_file_gigabytes}. The files are deleted.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from whorl import batch
from whorl.buffers.buffer import ReplayBuffer
from whorl.buffers.sample_uniform import Uniform
from whorl.buffers.storage_memmap import Memmap

LANES, STEPS, WIDTH = 8, 32, 2048  # rows of about 16 kB


def rollout(start: int) -> Any:
    number = torch.arange(start, start + STEPS).view(-1, 1, 1).expand(STEPS, LANES, WIDTH)
    flag = torch.zeros(STEPS, LANES, dtype=torch.bool)
    result = {"observation": number.float() + 1, "reward": torch.ones(STEPS, LANES), "terminated": flag}
    return batch.make(
        {"observation": number.float(), "action": number[..., 0].contiguous(), "next": result}, (STEPS, LANES)
    )


def resident(what: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 2**20
    raise ValueError(what)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=20)
    parser.add_argument("--updates", type=int, default=20_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.folder / "replay-memmap"
    capacity = int(options.gigabytes * 2**30 / (2 * WIDTH * 4 + 24))
    buffer = ReplayBuffer(Memmap(folder, capacity, LANES), Uniform(0), batch_size=256)
    largest = {"VmRSS": 0.0, "RssFile": 0.0}
    try:
        start, begun = 0, time.perf_counter()
        while len(buffer) < capacity:
            buffer.add(rollout(start))
            start += STEPS
            largest = {name: max(value, resident(name)) for name, value in largest.items()}
        filled = time.perf_counter()
        model = torch.nn.Linear(WIDTH, 1)
        optimizer = torch.optim.SGD(model.parameters(), 1e-12)
        for update in range(options.updates):
            rows = buffer.sample()
            assert bool((rows["observation"][:, -1] + 1 == rows["next"]["observation"][:, 0]).all())
            optimizer.zero_grad()
            model(rows["observation"]).square().mean().backward()
            optimizer.step()
            if update % 16 == 0:
                largest = {name: max(value, resident(name)) for name, value in largest.items()}
        seconds = time.perf_counter() - filled
        result = {"gigabytes": buffer.storage.nbytes / 2**30, "rows": len(buffer), "fill_s": filled - begun}
        result |= {"updates_per_s": options.updates / seconds, "resident_gigabytes": largest["VmRSS"]}
        result["resident_file_gigabytes"] = largest["RssFile"]
        print(json.dumps({name: round(value, 3) for name, value in result.items()}))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
