"""Updates of one agent eager, compiled, compiled as torch does it unasked (every guard, libm's tanh), and the first two in bfloat16:
processor time, interleaved.

python benchmarks/compiled_step.py sac Pendulum-v1
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from whorl.nets.precision import cost, supported
from whorl.training.build import build


@contextmanager
def as_torch_does() -> Iterator[None]:
    """torch.compile without whorl's options."""
    real = torch.compile
    plain: Any = lambda function, options, **rest: real(function, **rest)  # noqa: E731
    torch.compile = plain
    try:
        yield
    finally:
        torch.compile = real


def updates(agent: str, env: str, body: str) -> Callable[[], float]:
    """Twenty updates on rows drawn once -> microseconds of processor time of one. The first update, and what it took, is behind."""
    update, precision = (
        "eager" if body.startswith("eager") else "compiled",
        "bfloat16" if "bfloat16" in body else "float32",
    )
    parts = build(agent, env, num_envs=None, seed=0, update=update, precision=precision)
    learner, feed = parts.agent, parts.agent.config.feed
    batches: list = []
    while not batches:
        parts.buffer.add(learner.prepare(parts.collector.collect()))
        if int(learner.env_steps) > feed.warmup + feed.batch_size:
            batches = [batch.clone() for _, batch in zip(range(4), parts.buffer.batches(4), strict=False)]
    wall, own = time.perf_counter(), time.process_time()
    for batch in batches:
        learner.update(batch)
    print(
        f"{body}: first updates {time.perf_counter() - wall:.1f} s, {time.process_time() - own:.1f} s of this process"
    )

    def once() -> float:
        begun = time.process_time()
        for i in range(20):
            learner.update(batches[i % len(batches)])
        return (time.process_time() - begun) / 20 * 1e6

    return once


def main(agent: str, env: str, pairs: int = 11) -> None:
    torch.set_num_threads(1)
    with as_torch_does():
        bodies = {"as torch does": updates(agent, env, "as torch does")}
    bodies |= {body: updates(agent, env, body) for body in ("eager", "compiled")}
    if supported():
        print(f"bfloat16: a product of 256 x 256 numbers takes {cost():.2f} times as long as in float32")
        bodies |= {body: updates(agent, env, body) for body in ("eager in bfloat16", "compiled in bfloat16")}
    took: dict[str, list[float]] = {body: [] for body in bodies}
    for _ in range(pairs):
        for body, once in bodies.items():
            took[body].append(once())
    for body, found in took.items():
        ratios = sorted(a / b for a, b in zip(took["eager"], found, strict=True))
        print(
            f"{agent} {body}: {statistics.median(found):,.0f} us, {statistics.median(ratios):.2f}x eager ({ratios[0]:.2f}-{ratios[-1]:.2f})"
        )


if __name__ == "__main__":
    main(*sys.argv[1:3])
