"""Replay alone: 1,000,000 rows (observation 17, action 6, float32), filled; the calls are those each library's users write.

sample              256 rows, uniform
prioritized sample  256 rows with their weights, alpha .6, beta .4, over random priorities
priority update     of 256 rows drawn at random; no row gets the value it has: cpprb stops early where nothing changes
add                 64 rows, one from each of 64 environments, into the full buffer
"""

import itertools
from functools import cache

import numpy as np
import torch
from report import calls, serve

OBSERVATION, ACTION, BATCH, ROWS, CHUNK, SETS = 17, 6, 256, 64, 10_000, 2_000


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
        turns = itertools.count()

        def call():
            i = next(turns)
            function(index[i % SETS], priority[i % (SETS + 1)])

        return call

    return repeatedly


def priorities(capacity):
    """A first priority for every row, CHUNK at a time."""
    random = np.random.default_rng(2)
    return [(np.arange(i, i + CHUNK), random.random(CHUNK).astype(np.float32)) for i in range(0, capacity, CHUNK)]


def sb3(capacity):
    from gymnasium.spaces import Box
    from stable_baselines3.common.buffers import ReplayBuffer

    spaces = Box(-1, 1, (OBSERVATION,)), Box(-1, 1, (ACTION,))
    buffer = ReplayBuffer(capacity, *spaces, device="cpu")
    d = rows(1)
    for _ in range(capacity):
        buffer.add(d["observation"], d["next"], d["action"], d["reward"], d["terminated"], [{}])
    wide = ReplayBuffer(capacity, *spaces, device="cpu", n_envs=ROWS)
    many, infos = rows(ROWS), [{}] * ROWS
    add = lambda: wide.add(many["observation"], many["next"], many["action"], many["reward"], many["terminated"], infos)  # noqa: E731
    for _ in range(capacity // ROWS + 1):
        add()
    return {"sample": lambda: buffer.sample(BATCH), "add": add}


def torchrl(capacity):
    from tensordict import TensorDict
    from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

    def data(n):
        d = {name: torch.from_numpy(value) for name, value in rows(n).items()}
        flags = dict.fromkeys(("terminated", "truncated", "done"), d["terminated"][:, None])
        following = {"observation": d["next"], "reward": d["reward"][:, None], **flags}
        return TensorDict({"observation": d["observation"], "action": d["action"], "next": following, **flags}, [n])

    chunk, few = data(CHUNK), data(ROWS)
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(capacity), batch_size=BATCH)
    for _ in range(capacity // CHUNK):
        buffer.extend(chunk)
    # its prioritized buffer needs a compiled part that fits one version of torch only
    return {"sample": buffer.sample, "add": lambda: buffer.extend(few)}


def cpprb(capacity):
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
    ranked = PrioritizedReplayBuffer(capacity, fields, alpha=0.6)
    for _ in range(capacity // CHUNK):
        ranked.add(**chunk)
    for index, priority in priorities(capacity):
        ranked.update_priorities(index, priority)
    return {
        "sample": lambda: buffer.sample(BATCH),
        "add": lambda: buffer.add(**few),
        "prioritized sample": lambda: ranked.sample(BATCH, beta=0.4),
        "priority update": drawn(capacity)(ranked.update_priorities),
    }


def whorl(capacity):
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

    buffer, wide, few = filled(Uniform(0), 1), filled(Uniform(0), ROWS), data(1, ROWS)
    ranked = filled(Prioritized(0, 0.6, 0.4), 1)
    first = int(ranked.storage.live()[0][0])
    given = lambda array: torch.from_numpy(array + first if array.dtype == np.int64 else array)  # noqa: E731
    for index, priority in priorities(capacity):
        ranked.feedback(given(index), given(priority))
    return {
        "sample": buffer.sample,
        "add": lambda: wide.add(few),
        "prioritized sample": ranked.sample,
        "priority update": drawn(capacity, given)(ranked.feedback),
    }


LIBRARIES = {f.__name__: f for f in (whorl, sb3, torchrl, cpprb)}


@cache
def operations(library, capacity):
    """Name of the operation -> the function to call, of buffers that are full."""
    return LIBRARIES[library](capacity)


def run(library, operation, capacity=1_000_000, seconds=1.0, seed=0):
    return calls(operations(library, capacity)[operation], seconds)


if __name__ == "__main__":
    serve(run)
