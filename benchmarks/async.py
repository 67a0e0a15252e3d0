"""What a sampler beside the learner gives: DQN on CartPole whose steps cost 1 ms of CPU, serial and async in turn, at the same ratio.

    python benchmarks/async.py [--ratio 1] [--steps 6000] [--rounds 3]

Steps per second of wall-clock time, from the first update on, need two free cores; on a busy machine they say little. Beside them stands
what the two processes took of the processor: serial / the busier of the two is what two free cores would give.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import gymnasium
import torch

from whorl.collectors.async_ import AsyncCollector
from whorl.envs.make import EnvKind
from whorl.training.build import build
from whorl.training.catalog import find
from whorl.training.loops.plain import train

NUM_ENVS, ROWS = 4, 16


class Busy(gymnasium.Wrapper):
    """A step takes `milliseconds` of CPU more."""

    def __init__(self, env: gymnasium.Env, milliseconds: float):
        super().__init__(env)
        self.seconds = milliseconds / 1000

    def step(self, action):
        end = time.thread_time() + self.seconds
        while time.thread_time() < end:
            pass
        return self.env.step(action)


def busy(milliseconds: float) -> gymnasium.Env:
    return Busy(gymnasium.make("CartPole-v1"), milliseconds)


class Taken(NamedTuple):
    wall: float  # seconds from the first update on
    here: float  # of CPU of this process
    there: float  # of CPU of samplers, their start included
    ratio: float  # updates per step


def measured(collecting: str, ratio: float, steps: int, seed: int) -> Taken:
    config = find("dqn", "CartPole-v1").config
    feed = replace(config.feed, replay_ratio=ratio, batch_size=128, steps=ROWS, warmup=1_000)
    parts = build("dqn", EnvKind(busy, {"milliseconds": 1.0}), replace(config, feed=feed), NUM_ENVS, seed)
    collector = parts.collector
    if collecting == "async":
        collector = AsyncCollector(parts.env, parts.agent.policy, ROWS, seed)
    began: list[tuple[float, float]] = []

    def first(rollout, metrics):
        if collector.steps >= feed.warmup and not began:
            began.append((time.perf_counter(), time.process_time()))

    before = children()
    train(parts.agent, collector, parts.buffer, steps + feed.warmup, [first])
    wall, here = time.perf_counter() - began[0][0], time.process_time() - began[0][1]
    collector.close()
    there = (children() - before) * steps / (steps + feed.warmup)
    return Taken(wall, here, there, parts.buffer.drawn / (parts.buffer.added - feed.warmup))


def children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def median(of: Callable[[Taken], float], taken: list[Taken]) -> float:
    return statistics.median(map(of, taken))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratio", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=6_000)
    parser.add_argument("--rounds", type=int, default=3)
    o = parser.parse_args()
    torch.set_num_threads(1)
    measured("serial", o.ratio, 200, 0)  # compiles
    found: dict[str, list[Taken]] = {"serial": [], "async": []}
    for seed in range(o.rounds):
        for collecting, taken in found.items():
            taken.append(measured(collecting, o.ratio, o.steps, seed))
    serial, ours = found["serial"], found["async"]
    busier = median(lambda t: max(t.here, t.there), ours)
    result = {
        "asked_ratio": o.ratio,
        "got_ratio": {name: median(lambda t: t.ratio, taken) for name, taken in found.items()},
        "steps_per_second": {name: round(o.steps / median(lambda t: t.wall, taken)) for name, taken in found.items()},
        "speedup_wall": round(median(lambda t: t.wall, serial) / median(lambda t: t.wall, ours), 2),
        "cpu_seconds": {
            "serial": round(median(lambda t: t.here, serial), 2),
            "learner": round(median(lambda t: t.here, ours), 2),
            "sampler": round(median(lambda t: t.there, ours), 2),
        },
        "speedup_of_two_free_cores": round(median(lambda t: t.here, serial) / busier, 2),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
