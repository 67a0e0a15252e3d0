"""Replay alone: 1,000,000 rows (observation 17, action 6, float32), filled; the calls are those each library's users write.

python replay.py whorl|sb3|torchrl|cpprb          one line of JSON for each operation: calls a second, the median of 7 blocks

sample              256 rows, uniform
prioritized sample  256 rows with their weights, alpha .6, beta .4, over random priorities
priority update     of 256 rows drawn at random; no row gets the value it has: cpprb stops early where nothing changes
add                 64 rows, one from each of 64 environments, into the full buffer
"""

import argparse
import itertools
import json
import statistics
import time

import numpy as np
import report  # noqa: F401  (one thread)
import torch

OBSERVATION, ACTION, BATCH, ROWS, CHUNK, BLOCKS, SETS = 17, 6, 256, 64, 10_000, 7, 2_000


def rows(*shape):
    """Made-up transitions, as numpy arrays."""
    random = np.random.default_rng(0)
    return {
        "observation": random.standard_normal((*shape, OBSERVATION), dtype=np.float32),
        "action": random.standard_normal((*shape, ACTION), dtype=np.float32),
        "reward": random.standard_normal(shape, dtype=np.float32),
        "next": random.standard_normal((*shape, OBSERVATION), dtype=np.float32),
        "terminated": np.zeros(shape, bool),
    }


def drawn(capacity, as_given=lambda array: array):
    """A function that calls another with 256 rows drawn at random and new priorities for them, prepared beforehand."""
    random = np.random.default_rng(1)
    index = [as_given(random.integers(0, capacity, BATCH)) for _ in range(SETS)]
    priority = [as_given(random.random(BATCH).astype(np.float32)) for _ in range(SETS + 1)]

    def repeatedly(function):
        calls = itertools.count()

        def call():
            i = next(calls)
            function(index[i % SETS], priority[i % (SETS + 1)])

        return call

    return repeatedly


def priorities(capacity):
    """A first priority for every row, CHUNK at a time."""
    random = np.random.default_rng(2)
    return [(np.arange(i, i + CHUNK), random.random(CHUNK).astype(np.float32)) for i in range(0, capacity, CHUNK)]


def measure(library, operation, function, seconds):
    for _ in range(20):
        function()
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < seconds / 4:
        function()
        calls += 1
    block, wall, cpu = max(calls * 4 // BLOCKS, 1), [], []
    for _ in range(BLOCKS):
        start, start_cpu = time.perf_counter(), time.process_time()
        for _ in range(block):
            function()
        wall.append(block / (time.perf_counter() - start))
        cpu.append(block / (time.process_time() - start_cpu))
    speeds = {"per_second": statistics.median(wall), "per_cpu_second": statistics.median(cpu)}
    print(json.dumps({"name": library, "operation": operation} | speeds), flush=True)


def sb3(capacity, seconds):
    from gymnasium.spaces import Box
    from stable_baselines3.common.buffers import ReplayBuffer

    spaces = Box(-1, 1, (OBSERVATION,)), Box(-1, 1, (ACTION,))
    buffer = ReplayBuffer(capacity, *spaces, device="cpu")
    d = rows(1)
    for _ in range(capacity):
        buffer.add(d["observation"], d["next"], d["action"], d["reward"], d["terminated"], [{}])
    measure("sb3", "sample", lambda: buffer.sample(BATCH), seconds)
    buffer = ReplayBuffer(capacity, *spaces, device="cpu", n_envs=ROWS)
    d, infos = rows(ROWS), [{}] * ROWS
    add = lambda: buffer.add(d["observation"], d["next"], d["action"], d["reward"], d["terminated"], infos)  # noqa: E731
    for _ in range(capacity // ROWS + 1):
        add()
    measure("sb3", "add", add, seconds)


def torchrl(capacity, seconds):
    from tensordict import TensorDict
    from torchrl.data import LazyTensorStorage, TensorDictPrioritizedReplayBuffer, TensorDictReplayBuffer

    def data(n):
        d = {name: torch.from_numpy(value) for name, value in rows(n).items()}
        flags = dict.fromkeys(("terminated", "truncated", "done"), d["terminated"][:, None])
        following = {"observation": d["next"], "reward": d["reward"][:, None], **flags}
        return TensorDict({"observation": d["observation"], "action": d["action"], "next": following, **flags}, [n])

    chunk, few = data(CHUNK), data(ROWS)
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(capacity), batch_size=BATCH)
    for _ in range(capacity // CHUNK):
        buffer.extend(chunk)
    measure("torchrl", "sample", buffer.sample, seconds)
    measure("torchrl", "add", lambda: buffer.extend(few), seconds)
    try:
        buffer = TensorDictPrioritizedReplayBuffer(
            alpha=0.6, beta=0.4, storage=LazyTensorStorage(capacity), batch_size=BATCH
        )
    except RuntimeError as error:  # its compiled part fits one version of torch only
        print(json.dumps({"name": "torchrl", "operation": "prioritized sample", "unavailable": str(error)[:200]}))
        return
    for _ in range(capacity // CHUNK):
        buffer.extend(chunk)
    update = lambda index, priority: buffer.update_priority(torch.from_numpy(index), torch.from_numpy(priority))  # noqa: E731
    for index, priority in priorities(capacity):
        update(index, priority)
    measure("torchrl", "prioritized sample", buffer.sample, seconds)
    measure("torchrl", "priority update", drawn(capacity, torch.from_numpy)(buffer.update_priority), seconds)


def cpprb(capacity, seconds):
    from cpprb import PrioritizedReplayBuffer, ReplayBuffer

    fields = {
        "obs": {"shape": OBSERVATION}, "act": {"shape": ACTION}, "rew": {}, "next_obs": {"shape": OBSERVATION}, "done": {},
    }  # fmt: skip

    def data(n):
        d = rows(n)
        return {
            "obs": d["observation"],
            "act": d["action"],
            "rew": d["reward"],
            "next_obs": d["next"],
            "done": d["terminated"],
        }

    chunk, few = data(CHUNK), data(ROWS)
    buffer = ReplayBuffer(capacity, fields)
    for _ in range(capacity // CHUNK):
        buffer.add(**chunk)
    measure("cpprb", "sample", lambda: buffer.sample(BATCH), seconds)
    measure("cpprb", "add", lambda: buffer.add(**few), seconds)
    buffer = PrioritizedReplayBuffer(capacity, fields, alpha=0.6)
    for _ in range(capacity // CHUNK):
        buffer.add(**chunk)
    for index, priority in priorities(capacity):
        buffer.update_priorities(index, priority)
    measure("cpprb", "prioritized sample", lambda: buffer.sample(BATCH, beta=0.4), seconds)
    measure("cpprb", "priority update", drawn(capacity)(buffer.update_priorities), seconds)


def whorl(capacity, seconds):
    from whorl import batch
    from whorl.buffers.buffer import ReplayBuffer
    from whorl.buffers.sample_prioritized import Prioritized
    from whorl.buffers.sample_uniform import Uniform
    from whorl.buffers.storage_memory import Memory

    def data(*shape):
        d = {name: torch.from_numpy(value) for name, value in rows(*shape).items()}
        following = {
            "observation": d["next"],
            "reward": d["reward"],
            "terminated": d["terminated"],
            "truncated": d["terminated"],
        }
        return batch.make({"observation": d["observation"], "action": d["action"], "next": following}, shape)

    def filled(sampler, lanes):
        buffer = ReplayBuffer(Memory(capacity, lanes), sampler, batch_size=BATCH)
        chunk = data(CHUNK // lanes, lanes)
        while len(buffer) < capacity:
            buffer.add(chunk)
        return buffer

    buffer = filled(Uniform(0), 1)
    measure("whorl", "sample", buffer.sample, seconds)
    buffer, few = filled(Uniform(0), ROWS), data(1, ROWS)
    measure("whorl", "add", lambda: buffer.add(few), seconds)
    buffer = filled(Prioritized(0, 0.6, 0.4), 1)
    first = int(buffer.storage.live()[0][0])
    given = lambda array: torch.from_numpy(array + first if array.dtype == np.int64 else array)  # noqa: E731
    for index, priority in priorities(capacity):
        buffer.feedback(given(index), given(priority))
    measure("whorl", "prioritized sample", buffer.sample, seconds)
    measure("whorl", "priority update", drawn(capacity, given)(buffer.feedback), seconds)


LIBRARIES = {f.__name__: f for f in (whorl, sb3, torchrl, cpprb)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=list(LIBRARIES))
    parser.add_argument("--capacity", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=1.0, help="of measuring, for each operation")
    o = parser.parse_args()
    LIBRARIES[o.library](o.capacity, o.seconds)


if __name__ == "__main__":
    main()
