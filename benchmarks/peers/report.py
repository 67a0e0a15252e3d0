"""What every program here shares: its arguments, its clock, its one line of JSON."""

import argparse
import json
import time

import torch

torch.set_num_threads(1)


def arguments(doc, **extra):
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps that count")
    parser.add_argument("--seed", type=int, default=1)
    for flag in extra:
        parser.add_argument(f"--{flag}", action="store_true")
    return parser.parse_args()


class timed:
    """Call it with the steps taken so far; counting begins once `warmup` steps are passed."""

    def __init__(self, warmup):
        self.warmup, self.first = warmup, None

    def __call__(self, steps):
        now = time.perf_counter()
        if self.first is None and steps >= self.warmup:
            self.first = (steps, now)
        self.last = (steps, now)

    @property
    def steps(self):
        return self.last[0] - self.first[0]

    @property
    def seconds(self):
        return self.last[1] - self.first[1]


def report(name, timer, final_return):
    """final_return: mean of the last 50 training episodes, so that a peer that does not learn is seen."""
    speed = timer.steps / timer.seconds
    print(
        json.dumps(
            {
                "name": name, "steps": timer.steps, "seconds": timer.seconds, "steps_per_second": speed,
                "final_return": float(final_return),
            }
        )
    )  # fmt: skip
