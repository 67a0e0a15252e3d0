"""What a chain of transforms costs a step: ScaleAction, Normalize, StackFrames(4) and TimeLimit around Pendulum, and Gymnasium's own four.

    python benchmarks/transforms.py [--steps 2000] [--repeats 7]

Microseconds of this process's CPU time for one step of all N environments, on one core; the rows take turns, and the median counts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from gymnasium import wrappers
from gymnasium.spaces import Box

from whorl.envs.env import Env
from whorl.envs.guard import guarded
from whorl.envs.make import make_env
from whorl.transforms.action import ScaleAction
from whorl.transforms.env import Transformed
from whorl.transforms.episode import TimeLimit
from whorl.transforms.observation import Normalize, StackFrames

MEAN, STD, LIMIT = np.float32([0.5, 0.0, 0.0]), np.float32([1.0, 2.0, 8.0]), 100
NORMALIZE = {
    "fixed": lambda env: wrappers.TransformObservation(env, lambda x: (x - MEAN) / STD, Box(-9, 9, (3,))),
    "running": lambda env: wrappers.NormalizeObservation(env),
}


def ours(n: int, prefer: str) -> Env:
    """Pendulum through the four."""
    four = ScaleAction(), Normalize(MEAN.tolist(), STD.tolist()), StackFrames(4), TimeLimit(LIMIT)
    return Transformed(make_env("Pendulum-v1", n, prefer=prefer), *four)


def theirs(normalize: str) -> Env:
    """The same by Gymnasium's wrappers around each of 8."""
    four = (
        lambda env: wrappers.RescaleAction(env, -1.0, 1.0),
        NORMALIZE[normalize],
        lambda env: wrappers.FrameStackObservation(env, 4),
        lambda env: wrappers.TimeLimit(env, LIMIT),
    )
    return make_env("Pendulum-v1", 8, prefer="gymnasium", wrappers=four)


def microseconds(env: Env, steps: int) -> float:
    """CPU time of a step, checked as a run checks it."""
    action, world = np.zeros((env.num_envs, 1), np.float32), guarded(env)
    world.reset()
    begun = time.process_time()
    for _ in range(steps):
        world.step(action)
    return (time.process_time() - begun) / steps * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=7)
    asked = parser.parse_args()
    rows = {
        "native, N = 8": make_env("Pendulum-v1", 8),
        "native, N = 8, four transforms": ours(8, "native"),
        "native, N = 1024": make_env("Pendulum-v1", 1024),
        "native, N = 1024, four transforms": ours(1024, "native"),
        "gymnasium, N = 8": make_env("Pendulum-v1", 8, prefer="gymnasium"),
        "gymnasium, N = 8, four transforms": ours(8, "gymnasium"),
        "gymnasium, N = 8, its four wrappers": theirs("fixed"),
        "... with NormalizeObservation": theirs("running"),
    }
    for env in rows.values():
        microseconds(env, LIMIT + 1)
    taken = {name: list[float]() for name in rows}
    for _ in range(asked.repeats):
        for name, env in rows.items():
            taken[name].append(microseconds(env, asked.steps))
    for name, found in taken.items():
        print(f"{name:36} {statistics.median(found):8.1f} us a step")


if __name__ == "__main__":
    main()
