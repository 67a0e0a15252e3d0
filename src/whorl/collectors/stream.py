"""The collector of online agents: one step at a time, [1, N], in a memory that is written again at each step."""

from __future__ import annotations

from itertools import repeat
from typing import Any

import numba
import numpy as np

from whorl import batch, spaces
from whorl.collectors.serial import Episode, SerialCollector, _write
from whorl.envs.env import Env
from whorl.errors import BadInput
from whorl.functional.streams import stream
from whorl.policies.policy import Policy

NOISE = 16384  # steps whose random numbers are drawn at once, from a stream of their own; fewer where each takes many


class StreamCollector(SerialCollector):
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
        self.decided: dict[str, Any] = {}  # what the policy does where the environments stand; empty: not asked yet
        self._block, self._numbers = -1, np.zeros(0)
        a_step = max(1, policy.noise((1, env.num_envs), self._generator.manual_seed(0)).numel())
        self._chunk = min(NOISE, max(1, 2**21 // a_step))  # of numbers, 8 MB
        self._rollout: Any = None

    def begin(self) -> None:
        """Where the environments stand, and what the policy does there."""
        if self._observation is None:
            self._observation = self.env.reset(self.seed)
        if not self.decided:
            self.decided = _copies(self._decide(self._observation, self._is_first, self.env.action_mask))
        if not self._memory:
            self._allocate(self.decided)
            if self.next_action:
                action = self._memory["action"]
                self._memory["next"] |= {"action": np.zeros_like(action)}
            self._rollout = batch.make(spaces.to_tensors(self._memory), (1, self.env.num_envs))
            result = self._memory["next"]
            self._counted = [
                x[0] for x in (self._memory["mask"], result["reward"], result["terminated"], result["truncated"])
            ]
            seen = spaces.leaves(result["observation"])
            self._floats = [x.reshape(-1) for x in seen if np.issubdtype(x.dtype, np.floating)]

    def collect(self) -> Any:
        env = self.env
        if not self.decided:
            self.begin()
        m, result = self._memory, self._memory["next"]
        _write(m["observation"], 0, self._observation)
        m["is_first"][0] = self._is_first
        m["version"][0] = self.version
        for key, value in self.decided.items():
            m[key][0] = value
        if env.action_mask is not None:
            m["action_mask"][0] = env.action_mask
        step = env.step(self.decided["action"])
        _write(result["observation"], 0, step.next_observation)
        result["reward"][0] = step.reward
        result["terminated"][0] = step.terminated
        result["truncated"][0] = step.truncated
        m["mask"][0] = True if step.valid is None else step.valid
        if env.action_mask is not None:  # an end's own mask is not known: every action counts as allowed
            result["action_mask"][0] = env.action_mask | (step.terminated | step.truncated)[:, None]
        self._observation = step.observation
        mask, reward, terminated, truncated = self._counted
        finished, finite = _count(mask, reward, terminated, truncated, self._is_first, self._return, self._length)
        for x in self._floats:
            finite &= _finite(x)
        if not finite:
            self._check_finite(spaces.to_tensors(m))  # says where
        self.rollouts += 1
        self.steps += env.num_envs if step.valid is None else int(step.valid.sum())
        self.episodes = self._list(m["mask"][0]) if finished else []
        self.decided = self._look_ahead(step) if self.next_action else {}
        return self._rollout

    def _decide(self, observation: Any, is_first: Any, allowed: Any) -> dict[str, Any]:
        """What the policy does, with the random numbers of step `rollouts`; valid until the next call."""
        block, row = divmod(self.rollouts, self._chunk)
        decided, self._carry = self._actor(observation, self._carry, is_first, self.numbers(block)[row], allowed)
        return decided

    def numbers(self, block: int) -> np.ndarray:
        """The random numbers of the steps from block * chunk on, [chunk, N, ...], from the stream (seed, block)."""
        if block != self._block:
            self._generator.manual_seed(stream(self.seed, "acting", block))
            self._block = block
            self._numbers = self.policy.noise((self._chunk, self.env.num_envs), self._generator).numpy()
        return self._numbers

    def advance(self, steps: int, decided: dict[str, Any], ends: Any) -> None:
        """One environment took `steps` steps elsewhere (compiled_td); ends: step, length and return of the episodes that ended."""
        before = self.steps
        self.steps, self.rollouts, self.version = before + steps, self.rollouts + steps, self.version + steps
        numbers, lengths, returns = (x.tolist() for x in ends)
        self.episodes = [*map(Episode, [before + n for n in numbers], repeat(0), returns, lengths)]
        self.finished += len(self.episodes)
        self.decided = _copies(decided)

    def _look_ahead(self, step: Any) -> dict[str, Any]:
        """What is done next, and `next.action`."""
        result, allowed = self._memory["next"], self.env.action_mask
        there = None
        if step.next_observation is not step.observation and step.truncated.any():
            there = self._decide(step.next_observation, self._is_first, None)["action"].copy()
        decided = _copies(self._decide(step.observation, self._is_first, allowed))
        result["action"][0] = decided["action"]
        if there is not None:
            result["action"][0][step.truncated] = there[step.truncated]
        return decided

    def _list(self, mask: np.ndarray) -> list[Episode]:
        """The episodes that ended with this step; what is added up begins anew."""
        ended = np.flatnonzero(self._is_first & mask)
        episodes = [Episode(self.steps, int(i), float(self._return[i]), int(self._length[i])) for i in ended]
        self._return[ended], self._length[ended] = 0.0, 0
        self.finished += len(episodes)
        return episodes

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        arrays, numbers = super().state()
        return arrays | {f"decided.{key}": value for key, value in self.decided.items()}, numbers

    def load_state(self, arrays: dict[str, Any], numbers: dict[str, Any]) -> bool:
        decided = {key: value for key, value in arrays.items() if key.startswith("decided.")}
        exact = super().load_state({k: v for k, v in arrays.items() if k not in decided}, numbers)
        self.decided = {}
        if exact and numbers["begun"]:
            self.decided = {key.removeprefix("decided."): np.array(value) for key, value in decided.items()}
        if self._observation is not None:
            self.begin()
        return exact


@numba.njit(cache=True)
def _count(mask, reward, terminated, truncated, is_first, ret, length):
    """Adds the step up where `mask` is set. (how many episodes ended, whether all rewards are finite)."""
    ended, finite = 0, True
    for i in range(len(mask)):
        over = terminated[i] or truncated[i]
        is_first[i] = over or not mask[i]
        finite &= np.isfinite(reward[i])
        if mask[i]:
            ret[i] += reward[i]
            length[i] += 1
            ended += over
    return ended, finite


@numba.njit(cache=True)
def _finite(x):
    finite = True
    for i in range(len(x)):
        finite &= np.isfinite(x[i])
    return finite


def _copies(decided: dict[str, Any]) -> dict[str, Any]:
    return {key: value.copy() for key, value in decided.items()}
