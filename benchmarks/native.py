"""Raw environment steps per second of the native worlds with random actions, beside Gymnasium's vector CartPole.

    python benchmarks/native.py [--seconds 1] [--num-envs 1 8 64 1024] [--worlds CartPole-v1 ...]

Prints one JSON line per row: {world, by, num_envs, steps_per_second, microseconds_per_call, ratio} (ratio: to
Gymnasium's vector CartPole with as many environments, measured in the same run; CartPole-v1 only).
Actions are drawn before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from whorl.envs.native import WORLDS, make

SETS = 64  # of actions, used in turn


def actions(space: gymnasium.Space, num_envs: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    if isinstance(space, gymnasium.spaces.Discrete):
        return list(rng.integers(0, space.n, (SETS, num_envs)))
    return list(rng.uniform(space.low, space.high, (SETS, num_envs, *space.shape)).astype(np.float32))


def rate(step: Callable[[Any], Any], prepared: list[np.ndarray], seconds: float) -> float:
    """Calls of `step` per second, for about `seconds`, after one untimed round."""
    calls, taken, batch = 0, 0.0, prepared
    for action in batch:
        step(action)
    while taken < seconds:
        start = time.perf_counter()
        for action in batch:
            step(action)
        taken += time.perf_counter() - start
        calls += SETS
    return calls / taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="per measurement")
    parser.add_argument("--num-envs", type=int, nargs="+", default=[1, 8, 64, 1024])
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=list(WORLDS))
    options = parser.parse_args()
    for n in options.num_envs:
        peer = gymnasium.make_vec("CartPole-v1", n, vectorization_mode="vector_entry_point")
        peer.reset(seed=0)
        base = rate(peer.step, actions(peer.single_action_space, n), options.seconds)
        show("CartPole-v1", "gymnasium vector_entry_point", n, base)
        for id in options.worlds:
            env = make(id, n)
            env.reset(0)
            calls = rate(env.step, actions(env.action_space, n), options.seconds)
            show(id, "whorl native", n, calls, calls / base if id == "CartPole-v1" else None)


def show(world: str, by: str, num_envs: int, calls: float, ratio: float | None = None) -> None:
    row = {"world": world, "by": by, "num_envs": num_envs, "steps_per_second": round(calls * num_envs)}
    row |= {"microseconds_per_call": round(1e6 / calls, 2), "ratio": ratio and round(ratio, 1)}
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
