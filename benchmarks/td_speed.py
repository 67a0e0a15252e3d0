"""Steps per second of linear tile-coding Sarsa on MountainCar, one core: the compiled loop, the ordinary loop, and bare loops beside it.

    python benchmarks/td_speed.py [--repeats 5]

Prints medians and writes results/td_speed.json. The bare loops step the same world with the same features and learn nothing more than a
loop must: one over a preallocated TensorDict, one in plain numpy, which is what a careful person writes without a library.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from whorl import batch
from whorl.envs import native
from whorl.nets.tile_coding import TileCoding
from whorl.training import folder
from whorl.training.build import Parts, build
from whorl.training.catalog import find
from whorl.training.loops import compiled_td, plain
from whorl.training.window import Window

RESULTS = Path(__file__).parent.parent / "results"
BARS = {"compiled, lambda 0": 12e6, "compiled, lambda .9": 3e6, "ordinary loop, lambda .9": 40e3}  # steps/s


def make(trace_decay: float) -> Parts:
    config = dataclasses.replace(find("td", "MountainCar-v0").config, trace_decay=trace_decay)
    return build("td", "MountainCar-v0", config=config, num_envs=1, seed=0)


def compiled(trace_decay: float, steps: int) -> Callable[[], float]:
    def measure() -> float:
        parts = make(trace_decay)
        compiled_td.train(parts.agent, parts.collector, parts.buffer, 50_000)  # past the first long episodes
        start = time.perf_counter()
        compiled_td.train(parts.agent, parts.collector, parts.buffer, 50_000 + steps)
        return steps / (time.perf_counter() - start)

    return measure


def ordinary(steps: int) -> float:
    """With the statistics and hooks of a run: a sliding window, and three hooks that look whether they are due."""
    parts, window = make(0.9), Window(100)

    def log(rollout, metrics) -> None:
        for episode in parts.collector.episodes:
            window.add(episode.ret, episode.length)

    def due(rollout, metrics) -> None:
        if parts.collector.steps % 2000 == 0:
            float(metrics["td_error"])

    plain.train(parts.agent, parts.collector, parts.buffer, 10_000)
    start = time.perf_counter()
    plain.train(parts.agent, parts.collector, parts.buffer, 10_000 + steps, [log, due, due])
    return steps / (time.perf_counter() - start)


def bare_numpy(steps: int) -> float:
    """Sarsa(0) in plain numpy: environment, tile coding, argmax, one update; no traces, no statistics."""
    env = native.make("MountainCar-v0")
    table = TileCoding(env.observation_space).table.numpy()
    low, scale, limit, stride, offsets = table[0], table[1], table[2], table[3].astype(np.int64), table[4:]
    first = np.arange(8) * 81
    weight = np.zeros((3, 8 * 81))

    def features(observation: np.ndarray) -> np.ndarray:
        return first + (np.clip((observation - low) * scale, 0, limit) + offsets).astype(np.int64) @ stride

    here, action = features(env.reset(0)[0]), 0
    start = time.perf_counter()
    for _ in range(steps):
        step = env.step(np.array([action]))
        there = features(step.next_observation[0])
        q = weight[:, there].sum(1)
        following = int(q.argmax())
        target = step.reward[0] + (0.0 if step.terminated[0] else q[following])
        weight[action, here] += 0.0625 * (target - weight[action, here].sum())
        if step.terminated[0] or step.truncated[0]:
            there = features(step.observation[0])
            following = int(weight[:, there].sum(1).argmax())
        here, action = there, following
    return steps / (time.perf_counter() - start)


def bare_tensordict(steps: int) -> float:
    """Environment steps written into a preallocated TensorDict [1, 1], and read back; nothing is learned."""
    env = native.make("MountainCar-v0")
    leaves = {
        "observation": torch.zeros(1, 1, 2),
        "action": torch.zeros(1, 1, dtype=torch.int64),
        "reward": torch.zeros(1, 1),
    }
    rollout = batch.make(leaves, (1, 1))
    views = {key: value.numpy() for key, value in leaves.items()}
    observation, action = env.reset(0), np.zeros(1, np.int64)
    start = time.perf_counter()
    for _ in range(steps):
        views["observation"][0] = observation
        views["action"][0] = action
        step = env.step(action)
        views["reward"][0] = step.reward
        observation = step.observation
        rollout["reward"]
    return steps / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    measures = {
        "compiled, lambda 0": compiled(0.0, 4_000_000),
        "compiled, lambda .9": compiled(0.9, 2_000_000),
        "ordinary loop, lambda .9": lambda: ordinary(100_000),
        "bare loop, plain numpy": lambda: bare_numpy(50_000),
        "bare loop, preallocated TensorDict": lambda: bare_tensordict(100_000),
    }
    for measure in measures.values():
        measure()  # compiles
    rates: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(repeats):  # in turn, so that all see the same machine
        for name, measure in measures.items():
            rates[name].append(measure())
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, rate in medians.items():
        bar = f" (bar {BARS[name]:,.0f})" if name in BARS else ""
        print(f"{name:36} {rate:14,.0f} steps/s{bar}")
    meta = {key: value for key, value in folder.meta().items() if key != "command"}
    data = {
        "command": f"python benchmarks/td_speed.py --repeats {repeats}",
        "meta": meta,
        "steps_per_second": medians,
        "all": rates,
    }
    (RESULTS / "td_speed.json").write_text(json.dumps(data, indent=1) + "\n")


if __name__ == "__main__":
    main()
