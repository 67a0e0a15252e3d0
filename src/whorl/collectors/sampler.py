"""A sampler: the process that steps some rows of the environments for `AsyncCollector`, and what it shares with the learner.

It is told a number, acts with the newest weights, writes that rollout into the ring and says so. `python -m whorl.collectors.sampler`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from whorl import spaces
from whorl.collectors.record import Memory
from whorl.collectors.serial import SerialCollector
from whorl.collectors.tally import Tally
from whorl.envs.block import arrays
from whorl.envs.child import serve
from whorl.envs.env import Env, Kind
from whorl.envs.watchdog import watching
from whorl.policies.policy import Policy

Forms: TypeAlias = (
    "dict[str, Any]"  # the tree of a `Memory`, with (dtype, shape of one environment's row) for each array
)
PAUSE = 1e-4  # seconds between two looks at weights that are being written


class Rows(NamedTuple):
    """Which environments of the whole a sampler steps."""

    first: int
    size: int
    whole: int


class Task(NamedTuple):
    """What a sampler is started with."""

    kind: Kind  # of its environments
    limit: int | None  # of their episodes
    policy: Policy  # on the CPU
    rows: Rows
    steps: int  # of a rollout
    slots: int  # of the ring
    seed: int  # of the environments' streams: row i has those of rows.first + i
    noise: int  # the seed of the policy's
    row_by_row: bool  # whether the policy may act by `native.fastest`
    tally: Tally | None  # what of info is written down
    threads: int  # of torch
    patience: float  # seconds that a step of an environment may take; 0 = any
    weights: int  # the block of `Weights`
    ring: int  # the block of `ring`


class Weights:
    """All tensors of a policy in a block: one process writes them, others read them, whole versions only.

    The first number of the block is odd while they are written, and another one after; a reader that finds it changed reads again.
    """

    def __init__(self, policy: Policy, block: int):
        self._own: list[Tensor] = [*policy.parameters(), *policy.buffers()]
        count, *shared = arrays(block, [("int64", (2,)), *(("uint8", (x.nbytes,)) for x in self._own)])
        self._shared = [torch.from_numpy(x).view(own.dtype).view(own.shape) for x, own in zip(shared, self._own)]
        self._count, self._read = count, -1

    @torch.no_grad()
    def write(self, version: int) -> None:
        self._count[0] += 1
        for shared, own in zip(self._shared, self._own):
            shared.copy_(own)
        self._count[1] = version
        self._count[0] += 1

    @torch.no_grad()
    def read(self) -> int:
        """Into the policy, in place; the version."""
        while (count := int(self._count[0])) != self._read:
            if count % 2:
                time.sleep(PAUSE)
                continue
            for shared, own in zip(self._shared, self._own):
                own.copy_(shared)
            self._version = int(self._count[1])
            if int(self._count[0]) == count:
                self._read = count
        return self._version


def forms(memory: Memory) -> Forms:
    return spaces.tree_map(lambda x: (x.dtype.str, x.shape[2:]), memory)


def ring(block: int, form: Forms, slots: int, steps: int, rows: Rows) -> list[Memory]:
    """The memory of `slots` rollouts in a block: of each the columns of these rows, [steps, rows.size, ...]."""
    every = iter(arrays(block, [(dtype, (slots, steps, rows.whole, *inner)) for dtype, inner in spaces.leaves(form)]))
    whole = spaces.tree_map(lambda _: next(every), form)
    columns = slice(rows.first, rows.first + rows.size)
    return [spaces.tree_map(itemgetter((slot, slice(None), columns)), whole) for slot in range(slots)]


def sample(task: Task, pipe: Connection) -> None:
    torch.set_num_threads(task.threads)
    with watching(task.patience):
        env = task.kind.make(task.rows.size, task.seed, max_episode_steps=task.limit, training=True)
        try:
            env.first = task.rows.first
            weights = Weights(task.policy, task.weights)
            collector = _collector(task, env)
            recorder = collector.recorder
            recorder.tally = task.tally
            recorder.reset(task.seed)
            memory: list[Memory] = []
            for number in _orders(pipe):
                collector.rollouts, collector.version = number, weights.read()
                if memory:
                    recorder.use(memory[number % task.slots])
                collector.collect()
                form = None
                if not memory:  # the first rollout shows what there is to write
                    form = forms(recorder.memory)
                    memory = ring(task.ring, form, task.slots, task.steps, task.rows)
                    leaves = map(spaces.leaves, (memory[number % task.slots], recorder.memory))
                    for there, here in zip(*leaves, strict=True):
                        there[:] = here
                pipe.send(form)
        finally:
            env.close()


def _collector(task: Task, env: Env) -> SerialCollector:
    if not task.row_by_row:
        return SerialCollector(env, task.policy, task.steps, task.noise)
    from whorl.collectors.native import fastest  # brings numba

    return fastest(env, task.policy, task.steps, task.noise)


def _orders(pipe: Connection) -> Iterator[int]:
    while True:
        yield pipe.recv()


if __name__ == "__main__":
    serve(sample)
