"""What every program here shares: its arguments, its clock, its one line of JSON."""

import argparse
import json
import os
import platform
import time
from importlib import metadata

import torch

torch.set_num_threads(1)

# What the off-policy programs share. Acting at epsilon 1 skips the network, so counting begins when it has come down.
DQN = {
    "learning_rate": 2.5e-4, "capacity": 10_000, "warmup": 1_000, "target_every": 500,
    "epsilon": 0.05, "epsilon_steps": 2_000, "counted_from": 3_000,
}  # fmt: skip
SAC = {"learning_rate": 1e-3, "warmup": 500, "counted_from": 800}  # compilation and tracing lie before 800


def arguments(doc, **extra):
    """extra: name=True makes a flag, name=number an option with that default."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps that count")
    parser.add_argument("--seed", type=int, default=1)
    for name, value in extra.items():
        if value is True:
            parser.add_argument(f"--{name}", action="store_true")
        else:
            parser.add_argument(f"--{name}", type=int, default=value)
    return parser.parse_args()


class timed:
    """Call it with the steps taken so far; counting begins once `warmup` steps are passed."""

    def __init__(self, warmup):
        self.warmup, self.first = warmup, None

    def __call__(self, steps):
        now = time.perf_counter(), time.process_time()
        if self.first is None and steps >= self.warmup:
            self.first = (steps, *now)
        self.last = (steps, *now)

    @property
    def steps(self):
        return self.last[0] - self.first[0]

    @property
    def seconds(self):
        return self.last[1] - self.first[1]

    @property
    def cpu_seconds(self):
        """Well below `seconds`: something else had the core."""
        return self.last[2] - self.first[2]


def report(name, timer, final_return):
    """final_return: mean of the last 50 training episodes, so that a peer that does not learn is seen."""
    speed = timer.steps / timer.seconds
    print(
        json.dumps(
            {
                "name": name, "steps": timer.steps, "seconds": timer.seconds, "cpu_seconds": timer.cpu_seconds, "steps_per_second": speed,
                "final_return": float(final_return),
            }
        )
    )  # fmt: skip


def machine():
    """Where it ran and the versions of whatever is installed there."""
    found = {}
    for name in (
        "torch",
        "numpy",
        "gymnasium",
        "mujoco",
        "stable-baselines3",
        "sbx-rl",
        "jax",
        "torchrl",
        "tensordict",
        "cpprb",
        "whorl",
    ):
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
