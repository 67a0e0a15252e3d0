"""The collector of online agents: one step at a time, [1, N], in a memory that is written again at each step."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import repeat
from typing import Any

import numpy as np

from whorl import spaces
from whorl.batch import Arrays, Batch, Numbers, State
from whorl.collectors.collector import Collector
from whorl.collectors.ledger import Episode
from whorl.collectors.record import floats
from whorl.envs.adapters.spaces import discrete_sizes
from whorl.envs.env import Env, Observation, Step
from whorl.envs.guard import all_finite
from whorl.errors import BadInput
from whorl.functional.streams import stream
from whorl.policies.policy import Array, Policy

NOISE = 16384  # steps whose random numbers are drawn at once, from a stream of their own; fewer where each takes many


class StreamCollector(Collector):
    """Iterator of rollouts of one step. The TensorDict is the same object every time: only its contents change.

    next_action: also record `next.action`, what the policy does at `next.observation` before anything is learned from this step, and
    take it next (Sarsa). After a termination there is none (what is recorded is the first action of the next episode); at a time
    limit it is decided with the same random numbers as that first action.
    """

    def __init__(self, env: Env, policy: Policy, seed: int = 0, next_action: bool = False):
        if env.device != "cpu":
            raise BadInput(f"online agents step environments on the CPU, got {env!r}")
        super().__init__(env, policy, 1, seed)
        self.next_action = next_action
        self.decided: Mapping[
            str, Array
        ] = {}  # what the policy does where the environments stand; empty: not asked yet
        self._block, self._numbers = -1, np.zeros(0)
        a_step = max(1, policy.noise((1, env.num_envs), self.generator.manual_seed(0)).numel())
        self._chunk = min(NOISE, max(1, 2**21 // a_step))  # of numbers, 8 MB

    def begin(self) -> None:
        """Where the environments stand, and what the policy does there."""
        record = self.recorder
        if record.observation is None:
            self.start()
        if not self.decided:
            self.decided = _copies(self._decide(record.observation, self.env.action_mask))
        if not record.memory:
            record.allocate(self.decided, self.next_action)
            m = record.memory
            self._rollout = record.rollout(1, masked=True)
            result = m["next"]
            self._counted = record.raw_reward[0], result["terminated"][0], result["truncated"][0], m["mask"][0]
            self._floats: list[Any] = [x.reshape(-1) for x in floats(result["observation"])]

    def collect(self) -> Batch:
        """The next step, a TensorDict [1, N]."""
        if not self.decided:
            self.begin()
        record = self.recorder
        m = record.memory
        m["version"][0] = self.version
        if record.masked:
            m["mask"][0], record.masked = True, False
        step = record.step(0, self.decided)
        finite = True
        for x in self._floats:
            finite &= all_finite(x)
        games = self._counted[1] if record.games is None else record.games[0]
        if not (finite and self.ledger.add_step(*self._counted, record.is_first, games)):  # type: ignore[arg-type]  # numpy: it steps on the CPU
            record.check_finite(1, self.rollouts)  # says where
        if record.tally is not None:
            self.ledger.episodes = record.tally.add(m, 1, self.ledger.episodes)
        self.rollouts += 1
        self.decided = self._look_ahead(step) if self.next_action else {}
        return self._rollout

    def _decide(self, observation: Observation, allowed: Array | None) -> Mapping[str, np.ndarray]:
        """What the policy does, with the random numbers of step `rollouts`; valid until the next call."""
        block, row = divmod(self.rollouts, self._chunk)
        record = self.recorder
        decided, record.carry = record.actor(
            observation, record.carry, record.is_first, self.numbers(block)[row], allowed
        )
        return decided  # type: ignore[return-value]

    def numbers(self, block: int) -> np.ndarray:
        """The random numbers of the steps from block * chunk on, [chunk, N, ...], from the stream (seed, block)."""
        if block != self._block:
            self.generator.manual_seed(stream(self.seed, "acting", block))
            self._block = block
            self._numbers = self.policy.noise((self._chunk, self.env.num_envs), self.generator).numpy()
        return self._numbers

    def advance(
        self, steps: int, decided: dict[str, np.ndarray], ends: tuple[np.ndarray, np.ndarray, np.ndarray]
    ) -> None:
        """One environment took `steps` steps elsewhere (compiled_td); ends: step, length and return of the episodes that ended."""
        before = self.steps
        self.rollouts, self.version = self.rollouts + steps, self.version + steps
        numbers, lengths, returns = (x.tolist() for x in ends)
        self.ledger.advance(steps, [*map(Episode, [before + n for n in numbers], repeat(0), returns, lengths)])
        self.decided = _copies(decided)

    def _look_ahead(self, step: Step) -> Mapping[str, np.ndarray]:
        """What is done next, and `next.action`."""
        result, allowed = self.recorder.memory["next"], self.env.action_mask
        there = None
        if step.next_observation is not step.observation and step.truncated.any():
            there = self._decide(step.next_observation, None)["action"].copy()
        decided = _copies(self._decide(step.observation, allowed))
        result["action"][0] = decided["action"]
        if there is not None:
            result["action"][0][step.truncated] = there[step.truncated]
        return decided

    def state(self) -> State:
        arrays, numbers = super().state()
        return arrays | spaces.to_tensors({f"decided.{key}": value for key, value in self.decided.items()}), numbers

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        exact = super().load_state(arrays, numbers)
        self.decided = {}
        if (
            exact and numbers["begun"] and any(key.startswith("decided.") for key in arrays)
        ):  # saved where `next.action` is read
            self.decided = self._decided(arrays)
        if self.recorder.observation is not None:
            self.begin()
        return exact

    def _decided(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """What was decided when it was saved. Raises BadInput for what the policy would not record, and for actions that do not exist."""
        record, carry = self.recorder, self.recorder.carry
        like = _copies(self._decide(record.observation, self.env.action_mask))
        record.carry = carry
        decided = {key: spaces.restored(arrays, f"decided.{key}", value) for key, value in like.items()}
        sizes = discrete_sizes(self.env.action_space)
        if sizes is not None:
            action = decided["action"].reshape(self.env.num_envs, -1)[:, : len(sizes)]
            if ((action < 0) | (action >= np.array(sizes))).any():
                raise BadInput(f"the saved decided.action holds {action.tolist()}, and there are {list(sizes)} actions")
        return decided


def _copies(decided: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key: value.copy() for key, value in decided.items()}
