"""The serial collector: one process, N environments, rollouts [T, N]."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numba
import numpy as np
import torch

from whorl import batch, spaces
from whorl.envs.env import Env
from whorl.errors import EnvError, NotFinite
from whorl.functional.streams import stream
from whorl.policies.policy import Policy

LONGEST = 100_000  # steps that whole episodes may take beyond what was asked for


class Episode(NamedTuple):
    step: int  # environment steps taken by all environments when the rollout in which it ended was complete
    env: int
    ret: float  # sum of raw rewards
    length: int


class SerialCollector:
    """Iterator of rollouts. A rollout is valid until the next one is asked for: its memory is allocated once and written again.

    steps: rows of a rollout. whole_episodes: every environment starts a rollout with a reset and plays whole episodes until it has
    at least `steps` rows; rows it spends waiting for the others have `mask` False.
    Raises NotFinite naming the environment when an observation or a reward is NaN or infinite, EnvError when whole episodes have no
    end.
    """

    def __init__(self, env: Env, policy: Policy, steps: int, seed: int = 0, whole_episodes: bool = False):
        self.env, self.policy, self.seed, self.whole_episodes = env, policy, seed, whole_episodes
        self.capacity = steps  # rows allocated; grows only while whole episodes need it
        self.target = steps
        self.steps = self.rollouts = self.version = 0
        self.finished, self.most_episodes = 0, math.inf  # episodes so far, and after which `done` says so
        self.episodes: list[Episode] = []  # those finished in the last rollout
        n = env.num_envs
        self._actor = policy.actor(n)
        self._weight = next(policy.parameters(), torch.empty(0, device=env.device))  # lies where rollouts should go
        self._generator = torch.Generator(env.device)
        self._memory: dict[str, Any] = {}  # filled at the first step, which shows what the policy records
        self._viewed, self._views = (
            (0, False),
            dict[str, Any](),
        )  # rows and whether masked; the memory as tensors of so many rows
        self._observation: Any = None  # None: reset before the next rollout
        self._is_first = self._full((n,), True)
        self._carry = policy.initial(n)
        self._return = np.zeros(n)  # of the episodes under way
        self._length = np.zeros(n, np.int64)

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield self.collect()

    def done(self, total_steps: int) -> bool:
        """Whether that many environment steps, or `most_episodes` episodes, are over."""
        return self.steps >= total_steps or self.finished >= self.most_episodes

    def sync(self, policy: Policy) -> int:
        """Act with these weights from now on; returns the new version. In place, so that the actor's views stay valid."""
        if policy is not self.policy:
            self.policy.load_state_dict(policy.state_dict())
        self.version += 1
        return self.version

    def collect(self) -> Any:
        """The next rollout, a TensorDict [T, N] on the policy's device."""
        env, actor = self.env, self._actor
        if self._observation is None or self.whole_episodes:
            self._observation = env.reset(self.seed if self._observation is None else None)
            self._is_first[:] = True
            self._return[:], self._length[:] = 0, 0
        if self._memory:
            self._memory["mask"][:] = True
        observation, is_first, carry = self._observation, self._is_first, self._carry
        playing = self._full((env.num_envs,), True)
        noise, t = self._noise(0), 0
        while True:
            allowed = env.action_mask
            decided, carry = actor(observation, carry, is_first, noise[t % self.target], allowed)
            if not self._memory:
                self._allocate(decided)
            m = self._memory
            _write(m["observation"], t, observation)
            m["is_first"][t] = is_first
            if allowed is not None:
                m["action_mask"][t] = allowed
            for key, value in decided.items():
                m[key][t] = value
            step = env.step(decided["action"])
            result = m["next"]
            _write(result["observation"], t, step.next_observation)
            result["reward"][t] = step.reward
            result["terminated"][t] = step.terminated
            result["truncated"][t] = step.truncated
            is_first = step.terminated | step.truncated
            if env.action_mask is not None:  # an end's own mask is not known: every action counts as allowed
                result["action_mask"][t] = env.action_mask | is_first[:, None]
            if step.valid is not None:
                m["mask"][t] = step.valid
                is_first |= ~step.valid
            if self.whole_episodes:
                m["mask"][t] = playing if step.valid is None else playing & step.valid
                if t + 1 >= self.target:
                    playing = playing & ~is_first
            observation = step.observation
            t += 1
            if t >= self.target and (not self.whole_episodes or not playing.any()):
                break
            if t >= self.target + LONGEST:
                raise EnvError(
                    f"an episode of {self.env!r} did not end within {LONGEST:,} steps, and whole episodes were asked for; "
                    "give the environment a time limit (max_episode_steps)"
                )
            if t % self.target == 0:
                noise = self._noise(t // self.target)
            if t == self.capacity:
                self._grow()
        self._observation, self._is_first, self._carry = observation, is_first, carry
        return self._finish(t)

    def _noise(self, chunk: int) -> Any:
        """The numbers of `target` steps, from their own stream (seed, rollout, chunk)."""
        self._generator.manual_seed(stream(self.seed, "acting", self.rollouts, chunk))
        noise = self.policy.noise((self.target, self.env.num_envs), self._generator)
        return noise.numpy() if self.env.device == "cpu" else noise

    def _full(self, shape: tuple[int, ...], value: bool) -> Any:
        return np.full(shape, value) if self.env.device == "cpu" else torch.full(shape, value, device=self.env.device)

    def _allocate(self, decided: dict[str, Any]) -> None:
        """Rollout memory for everything the environment gives and the policy records: numpy arrays on the CPU, else tensors."""
        rows, device = (self.capacity, self.env.num_envs), self.env.device
        like = lambda x: torch.zeros((rows[0], *x.shape), dtype=torch.as_tensor(x[:0]).dtype)  # noqa: E731
        flag = lambda: torch.zeros(rows, dtype=torch.bool)  # noqa: E731
        memory = {
            "observation": spaces.zeros(self.env.observation_space, rows),
            "is_first": flag(),
            **{key: like(value) for key, value in decided.items()},
            "mask": torch.ones(rows, dtype=torch.bool),
            "version": torch.zeros(rows, dtype=torch.int64),
            "next": {
                "observation": spaces.zeros(self.env.observation_space, rows),
                "reward": torch.zeros(rows),
                "terminated": flag(),
                "truncated": flag(),
            },
        }
        if self.env.action_mask is not None:
            memory["action_mask"], memory["next"]["action_mask"] = (
                like(self.env.action_mask),
                like(self.env.action_mask),
            )
        self._memory = spaces.tree_map(lambda x: x.numpy() if device == "cpu" else x.to(device), memory)

    def _grow(self) -> None:
        """Twice the rows; what is written stays."""

        def doubled(x: Any) -> Any:
            numpy = isinstance(x, np.ndarray)
            return np.concatenate([x, np.zeros_like(x)]) if numpy else torch.cat([x, torch.zeros_like(x)])

        self._memory = spaces.tree_map(doubled, self._memory)
        self.capacity, self._viewed = 2 * self.capacity, (0, False)

    def _finish(self, t: int) -> Any:
        """Check, count, list the finished episodes, and hand the memory out as a batch."""
        m = self._memory
        masked = self.whole_episodes or not bool(m["mask"][:t].all())
        if (t, masked) != self._viewed:  # the same memory next time: the same views
            self._viewed, self._views = (t, masked), spaces.tree_map(lambda x: torch.as_tensor(x[:t]), m)
            if not masked:
                del self._views["mask"]
        m["version"][:t] = self.version
        rollout = batch.make(self._views, (t, self.env.num_envs))
        self._check_finite(self._views)
        self.steps += int(m["mask"][:t].sum()) if masked else t * self.env.num_envs
        self.rollouts += 1
        self._list_episodes(t)
        device = self._weight.device
        return rollout if str(device) == self.env.device else rollout.to(device)

    def _check_finite(self, entries: dict) -> None:
        quantities = [("reward", entries["next"]["reward"])]
        for name, tree in (
            ("next.observation", entries["next"]["observation"]),
            ("observation", entries["observation"]),
        ):
            quantities += [(name, leaf) for leaf in spaces.leaves(tree) if leaf.is_floating_point()]
        for name, x in quantities:
            if not (np.isfinite(x.numpy()) if x.is_cpu else x.isfinite()).all():
                t, i = (~x.isfinite()).nonzero()[0, :2].tolist()
                raise NotFinite(
                    f"{name} of environment {i} became {x[t, i].tolist()} at step {t} of rollout {self.rollouts} "
                    f"({self.env!r}); nothing was learned from it. Mend the environment or clip its values"
                )

    def _list_episodes(self, t: int) -> None:
        """Episodes that finished, with raw returns; what is under way is carried on to the next rollout."""
        m, found = self._memory, np.empty((t * self.env.num_envs, 3))
        reward, terminated, truncated, mask = (
            x[:t] if isinstance(x, np.ndarray) else x[:t].cpu().numpy()
            for x in (*(m["next"][key] for key in ("reward", "terminated", "truncated")), m["mask"])
        )
        ended = _count(reward, terminated, truncated, mask, self._return, self._length, found)
        self.episodes = [Episode(self.steps, int(i), ret, int(n)) for i, ret, n in found[:ended].tolist()]
        self.finished += ended

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """(arrays, numbers) from which `load_state` goes on to the same bits, where the environment can save its state."""
        arrays = {"is_first": self._is_first, "return": self._return, "length": self._length}
        env = self.env.state()
        arrays |= {f"env.{key}": value for key, value in (env or {}).items()}
        arrays |= {f"carry.{key}": value for key, value in (self._carry or {}).items()}
        begun = self._observation is not None
        numbers = {key: getattr(self, key) for key in ("steps", "rollouts", "version", "finished")}
        return arrays, numbers | {"begun": begun, "env_saved": env is not None}

    def load_state(self, arrays: dict[str, Any], numbers: dict[str, Any]) -> bool:
        """Restore. False: the environment cannot save its state, so fresh episodes begin (from a stream of their own)."""
        self.steps, self.rollouts, self.version = numbers["steps"], numbers["rollouts"], numbers["version"]
        self.finished = numbers["finished"]
        if not numbers["begun"]:
            return True
        if not numbers["env_saved"] or self.env.state() is None:  # a server may be another than it was
            self._observation = self.env.reset(stream(self.seed, "resume", self.steps))
            return False
        env = {key.removeprefix("env."): value for key, value in arrays.items() if key.startswith("env.")}
        self._observation = self.env.load_state(env)
        self._is_first[:] = spaces.like(arrays["is_first"], self._is_first)
        for key, value in (self._carry or {}).items():
            self._carry[key] = spaces.like(arrays[f"carry.{key}"], value)
        self._return[:], self._length[:] = arrays["return"], arrays["length"]
        return True


@numba.njit(cache=True)
def _count(reward, terminated, truncated, mask, returns, lengths, found):
    """Adds rows [T, N] to what is under way, and moves what ended to `found` (environment, return, length). How many ended."""
    ended = 0
    for t in range(len(reward)):
        for i in range(len(returns)):
            if mask[t, i]:
                returns[i] += reward[t, i]
                lengths[i] += 1
                if terminated[t, i] or truncated[t, i]:
                    found[ended, 0], found[ended, 1], found[ended, 2] = i, returns[i], lengths[i]
                    returns[i], lengths[i] = 0, 0
                    ended += 1
    return ended


def _write(memory: Any, t: int, value: Any) -> None:
    if isinstance(memory, dict):
        for key, inner in memory.items():
            _write(inner, t, value[key])
    else:
        memory[t] = value
