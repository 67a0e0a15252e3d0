"""What checking an environment's answers costs PPO: steps/s with and without the guard, interleaved, one thread.

    python benchmarks/guard.py [ENV ...] [--steps 40960] [--repeats 5]

Native worlds are whorl's own code and step unguarded; `forced` puts the guard before them all the same.
One JSON line for each environment: {env, guarded, bare, ratio, spread, forced}.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from unittest import mock

import torch

from whorl.collectors import record
from whorl.envs.guard import Guard
from whorl.training.build import build


def steps_per_second(env: str, guarded: bool, steps: int) -> float:
    with mock.patch.object(record, "guarded", Guard if guarded else lambda env: env):
        parts = build("ppo", env, num_envs=8)
    parts.train(1024)  # compiles and fills the caches
    start = time.perf_counter()
    parts.train(1024 + steps)
    return (parts.progress.count - 1024) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("envs", nargs="*", default=["CartPole-v1", "HalfCheetah-v5"])
    parser.add_argument("--steps", type=int, default=40_960)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for env in asked.envs:
        pairs = [
            [steps_per_second(env, guarded, asked.steps) for guarded in (True, False)] for _ in range(asked.repeats)
        ]
        checked, bare = (sorted(column) for column in zip(*pairs))
        ratio = statistics.median(with_ / without for with_, without in pairs)
        print(
            json.dumps({
                "env": env, "guarded": round(statistics.median(checked)), "bare": round(statistics.median(bare)),
                "ratio": round(ratio, 3), "spread": round(checked[-1] / checked[0] - 1, 3), "forced": env == "CartPole-v1",
            }),
            flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
