"""The alternating collector: one half of the environments steps while the policy decides what the other half does.

What that saves is at most the shorter of the two times, and a policy that needs nearly as long for N/2 rows as for N takes most of it
back: `whorl check` measures that.
"""

from __future__ import annotations

from whorl import spaces
from whorl.batch import Batch
from whorl.collectors.halves import Halves
from whorl.collectors.record import Recorder
from whorl.collectors.serial import SerialCollector
from whorl.policies.policy import Array, Policy


class AlternatingCollector(SerialCollector):
    """Iterator of the rollouts [T, N] of `SerialCollector`, from calls of the policy on N/2 rows, each half with a carry of its own.

    Between two rollouts nothing is under way, and what is known of both halves stands in `recorder`.
    """

    def __init__(self, env: Halves, policy: Policy, steps: int, seed: int = 0):
        super().__init__(env, policy, steps, seed)
        self._halves = [
            (Recorder(part, policy, steps, world), rows)
            for part, world, rows in zip(env.parts, env.worlds, env.rows, strict=True)
        ]

    def collect(self) -> Batch:
        """The next rollout, a TensorDict [T, N] on the policy's device."""
        self._begin()
        self._split()
        noise = self._noise(0)
        one, other = self._halves
        self._send(*one, 0, noise)
        for t in range(self.target):
            self._send(*other, t, noise)
            self._receive(one[0], t)
            if t + 1 < self.target:
                self._send(*one, t + 1, noise)
            self._receive(other[0], t)
        self._join()
        return self._finish(self.target)

    def _send(self, half: Recorder, rows: slice, t: int, noise: Array) -> None:
        decided, half.carry = half.actor(
            half.observation, half.carry, half.is_first, noise[t, rows], half.env.action_mask
        )
        if not self.recorder.memory:
            self.recorder.allocate(decided)
        if not half.memory:
            half.memory = spaces.tree_map(lambda x: x[:, rows], self.recorder.memory)
        half.send(t, decided)

    def _receive(self, half: Recorder, t: int) -> None:
        half.is_first = half.receive(t).begins

    def _split(self) -> None:
        whole = self.recorder
        for half, rows in self._halves:
            of_half = lambda x: x[rows]  # noqa: B023, E731  it is called at once
            half.observation, half.is_first = spaces.tree_map(of_half, whole.observation), whole.is_first[rows]
            half.carry = None if whole.carry is None else {key: x[rows] for key, x in whole.carry.items()}
            half.tally, half.masked = whole.tally, False

    def _join(self) -> None:
        whole, halves = self.recorder, [half for half, _ in self._halves]
        whole.observation = spaces.joined([half.observation for half in halves])
        whole.is_first, whole.carry = (
            spaces.joined([half.is_first for half in halves]),
            spaces.joined([half.carry for half in halves]),
        )
        whole.masked = any(half.masked for half in halves)
        if "game_over" in halves[0].memory and "game_over" not in whole.memory:  # it comes with the first step
            whole.memory["game_over"] = spaces.joined([half.memory["game_over"] for half in halves], axis=1)
            for half, rows in self._halves:
                half.memory["game_over"] = whole.memory["game_over"][:, rows]
        if "trajectory" in whole.memory:  # the halves count for themselves
            for k, half in enumerate(halves):
                half.memory["trajectory"][:] = half.memory["trajectory"] * len(halves) + k
