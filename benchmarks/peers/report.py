"""What every program here shares: its settings, its clock, how it is asked and how it answers.

A program is a function `run(**options)` that gives numbers, and stays: `echo '{"seconds": 1}' | python sb3.py` asks it once.
"""

import json
import os
import platform
import sys
import time
from importlib import metadata

import torch

torch.set_num_threads(1)

# epsilon .05 from the first learned step on: acting at epsilon 1 would skip the network. Counted from: compilation lies before
DQN = {"learning_rate": 2.5e-4, "capacity": 10_000, "warmup": 1_000, "epsilon": 0.05, "target_every": 500}
SAC = {"learning_rate": 1e-3, "warmup": 100}


class Timed:
    """Call it with the steps taken so far, at most once a rollout; steps count once `counted_from` are passed. It says True once
    those that count took `seconds`."""

    def __init__(self, counted_from, seconds):
        self.counted_from, self.wanted, self.first = counted_from, seconds, None

    def __call__(self, steps):
        self.last = (steps, time.perf_counter(), time.process_time())
        if self.first is None and steps >= self.counted_from:
            self.first = self.last
        return self.first is not None and self.last[0] > self.first[0] and self.last[1] - self.first[1] >= self.wanted

    def outcome(self, final_return=None):
        """final_return: mean of the newest training episodes, so that a program that does not learn is seen."""
        steps, wall, cpu = (last - first for last, first in zip(self.last, self.first, strict=True))
        return outcome(steps / wall, cpu / wall, final_return)


def outcome(per_second, share, final_return=None):
    """share: of the processor. Far below 1: something else had the core."""
    final = None if final_return is None else float(final_return)
    return {"value": per_second, "share": share, "final_return": final}


def calls(function, seconds):
    """Calls per second of a function, after a few that do not count."""
    for _ in range(3):
        function()
    done, start, cpu = 0, time.perf_counter(), time.process_time()
    while (now := time.perf_counter()) - start < seconds:
        function()
        done += 1
    return outcome(done / (now - start), (time.process_time() - cpu) / (now - start))


def serve(run):
    """Answer each line of standard input, options as JSON, with a line of what `run` gives."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), file=answers, flush=True)


def machine():
    """Where it ran and the versions of whatever is installed there."""
    found = {}
    for name in (
        "torch", "numpy", "gymnasium", "mujoco", "stable-baselines3", "sbx-rl", "jax", "gymnax", "torchrl", "tensordict", "cpprb", "whorl",
    ):  # fmt: skip
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "versions": found,
    }
