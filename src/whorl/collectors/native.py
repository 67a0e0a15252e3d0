"""The compiled collector: a native world, a small network and the record of both in one loop over the rollout.

Equal to the serial collector but for float32 rounding of the network's outputs (a test holds it). Larger batches of environments go
through the serial collector: there a product of matrices is faster than one row after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np

from whorl.batch import Batch
from whorl.collectors.serial import SerialCollector
from whorl.envs.env import Env
from whorl.envs.native.world import Arrays, World, advance, begin
from whorl.jit import jit
from whorl.policies.actors.native import SOURCES, Decided, Network, RowPolicy, compilable, outputs
from whorl.policies.policy import Policy
from whorl.policies.stochastic import Stochastic

Rows = np.ndarray
FEW = 64  # environments up to which one row after the other is faster


class Record(NamedTuple):
    """What the loop writes, [T, N, ...]."""

    observation: Rows
    is_first: Rows
    successor: Rows
    reward: Rows
    terminated: Rows
    truncated: Rows
    mask: Rows


def by_rows(env: Env, policy: Policy) -> bool:
    """Whether a collector of this file is for these: few environments on the CPU, and a policy that is `compilable`."""
    return env.num_envs <= FEW and env.device == "cpu" and compilable(policy)


def fastest(env: Env, policy: Policy, steps: int, seed: int = 0, whole_episodes: bool = False) -> SerialCollector:
    """The collector of rollouts for these, where the policy may act row by row: its bits are others than those of whole batches."""
    kind = SerialCollector
    if by_rows(env, policy):
        kind = NativeCollector if env.compiled else RowCollector
    return kind(env, policy, steps, seed, whole_episodes)


class RowCollector(SerialCollector):
    """As `SerialCollector`, with a policy that acts row by row: one call for a step, and the same bits as in a compiled loop."""

    def __init__(self, env: Env, policy: Policy, steps: int, seed: int = 0, whole_episodes: bool = False):
        super().__init__(env, policy, steps, seed, whole_episodes)
        assert isinstance(policy, Stochastic)
        self._policy = RowPolicy(policy)
        self.recorder.actor = self._policy.act

    def collect(self) -> Batch:
        self._policy.refresh()
        return super().collect()


class NativeCollector(RowCollector):
    """The same for a native world: the whole rollout is one compiled loop."""

    def __init__(self, env: Env, policy: Policy, steps: int, seed: int = 0, whole_episodes: bool = False):
        super().__init__(env, policy, steps, seed, whole_episodes)
        assert isinstance(env, World)
        self._world: World = env
        self._run = compiled(type(env).dynamics, type(env).observe, self._policy.decide)

    def collect(self) -> Batch:
        record, target, policy = self.recorder, self.target, self._policy
        if record.tally is not None:  # what environments say beside their answers is read step by step
            return super().collect()
        playing, t = self._begin(), 0
        if not record.memory:
            n, like = self.env.num_envs, policy.action
            record.allocate({"action": np.zeros((n, *like.shape[1:]), like.dtype), "log_prob": np.zeros(n, np.float32)})
        policy.refresh()
        while t % target == 0 and playing.any():
            self._check_end(t)
            while record.capacity < t + target:
                record.grow()
            rows = slice(t, t + target)
            m, after = record.memory, record.memory["next"]
            before = (m["observation"], m["is_first"])
            behind = (after["observation"], after["reward"], after["terminated"], after["truncated"], m["mask"])
            written = Record._make(x[rows] for x in (*before, *behind))
            t += self._run(
                self._world.arrays, policy.network, self._noise(t // target), record.is_first, written,
                Decided(m["action"][rows], m["log_prob"][rows]), policy.scratch, playing, target - 1 - t if self.whole_episodes else target,
            )  # fmt: skip
            if not self.whole_episodes:
                break
        record.masked = self.whole_episodes
        return self._finish(t)


@cache
def compiled(dynamics: Callable, observe: Callable, decide: Callable) -> Callable:
    """The loop around one world's functions (see envs/native/world.py) and one of `choose`, `draw`.

    It returns how many rows it wrote: all, or up to where nobody plays any more. From row `last` on who ends an episode plays no longer.
    """

    def run(
        world: Arrays, network: Network, noise: Rows, is_first: Rows, m: Record, decided: Decided, scratch: Rows, playing: Rows, last: int
    ) -> int:  # fmt: skip
        state, clock, settings, start = world.state, world.clock, world.settings, world.start
        observation = world.observation
        for t in range(len(noise)):
            some = False
            for i in range(len(is_first)):
                for k in range(observation.shape[1]):
                    m.observation[t, i, k] = observation[i, k]
                m.is_first[t, i] = is_first[i]
                m.mask[t, i] = playing[i]
                output = scratch[outputs(m.observation[t, i], network, scratch)]
                decide(output, network, noise[t, i], decided, t, i)
                reward, terminated, truncated = advance(dynamics, state[i], decided.action[t, i], i, clock, settings)
                observe(state[i], m.successor[t, i])
                m.reward[t, i], m.terminated[t, i], m.truncated[t, i] = reward, terminated, truncated
                is_first[i] = terminated or truncated
                if is_first[i]:
                    begin(state[i], i, clock, settings, start)
                    if t >= last:
                        playing[i] = False
                observe(state[i], observation[i])
                some |= playing[i]
            if not some:
                return t + 1
        return len(noise)

    # numba's cache on disk watches this file only: the name tells the others, and their versions, apart
    files = (dynamics.__code__.co_filename, advance.__code__.co_filename, *SOURCES)
    source = crc32(b"".join(Path(file).read_bytes() for file in files))
    run.__qualname__ = f"{dynamics.__module__}.{dynamics.__name__}_rollout_{source:08x}"
    return jit(error_model="numpy", nogil=True, _nrt=False)(run)
