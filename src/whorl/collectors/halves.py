"""N environments as two halves, for a collector that steps one of them while it decides what the other does."""

from __future__ import annotations

import gymnasium
import numpy as np

from whorl.envs.env import Array, Env, Observation, Step
from whorl.envs.guard import guarded
from whorl.spaces import joined

BESIDE = (
    "action_mask",
    "trajectory",
    "raw_reward",
    "reward_vector",
    "cost",
)  # attributes with a row for each environment


class Halves(Env):
    """Two parts of one kind as a whole, whose rows stand one after the other; what they learn from data they learn together.

    parts: the two. worlds: what steps each of them (see `guarded`). rows: which of the N are whose.
    Raises Incompatible for parts that cannot learn together.
    """

    def __init__(self, one: Env, other: Env) -> None:
        self.parts = one, other
        other.first = one.first + one.num_envs
        other.share(one)
        self.worlds = guarded(one), guarded(other)
        self.id, self.origin, self.made_from, self.device = one.id, one.origin, one.made_from, one.device
        self.num_envs, self.first = one.num_envs + other.num_envs, one.first
        self.rows = slice(0, one.num_envs), slice(one.num_envs, self.num_envs)
        self.observation_space, self.action_space = one.observation_space, one.action_space
        self.max_episode_steps, self.reward_threshold = one.max_episode_steps, one.reward_threshold
        self.partial, self.discounts = one.partial, one.discounts
        self.scalar_reward, self.goal = one.scalar_reward, one.goal
        self._say()

    def _say(self) -> None:
        for name in BESIDE:
            setattr(self, name, joined([getattr(part, name) for part in self.parts]))

    @property
    def restarts(self) -> int:  # type: ignore[override]  # nobody sets it
        return sum(part.restarts for part in self.parts)

    @property
    def replay_steps(self) -> int:
        return self.parts[0].replay_steps

    @replay_steps.setter
    def replay_steps(self, steps: int) -> None:
        for part in self.parts:
            part.replay_steps = steps

    def reset(self, seed: int | None = None) -> Observation:
        return self._standing([world.reset(seed) for world in self.worlds])

    def restart(self, rows: np.ndarray) -> Observation:
        return self._standing([world.restart(rows[own]) for world, own in zip(self.worlds, self.rows)])

    def step(self, action: Array, rows: np.ndarray | None = None) -> Step:
        steps = [
            world.step(action[own], None if rows is None else rows[own]) for world, own in zip(self.worlds, self.rows)
        ]
        here = self._standing([step.observation for step in steps])
        went_on = all(step.next_observation is step.observation for step in steps)
        there = here if went_on else joined([step.next_observation for step in steps])
        reward, terminated, truncated = (joined([step[k] for step in steps]) for k in (1, 2, 3))
        valid = None
        if any(step.valid is not None for step in steps):
            valid = joined([~step.begins | True if step.valid is None else step.valid for step in steps])
        return Step(here, reward, terminated, truncated, there, valid, joined([step.discount for step in steps]))

    def _standing(self, observations: list[Observation]) -> Observation:
        self._say()
        return joined(observations)

    def learned(self) -> dict[str, np.ndarray]:
        return self.parts[0].learned()

    def load_learned(self, learned: dict[str, np.ndarray]) -> None:
        self.parts[0].load_learned(learned)

    def state(self) -> dict[str, np.ndarray] | None:
        found: dict[str, np.ndarray] = {}
        for k, part in enumerate(self.parts):
            if (state := part.state()) is None:
                return None
            found |= {f"{k}.{name}": array for name, array in state.items()}
        return found

    def load_state(self, state: dict[str, np.ndarray]) -> Observation:
        of = [{name[2:]: x for name, x in state.items() if name.startswith(f"{k}.")} for k in range(len(self.parts))]
        return self._standing([world.load_state(each) for world, each in zip(self.worlds, of)])

    @property
    def own_observation_space(self) -> gymnasium.Space:
        return self.parts[0].own_observation_space

    @property
    def own_action_space(self) -> gymnasium.Space:
        return self.parts[0].own_action_space

    def encode(self, observation: Observation) -> tuple[Observation, Array | None]:
        return self.parts[0].encode(observation)

    def decode(self, action: Array) -> Array:
        return self.parts[0].decode(action)

    def render(self) -> np.ndarray | None:
        return self.worlds[0].render()

    def close(self) -> None:
        for part in self.parts:
            part.close()
