"""Steps per second of 8 environments over HTTP, against `whorl serve-gym` in a process of its own, beside the same in process.

    python benchmarks/gym_http.py [--env CartPole-v1] [--num-envs 8] [--steps 300] [--rounds 5]

All take turns, `rounds` times `steps` steps of all environments each, with random actions drawn before the clock starts:

    in process            make_env, the native world where there is one
    in process, gymnasium the Gymnasium adapter
    vector                whorl's protocol: one request steps all, binary
    /v1 pipelined         gym-http-api: all requests are sent, then all answers are read
    /v1 one by one        gym-http-api as its clients use it: a request for each environment, one after the other

Prints a table of medians, and how many times as fast as one by one each is.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from whorl.envs.adapters.gym_client import GymClient
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.adapters.http import Http
from whorl.envs.env import Env
from whorl.envs.make import make_env

SERVER = """
import pathlib, sys
from whorl.apps.gym_server.serve import serve
serve(lambda url: print(url, flush=True), port=0, max_envs=1000, root=pathlib.Path(sys.argv[1]))
"""
BASELINE = "/v1 one by one"
Step = Callable[[np.ndarray], Any]


def one_by_one(client: GymClient, env_id: str, num_envs: int) -> Step:
    """What a client of the original protocol does: it steps each environment in turn, and resets those that ended."""
    instances = [client.env_create(env_id, seed=i) for i in range(num_envs)]
    for instance in instances:
        client.env_reset(instance)

    def step(action: np.ndarray) -> None:
        for instance, each in zip(instances, action, strict=True):
            if client.env_step(instance, each)[2]:
                client.env_reset(instance)

    return step


def begun(env: Env) -> Step:
    env.reset()
    return env.step


def actions(space: Any, num_envs: int, count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    if isinstance(space, gymnasium.spaces.Discrete):
        return list(rng.integers(0, space.n, (count, num_envs)))
    return list(rng.uniform(space.low, space.high, (count, num_envs, *space.shape)).astype(np.float32))


def seconds(step: Step, prepared: list[np.ndarray]) -> float:
    start = time.perf_counter()
    for action in prepared:
        step(action)
    return time.perf_counter() - start


def measure(url: str, env_id: str, num_envs: int, steps: int, rounds: int) -> dict[str, float]:
    """Steps per second, of all environments together."""
    local = make_env(env_id, num_envs)
    contenders = {
        "in process": begun(local),
        "in process, gymnasium": begun(Gymnasium(env_id, num_envs)),
        "vector": begun(Http(f"{url}/{env_id}", num_envs, protocol="vector")),
        "/v1 pipelined": begun(Http(f"{url}/{env_id}", num_envs, protocol="v1")),
        BASELINE: one_by_one(GymClient(url), env_id, num_envs),
    }
    prepared = actions(local.action_space, num_envs, steps)
    for step in contenders.values():
        seconds(step, prepared[:20])
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, step in contenders.items():
            taken[name].append(seconds(step, prepared))
    return {name: steps * num_envs / statistics.median(times) for name, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--num-envs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=300, help="of all environments, in each round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", SERVER, folder]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            url = next(line.strip() for line in server.stdout if line.startswith("http"))
            rates = measure(url, options.env, options.num_envs, options.steps, options.rounds)
        finally:
            server.terminate()
            server.wait()
    print(f"{options.env}, {options.num_envs} environments: median of {options.rounds} rounds of {options.steps} steps")
    print(f"{'':24}{'steps/s':>12}{'us per step of all':>20}{'times one by one':>18}")
    for name, rate in rates.items():
        print(f"{name:24}{rate:12,.0f}{1e6 * options.num_envs / rate:20,.1f}{rate / rates[BASELINE]:18.1f}")


if __name__ == "__main__":
    main()
