"""How long generalized advantage estimation takes: float32, CPU, one thread; TorchRL's in the same run if asked for.

    python benchmarks/gae.py [--torchrl] [--repeats 100]

One JSON line for each: {name, shape, ms_median}. With --torchrl (an interpreter that has both) also `times_torchrl`,
the time of the faster of their estimators over ours, and the largest difference of their results from ours.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial

import torch

from whorl.functional import gae

SHAPES = [(2048, 64), (128, 4096), (128, 8)]
DISCOUNT, TRACE_DECAY = 0.99, 0.95


def ms_median(f: Callable[[], object], repeats: int) -> float:
    for _ in range(3):  # compiles and fills the caches
        f()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2] * 1e3


def rollout(steps: int, num_envs: int) -> list[torch.Tensor]:
    """reward, value, next_value, terminated, truncated: one row in 50 ends each way."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(3, steps, num_envs, generator=generator)
    ends = torch.rand(2, steps, num_envs, generator=generator) < 0.02
    ends[1] &= ~ends[0]
    return [*numbers, *ends]


def torchrl_estimators(rows: list[torch.Tensor]) -> dict[str, Callable[[], torch.Tensor]]:
    """Theirs on [N, T, 1], laid out as they like it outside the measured time."""
    from torchrl.objectives.value.functional import generalized_advantage_estimate, vec_generalized_advantage_estimate

    reward, value, next_value, terminated, truncated = (x.T.contiguous().unsqueeze(-1) for x in rows)
    arguments = DISCOUNT, TRACE_DECAY, value, next_value, reward, terminated | truncated, terminated
    return {
        f"torchrl {f.__name__}": lambda f=f: f(*arguments)[0].squeeze(-1).T
        for f in (generalized_advantage_estimate, vec_generalized_advantage_estimate)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torchrl", action="store_true", help="time TorchRL's estimators too")
    parser.add_argument("--repeats", type=int, default=100, help="of each measurement")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for shape in SHAPES:
        rows = rollout(*shape)
        ours = partial(gae, *rows, DISCOUNT, TRACE_DECAY)
        report = {"name": "whorl gae", "shape": shape, "ms_median": ms_median(ours, options.repeats)}
        lines = [report]
        for name, theirs in torchrl_estimators(rows).items() if options.torchrl else ():
            ms = ms_median(theirs, max(5, options.repeats // 5))
            difference = (theirs() - ours()).abs().max().item()
            lines.append({"name": name, "shape": shape, "ms_median": ms, "max_difference": difference})
        if options.torchrl:
            report["times_torchrl"] = min(line["ms_median"] for line in lines[1:]) / report["ms_median"]
        for line in lines:
            print(json.dumps({k: round(v, 7) if isinstance(v, float) else v for k, v in line.items()}), flush=True)


if __name__ == "__main__":
    main()
