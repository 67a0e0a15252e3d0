"""How fast an off-policy update could be at most: its matrix products alone, at the speed of this CPU's largest ones.

    python benchmarks/update_limit.py sac Pendulum-v1 [--batch 256] [--steps 300]
    python benchmarks/update_limit.py dqn CartPole-v1 --batch 32

Trains with one update for each environment step, on one thread, and prints JSON: microseconds of a step as a whole, of an update and
of its matrix products (profiler), how many calls of torch an update makes, its floating-point operations (torch's own count, forward
and backward), what a 256 x 256 product reaches here in GFLOP/s, and the updates a second if an update were these operations at that
speed and nothing else.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import time
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from whorl.training.build import build
from whorl.training.catalog import find
from whorl.training.loops import plain

PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")


def gigaflops(size: int = 256, repeats: int = 2_000) -> float:
    a, b, out = (torch.randn(size, size) for _ in range(3))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(repeats // 5):
            torch.mm(a, b, out=out)
        times.append((time.perf_counter() - start) / (repeats // 5))
    return 2 * size**3 / statistics.median(times) / 1e9


def measure(agent: str, env: str, batch: int, steps: int, warmup: int = 1_000) -> dict[str, Any]:
    config = find(agent, env).config
    feed = dataclasses.replace(config.feed, batch_size=batch, replay_ratio=1.0, warmup=warmup, steps=1)
    parts = build(
        agent, env, dataclasses.replace(config, feed=feed), num_envs=1, update="eager"
    )  # whose calls torch counts
    update, spent = parts.agent.update, []

    def timed(batch: Any) -> Any:
        start = time.perf_counter()
        try:
            return update(batch)
        finally:
            spent.append(time.perf_counter() - start)

    parts.agent.__dict__["update"] = timed
    go = lambda more: plain.train(parts.agent, parts.collector, parts.buffer, parts.collector.steps + more)  # noqa: E731
    go(warmup + 100)
    spent.clear()
    start = time.perf_counter()
    go(steps)
    step = (time.perf_counter() - start) / steps
    took = statistics.median(spent)
    with FlopCounterMode(display=False) as counter:
        go(20)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        go(100)
    events = [event for event in profiler.key_averages() if event.key.startswith("aten::")]
    products = sum(event.self_cpu_time_total for event in events if event.key in PRODUCTS) / 100
    flops, speed = counter.get_total_flops() / 20, gigaflops()
    return {
        "agent": agent, "env": env, "batch": batch,
        "step_us": round(step * 1e6), "update_us": round(took * 1e6), "products_us": round(products),
        "torch_calls": round(sum(event.count for event in events) / 100), "mflop": round(flops / 1e6, 1),
        "gflops_256": round(speed, 1), "most_updates_per_s": round(speed * 1e9 / flops),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("agent")
    parser.add_argument("env")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=300)
    o = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(measure(o.agent, o.env, o.batch, o.steps)))


if __name__ == "__main__":
    main()
