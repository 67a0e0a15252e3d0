"""The asynchronous collector: samplers step the environments in processes of their own, while the learner learns.

Samplers fill a ring of `slots` rollouts. The learner holds one of them, so they are at most `slots` ahead of it, and it waits where none is
full: how many rows come for each update is decided by the learner alone, on every machine. See docs/design/027-asynchronous-collectors.md.
"""

from __future__ import annotations

import os
import weakref
from copy import deepcopy

import torch

from whorl.batch import Arrays, Batch, Numbers, State
from whorl.collectors.crew import Crew, stop
from whorl.collectors.record import Memory
from whorl.collectors.sampler import Rows, Task, Weights, ring
from whorl.collectors.serial import SerialCollector
from whorl.envs.block import new_block
from whorl.envs.child import carried
from whorl.envs.env import Env
from whorl.envs.watchdog import TURN
from whorl.errors import BadInput, Incompatible
from whorl.functional.streams import stream
from whorl.policies.policy import Policy

SLOTS = 2


class AsyncCollector(SerialCollector):
    """Iterator of rollouts [T, N] that `samplers` processes collect, each in some of the N environments, with weights that may be older
    than those that learn: `version` says which. A rollout is valid until the next one is asked for.

    env: says what is stepped; the samplers make environments of their own of its kind, and this one is never stepped.
    synchronous: a rollout begins when it is asked for, acted with the newest weights; one sampler gives the bits of `SerialCollector`.
    max_lag: rows that are more versions older than the newest weights have `mask` False; 0 = none are.
    row_by_row: the policy may act by `native.fastest`. slots: of the ring. max_episode_steps: a limit that was asked for.
    The processes begin with the first rollout and end with `close`, with this object, or with this process. One that dies is started
    again, with fresh episodes. Raises Incompatible for environments that cannot be made in another process, or learn from what passes,
    BadInput for more samplers than environments; `collect` raises EnvError with what a sampler has raised.
    """

    notice = (
        "asynchronous samplers: no two runs are equal, and a resumed run begins fresh episodes and is not bit-equal"
    )

    def __init__(
        self,
        env: Env,
        policy: Policy,
        steps: int,
        seed: int = 0,
        samplers: int = 1,
        synchronous: bool = False,
        max_lag: int = 0,
        row_by_row: bool = False,
        slots: int = SLOTS,
        max_episode_steps: int | None = None,
    ):
        if env.made_from is None:
            raise Incompatible(
                "each sampler makes environments of its own, so an environment object will not do: pass an id, a class or a function"
            )
        if env.device != "cpu":
            raise Incompatible(
                f"samplers step environments on the CPU, got {env!r}: on its device a world is fast, use collector='serial'"
            )
        if learned := env.learned():
            raise Incompatible(
                f"samplers share weights, not what their environments learn ({', '.join(learned)}): leave that transform out; "
                "normalize_observation of an agent travels with its weights"
            )
        if samplers > env.num_envs:
            raise BadInput(
                f"samplers = {samplers}, and there are {env.num_envs} environments to share: use fewer, or more num_envs"
            )
        super().__init__(env, policy, steps, seed)
        self.slots, self.synchronous, self.max_lag = slots, synchronous, max_lag
        self.why_fresh = "the samplers keep their environments to themselves"
        self.lag = self._told = 0
        self._crew: Crew | None = None
        self._ring: list[Memory] = []
        self._row_by_row, self._limit = row_by_row, max_episode_steps
        self._weights = Weights(policy, block := new_block("whorl weights"))
        self._blocks = block, new_block("whorl ring")
        self._free = weakref.finalize(self, _free, self._blocks)
        places = [env.num_envs * k // samplers for k in range(samplers + 1)]
        self._rows = [Rows(a, b - a, env.num_envs) for a, b in zip(places, places[1:])]
        carried(env.made_from, self._task(0, 0))  # raises here, before anything is written

    def collect(self) -> Batch:
        """The oldest rollout that nobody has had; waits until there is one."""
        crew, number = self._crew or self._begin_crew(), self.rollouts
        while self._told < number + (1 if self.synchronous else self.slots):  # the one that was out last is free again
            crew.sample(self._told)
            self._told += 1
        form = crew.wait(number)
        if not self._ring:
            self._ring = ring(
                self._blocks[1], form, self.slots, self.target, Rows(0, self.env.num_envs, self.env.num_envs)
            )
        m = self._ring[number % self.slots]
        self.recorder.use(m)
        for first, size, _ in crew.fresh(number):
            self._lose(slice(first, first + size))
        rollout = self._counted(self.target)
        self.lag = self.version - int(m["version"].min())
        if self.max_lag and self.lag > self.max_lag:
            m["mask"] &= m["version"] >= self.version - self.max_lag
            rollout = self.recorder.rollout(self.target, masked=True)
        return rollout

    def _lose(self, rows: slice) -> None:
        """The episodes under way in these rows were lost."""
        self.ledger.lost += int((self.ledger.lengths[rows] > 0).sum())
        self.ledger.forget(rows)
        if self.recorder.tally is not None:
            self.recorder.tally.forget(rows)

    def sync(self, policy: Policy) -> int:
        version = super().sync(policy)
        self._weights.write(version)
        return version

    def report(self) -> dict[str, float]:
        """Beside what all collectors say: how many versions older than the newest weights the last rollout is, where it is oldest, and how
        often a sampler was started again."""
        restarts = self._crew.restarts if self._crew else 0
        return super().report() | {"time/version_lag": self.lag, "time/sampler_restarts": restarts}

    def _begin_crew(self) -> Crew:
        self._told, self._ring = self.rollouts, []
        self._weights.write(self.version)
        self._crew = Crew(self._task, self._rows, repr(self.env), self.rollouts)
        self._end = weakref.finalize(self, stop, self._crew.samplers)
        return self._crew

    def _task(self, k: int, restarts: int) -> Task:
        """What sampler k is to do; fresh episodes have streams of their own."""
        kind, policy = self.env.made_from, deepcopy(self.policy).cpu().eval()
        assert kind is not None
        seed = stream(self.seed, "resume", self.steps) if self.steps else self.seed
        seed = stream(seed, "restart", k, restarts) if restarts else seed
        noise = stream(seed, "sampler", k) if k else seed
        tally = deepcopy(self.recorder.tally)
        return Task(
            kind, self._limit, policy, self._rows[k], self.target, self.slots, seed, noise, self._row_by_row, tally,
            torch.get_num_threads(), TURN.patience, *self._blocks,
        )  # fmt: skip

    def close(self) -> None:
        if self._crew is not None:
            self._crew, _ = None, self._end()

    def state(self) -> State:
        counted, ledger = self.ledger.state()
        return counted, {"ledger": ledger, "rollouts": self.rollouts, "version": self.version}

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        self.rollouts, self.version = numbers["rollouts"], numbers["version"]
        self.ledger.load_state(arrays, numbers["ledger"])
        self.ledger.forget()
        return not self.rollouts


def _free(blocks: tuple[int, ...]) -> None:
    for block in blocks:
        os.close(block)
