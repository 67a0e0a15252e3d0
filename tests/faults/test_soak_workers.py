"""A long run whose environments are in worker processes: its memory, descriptors, threads and processes stay what they were.

WHORL_SOAK is how many steps it takes (5,000,000).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

STEPS = int(os.environ.get("WHORL_SOAK", 5_000_000))
LOOKS = 100
RUN = """
import json, os, sys
import whorl
from tests.processes import Held

class Look:
    def __init__(self, every):
        self.every, self.due = every, 0

    def begin(self, run):
        self.run = run

    def __call__(self, rollout, metrics):
        if self.run.steps >= self.due:
            self.due += self.every
            print(json.dumps([self.run.steps, *Held.by(os.getpid())]), flush=True)

steps = int(sys.argv[2])
whorl.train("ppo", "CartPole-v1", num_envs=16, workers=2, env_kwargs={"sutton_barto_reward": False}, total_steps=steps, quiet=True,
            runs=sys.argv[1], feed={"steps": 128, "epochs": 1}, eval_episodes=10, hooks=[Look(steps // int(sys.argv[3]))])
"""


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.skipif(sys.platform != "linux", reason="/proc shows what a process holds on Linux only")
def test_nothing_grows_with_the_steps(tmp_path):
    words = [sys.executable, "-c", RUN, str(tmp_path), str(STEPS), str(LOOKS)]
    path = os.pathsep.join([os.getcwd(), *filter(None, sys.path)])
    done = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr
    looks = np.array([json.loads(line) for line in done.stdout.splitlines()])
    print(done.stdout)
    assert len(looks) > 0.9 * LOOKS
    steps, resident, *counts = looks[LOOKS // 5 :].T  # the others are warm-up
    for name, count in zip(("descriptors", "threads", "processes"), counts, strict=True):
        assert (count == count[0]).all(), f"{name}: {count.tolist()}"
    slope = np.polyfit(steps / 1e6, resident, 1)[0]
    print(f"{slope:.2f} MB a million steps; descriptors, threads, processes {looks[-1, 2:].tolist()}")
    assert slope < 1, f"{slope:.2f} MB a million steps"
