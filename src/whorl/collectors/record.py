"""The record of what happens: rows of rollout memory, written in place, and where the environments stand between two rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch

from whorl import batch, spaces
from whorl.batch import Arrays, Batch, Numbers, State
from whorl.collectors.tally import Tally
from whorl.envs.env import Env, Observation, Step
from whorl.envs.guard import Stepper, guarded
from whorl.errors import NotFinite
from whorl.policies.policy import Array, Held, Policy

BESIDE = ("raw_reward", "reward_vector", "cost")  # attributes of an environment that are written down with a step
Memory: TypeAlias = "dict[str, Any]"  # all of it: arrays [capacity, N, ...] by the vocabulary's keys, nested
Rows = Array | dict[str, "Rows"]  # memory of one key: numpy on the CPU, else a tensor on the environment's device


class Recorder:
    """Steps N environments and writes what happens to a memory of `capacity` rows, allocated once and written again.

    memory: the vocabulary's keys, arrays [capacity, N, ...]; empty before the first row, which shows what the policy records.
    observation, is_first, carry: where the environments stand. `observation` is None before the first reset.
    """

    def __init__(self, env: Env, policy: Policy, capacity: int, world: Stepper | None = None):
        self.env, self.capacity = env, capacity
        self.world = guarded(env) if world is None else world  # steps it
        self.actor = policy.actor(env.num_envs)
        self.memory: Memory = {}
        self.observation: Observation = None  # type: ignore[assignment]  # until the first reset
        self.is_first = self.full(True)
        self.carry: Held = policy.initial(env.num_envs)
        self.tally: Tally | None = None  # what of info is written down
        self.masked = False  # whether rows of `mask` were written since the caller made it True
        # rows and whether masked; the memory as tensors of so many rows
        self._viewed, self._views = (0, False), dict[str, Any]()

    def full(self, value: bool) -> Array:
        """bool [N]."""
        n, device = self.env.num_envs, self.env.device
        return np.full(n, value) if device == "cpu" else torch.full((n,), value, device=device)

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode in every environment; `seed` as in `Env.reset`."""
        self.observation = self.world.reset(seed)
        self.is_first[:] = True

    def step(self, t: int, decided: Mapping[str, Array]) -> Step:
        """Write row t: what was known and decided, and what the environments give back for it.

        The observation moves on; `is_first` is left to the caller, and so is `mask` where every row counts.
        """
        self._before(t, decided)
        return self._after(t, self.world.step(decided["action"]))

    def send(self, t: int, decided: Mapping[str, Array]) -> None:
        """The first half of `step`, which does not wait for the environments."""
        self._before(t, decided)
        self.world.send(decided["action"])

    def receive(self, t: int) -> Step:
        """The second half of `step`."""
        return self._after(t, self.world.receive())

    def _before(self, t: int, decided: Mapping[str, Array]) -> None:
        env, m = self.env, self.memory
        write(m["observation"], t, self.observation)
        m["is_first"][t] = self.is_first
        if env.action_mask is not None:
            m["action_mask"][t] = env.action_mask
        if env.trajectory is not None:
            m["trajectory"][t] = env.trajectory
        for key, value in decided.items():
            m[key][t] = value

    def _after(self, t: int, step: Step) -> Step:
        env, m = self.env, self.memory
        result = m["next"]
        self.observation, reward, terminated, truncated, successor, valid, discount, info = step
        write(result["observation"], t, successor)
        result["reward"][t] = reward
        result["terminated"][t] = terminated
        result["truncated"][t] = truncated
        if env.action_mask is not None:  # an end's own mask is not known: every action counts as allowed
            result["action_mask"][t] = env.action_mask | (terminated | truncated)[:, None]
        if discount is not None:
            result["discount"][t] = discount
        for name in BESIDE:
            if name in result:
                result[name][t] = getattr(env, name)
        if self.tally is not None:
            for key, value in self.tally.read(info, np.asarray(terminated | truncated)).items():
                m["info"][key][t] = value
        if (games := info.get("game_over")) is not None:
            m.setdefault("game_over", m["mask"] & False)[t] = games
        if valid is not None:
            m["mask"][t] = valid
            self.masked = True
            if (
                lost := truncated & ~valid
            ).any():  # the true one, with no transform asked about a step that nobody took
                leaves = map(spaces.leaves, (result["observation"], m["observation"]))
                for there, here in zip(*leaves, strict=True):
                    there[t][lost] = here[t][lost]
        return step

    # -- memory ------------------------------------------------------------------------------------------------------

    def allocate(self, decided: Mapping[str, Array], next_action: bool = False) -> None:
        """Take memory for everything the environment gives and the policy records (next_action: `next.action`, too)."""
        rows, device = (self.capacity, self.env.num_envs), self.env.device
        like = lambda x: torch.zeros((*rows, *x.shape[1:]), dtype=torch.as_tensor(x[:0]).dtype)  # noqa: E731
        flag = lambda: torch.zeros(rows, dtype=torch.bool)  # noqa: E731
        observation = self.env.observation_space
        after = {
            "observation": spaces.zeros(observation, rows),
            "reward": torch.zeros(rows, dtype=torch.float32),
            "terminated": flag(),
            "truncated": flag(),
        }
        if self.env.discounts:
            after["discount"] = torch.ones(rows)
        beside = {name: x for name in BESIDE if (x := getattr(self.env, name)) is not None}
        after |= {name: torch.zeros(rows + tuple(x.shape[1:])) for name, x in beside.items()}
        memory = {
            "observation": spaces.zeros(observation, rows),
            "is_first": flag(),
            **{key: like(value) for key, value in decided.items()},
            **({} if self.env.trajectory is None else {"trajectory": like(self.env.trajectory)}),
            "mask": torch.ones(rows, dtype=torch.bool),
            "version": torch.zeros(rows, dtype=torch.int64),
            "next": after,
        }
        if self.env.action_mask is not None:
            memory["action_mask"], after["action_mask"] = like(self.env.action_mask), like(self.env.action_mask)
        if self.tally is not None and self.tally.keys:
            memory["info"] = {key: torch.zeros(rows) for key in self.tally.keys}
        if next_action:
            after["action"] = like(decided["action"])
        self.memory = spaces.tree_map(lambda x: x.numpy() if device == "cpu" else x.to(device), memory)

    def grow(self) -> None:
        """Twice the rows; what is written stays."""

        def doubled(x: Array) -> Array:
            return (
                np.concatenate([x, np.zeros_like(x)])
                if isinstance(x, np.ndarray)
                else torch.cat([x, torch.zeros_like(x)])
            )

        self.memory = spaces.tree_map(doubled, self.memory)
        self.capacity, self._viewed = 2 * self.capacity, (0, False)

    def use(self, memory: Memory) -> None:
        """Write there from now on: another memory of this form, of which nobody knows what its `mask` says."""
        self.memory, self.masked, self._viewed = memory, True, (0, False)

    @property
    def raw_reward(self) -> Array:
        """Rewards before transforms changed them, [capacity, N]: what returns are added up from."""
        result = self.memory["next"]
        return result.get("raw_reward", result["reward"])

    @property
    def games(self) -> Array | None:
        """bool [capacity, N]: where the episodes of statistics end, of environments that say so; else None."""
        return self.memory.get("game_over")

    def rollout(self, t: int, masked: bool) -> Batch:
        """The first t rows as a batch [t, N] that shares the memory; `mask` is left out where every row counts."""
        if (t, masked) != self._viewed:  # the same memory next time: the same views
            self._viewed, self._views = (t, masked), spaces.tree_map(lambda x: torch.as_tensor(x[:t]), self.memory)
            self._views["next"].pop("raw_reward", None)
            self._views.pop("game_over", None)
            if not masked:
                del self._views["mask"]
        return batch.make(self._views, (t, self.env.num_envs))

    def check_finite(self, t: int, rollouts: int) -> None:
        """Raises NotFinite, naming the environment and rollout number `rollouts`, when an observation or a reward of the first t
        rows is NaN or infinite. A guard has looked already."""
        if self.world is not self.env:
            return
        m, result = self.memory, self.memory["next"]
        quantities = [("reward", result["reward"])]
        for name, tree in (("next.observation", result["observation"]), ("observation", m["observation"])):
            quantities += [(name, leaf) for leaf in floats(tree)]
        for name, leaf in quantities:
            x = torch.as_tensor(leaf[:t])
            if not (np.isfinite(x.numpy()) if x.is_cpu else x.isfinite()).all():
                row, i = (~x.isfinite()).nonzero()[0, :2].tolist()
                raise NotFinite(
                    f"{name} of environment {i} became {x[row, i].tolist()} at step {row} of rollout {rollouts} "
                    f"({self.env!r}); nothing was learned from it. Mend the environment or clip its values"
                )

    # -- state -------------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """Where the environments stand, their own state where they can save it, and what they have learned in any case."""
        env = self.env.state()
        arrays = {"is_first": self.is_first} | {f"learned.{key}": x for key, x in self.env.learned().items()}
        arrays |= {f"env.{key}": value for key, value in (env or {}).items()}
        arrays |= {f"carry.{key}": value for key, value in (self.carry or {}).items()}
        return spaces.to_tensors(arrays), {"begun": self.observation is not None, "env_saved": env is not None}

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        """Restore. False: the environment cannot save its state; nothing has changed, and it is to be reset."""
        self.env.load_learned(_named(arrays, "learned."))
        if not numbers["begun"]:
            return True
        if not numbers["env_saved"] or self.env.state() is None:  # a server may be another than it was
            return False
        self.observation = self.world.load_state(_named(arrays, "env."))
        self.is_first[:] = spaces.restored(arrays, "is_first", self.is_first)
        if self.carry is not None:
            self.carry = {key: spaces.restored(arrays, f"carry.{key}", value) for key, value in self.carry.items()}
        return True


def _named(arrays: Arrays, prefix: str) -> dict[str, np.ndarray]:
    """Those whose names begin with it, by the rest of their names."""
    return {key.removeprefix(prefix): x.cpu().numpy() for key, x in arrays.items() if key.startswith(prefix)}


def write(memory: Rows, t: int, value: Observation) -> None:
    """Row t of an array, or of nested dicts of them."""
    if isinstance(memory, dict):
        for key, inner in memory.items():
            write(inner, t, value[key])  # type: ignore[index]
    else:
        memory[t] = value  # type: ignore[assignment]


def floats(tree: Observation) -> list[Array]:
    """The leaves of an observation that hold floats."""
    return [leaf for leaf in spaces.leaves(tree) if torch.as_tensor(leaf).is_floating_point()]
