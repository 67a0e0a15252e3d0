"""A process that writes replay rows to disk is killed at random moments: what is found is whole, in order, and all of it.

The writer says after each write how far it came. WHORL_KILLS sets the number of kills (3).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
import torch

from whorl import batch
from whorl.buffers.storage_memmap import Memmap

KILLS = int(os.environ.get("WHORL_KILLS", "3"))
CAPACITY, LANES, SLACK, WIDTH = 60, 2, 16, 20_000  # rows of 80 kB: a kill often hits inside one

pytestmark = pytest.mark.fault


MANY = 64  # different rows: made beforehand, so that most of the time goes into writing
ROWS = np.random.Generator(np.random.PCG64(0)).random((MANY, WIDTH), np.float32)
CHECKS = np.array([zlib.crc32(row.tobytes()) for row in ROWS])


def rollout(start: np.ndarray, steps: int):
    k = start.astype(np.int64) + np.arange(steps)[:, None]
    which = (k * LANES + np.arange(LANES)) % MANY
    entries = {"number": k, "check": CHECKS[which], "observation": ROWS[which]}
    return batch.make({name: torch.from_numpy(x) for name, x in entries.items()}, (steps, LANES))


def write(folder: str) -> None:
    """Goes on where the rows end, for ever."""
    torch.set_num_threads(1)
    storage = Memmap(folder, CAPACITY, LANES, SLACK)
    steps = 1
    while True:
        storage.write(rollout(storage.count, steps))
        os.write(1, b"%d\n" % storage.count[0])
        steps = steps % 5 + 1


def helper(folder: str, rounds: int) -> None:
    """Forks the writer from a process that has everything imported, kills it, and looks at the rows."""
    torch.set_num_threads(1)
    draw = random.Random(0)
    Memmap(folder, CAPACITY, LANES, SLACK).write(rollout(np.zeros(LANES), 1))
    inside = 0
    for number in range(rounds):
        read, said = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(said, 1)
            write(folder)
        os.close(said)
        lines = os.read(read, 10)  # it writes
        time.sleep(draw.uniform(0, 0.2))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL, "the writer ended by itself"
        with os.fdopen(read, "rb") as rest:
            lines += rest.read()
        storage = Memmap.open(folder)
        assert storage.count.min() >= int(lines.split()[-1]), "rows that were reported are lost"
        inside += bool((storage._begun > storage.count).any())
        low, high = storage.live()
        assert (high - low == np.minimum(high, CAPACITY // LANES)).all()
        for lane in range(LANES):
            rows = storage.read(torch.arange(low[lane], high[lane]) * LANES + lane)
            k = np.arange(low[lane], high[lane])
            assert (
                rows["number"].tolist() == k.tolist()
                and rows["check"].tolist() == CHECKS[(k * LANES + lane) % MANY].tolist()
            )
            for check, x in zip(rows["check"].tolist(), rows["observation"].numpy()):
                assert zlib.crc32(x.tobytes()) == check, f"a row of lane {lane} is torn, round {number}"
    print("inside a write:", inside, "rows:", storage.count.tolist())


def test_a_killed_writer_leaves_whole_rows(tmp_path):
    process = subprocess.run(
        [sys.executable, __file__, str(tmp_path / "rows"), str(KILLS)], capture_output=True, text=True, timeout=600
    )
    print(process.stdout)
    assert process.returncode == 0, process.stderr


if __name__ == "__main__":
    helper(sys.argv[1], int(sys.argv[2]))
