"""What two halves in turn save: an environment that sleeps, and a policy that takes as long, serial and alternating in turn.

    python benchmarks/alternating.py [--milliseconds 4] [--share 0.7] [--repeats 5]

A step of all rows and a decision for all rows take so long each; a decision for half of them takes `share` of that. Both ways step in
workers, which sleep, each one environment. At best 2 / (2 * share), where decisions never wait for a step.
"""

from __future__ import annotations

import argparse
import json
import time
from statistics import median

import gymnasium
import numpy as np

from whorl.collectors.alternating import AlternatingCollector
from whorl.collectors.halves import Halves
from whorl.collectors.serial import SerialCollector
from whorl.envs.env import Processes
from whorl.envs.make import EnvKind
from whorl.policies.random import Random

N, STEPS = 8, 100


class Sleeper(gymnasium.Env):
    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (4,)), gymnasium.spaces.Discrete(2)

    def __init__(self, seconds: float):
        self.seconds = seconds

    def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
        super().reset(seed=seed)
        return np.zeros(4, np.float32), {}

    def step(self, action):  # type: ignore[no-untyped-def]
        time.sleep(self.seconds)
        return np.zeros(4, np.float32), 0.0, False, False, {}


class Slow(Random):
    """Takes so long to decide for N rows, and `share` of that for half of them."""

    def __init__(self, seconds: float, share: float):
        super().__init__(Sleeper.action_space)
        self.seconds, self.share = seconds, share

    def actor(self, num_envs: int):  # type: ignore[no-untyped-def]
        actor, seconds = super().actor(num_envs), self.seconds * (1.0 if num_envs == N else self.share)

        def act(*given):  # type: ignore[no-untyped-def]
            until = time.perf_counter() + seconds
            found = actor(*given)
            time.sleep(max(0.0, until - time.perf_counter()))
            return found

        return act


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--milliseconds", type=float, default=4.0)
    parser.add_argument("--share", type=float, default=0.7)
    parser.add_argument("--repeats", type=int, default=5)
    o = parser.parse_args()
    seconds, policy = o.milliseconds / 1000, Slow(o.milliseconds / 1000, o.share)
    kind = EnvKind(Sleeper, {"seconds": seconds})
    whole = kind.make(N, processes=Processes(N))  # one environment each: a step of all takes as long as one
    halves = Halves(*(kind.make(N // 2, processes=Processes(N // 2)) for _ in range(2)))
    ways = SerialCollector(whole, policy, STEPS), AlternatingCollector(halves, policy, STEPS)
    ratios = []
    for _ in range(o.repeats + 1):
        taken = []
        for way in ways:
            began = time.perf_counter()
            way.collect()
            taken.append(time.perf_counter() - began)
        ratios.append(taken[0] / taken[1])
    whole.close(), halves.close()
    print(json.dumps({"alternating / serial, rollouts per second": round(median(ratios[1:]), 3), "share": o.share}))


if __name__ == "__main__":
    main()
