"""What worker processes cost and give: `Workers` beside Gymnasium's `AsyncVectorEnv` and environments in this process, in turns.

    python benchmarks/workers.py [--rounds 5] [--seconds 2]

Steps of all N environments per second of wall-clock time, and CPU microseconds that all processes together took for one of them. Each round
measures every way once, and the medians count. `AsyncVectorEnv` starts a process for each environment, `Workers` as many as are asked; both
wait for all. Wall-clock figures want free cores: on a busy machine the CPU figures are the ones to read.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeAlias

os.environ.setdefault("OMP_NUM_THREADS", "1")

import gymnasium
import numpy as np

from whorl.envs.env import Env, Processes
from whorl.envs.make import EnvKind

WARM_UP = 20  # steps


class Steps(Protocol):
    """What all of them do: reset, step, close."""

    def reset(self, *, seed: int) -> object: ...
    def step(self, action: np.ndarray) -> object: ...
    def close(self) -> None: ...


class Slow(gymnasium.Wrapper):
    """A step takes so many seconds more: asleep, or of the processor."""

    def __init__(self, env: gymnasium.Env, asleep: float, busy: float):
        super().__init__(env)
        self.asleep, self.busy = asleep, busy

    def step(self, action):
        if self.asleep:
            time.sleep(self.asleep)
        end = time.thread_time() + self.busy
        while time.thread_time() < end:
            pass
        return self.env.step(action)


def slow(asleep: float = 0.0, busy: float = 0.0) -> gymnasium.Env:
    return Slow(gymnasium.make("CartPole-v1"), asleep, busy)


def cartpole() -> gymnasium.Env:
    return gymnasium.make("CartPole-v1")


def cheetah() -> gymnasium.Env:
    return gymnasium.make("HalfCheetah-v5")


Make: TypeAlias = Callable[[], Steps]


class Case(NamedTuple):
    """One environment, N of them, in so many processes."""

    name: str
    make: Callable[..., gymnasium.Env]
    options: dict[str, float]
    num_envs: int
    workers: int

    def ways(self) -> dict[str, Make]:
        """How to step them."""
        kind, n = EnvKind(self.make, self.options), self.num_envs
        each = [lambda: self.make(**self.options)] * n
        return {
            "in process": lambda: kind.make(n, 0),
            f"{self.workers} workers": lambda: kind.make(n, 0, processes=Processes(self.workers)),
            "AsyncVectorEnv": lambda: gymnasium.vector.AsyncVectorEnv(each),
        }


CASES = {
    "cartpole": Case("CartPole, N = 8", cartpole, {}, 8, 2),
    "cheetah": Case("HalfCheetah, N = 8", cheetah, {}, 8, 2),
    "asleep": Case("asleep for 5 ms, N = 8", slow, {"asleep": 0.005}, 8, 8),
    "busy": Case("1 ms of CPU, N = 8", slow, {"busy": 0.001}, 8, 2),
}


class Taken(NamedTuple):
    rate: float  # steps of all environments a second
    cpu: float  # microseconds of all processes for one
    here: float  # of this one alone


def measured(make: Make, seconds: float) -> Taken:
    env = make()
    try:
        env.reset(seed=0)
        space = env.action_space if isinstance(env, Env) else env.single_action_space  # type: ignore[attr-defined]
        n = env.num_envs  # type: ignore[attr-defined]
        action = np.zeros((n, *space.shape), space.dtype)
        pids = children()
        for _ in range(WARM_UP):
            env.step(action)
        begun, here, there, count = time.perf_counter(), time.process_time(), cpu_of(pids), 0
        while time.perf_counter() - begun < seconds:
            env.step(action)
            count += 1
        wall, here = time.perf_counter() - begun, time.process_time() - here
        return Taken(count / wall, (here + cpu_of(pids) - there) / count * 1e6, here / count * 1e6)
    finally:
        env.close()


def children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(word) for word in file.read().split()]


def cpu_of(pids: list[int]) -> float:
    """Seconds of the processor that these have taken, to the microsecond."""
    found = 0.0
    for pid in pids:
        with open(f"/proc/{pid}/schedstat") as file:
            found += int(file.read().split()[0]) / 1e9
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    asked = parser.parse_args()
    for name in asked.only:
        case = CASES[name]
        ways, taken = case.ways(), {way: list[Taken]() for way in case.ways()}
        for _ in range(asked.rounds):
            for way, make in ways.items():
                taken[way].append(measured(make, asked.seconds))
        print(f"{case.name}{'':24}steps/s   CPU us a step   of this process")
        for way, rounds in taken.items():
            rate, cpu, here = (statistics.median(column) for column in zip(*rounds, strict=True))
            print(f"  {way:24}{rate:12.1f}{cpu:14.1f}{here:14.1f}", flush=True)


if __name__ == "__main__":
    main()
