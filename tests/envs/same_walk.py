"""Two environments, step by step: is what they give equal to the bit?"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from whorl.envs.env import Env


def equal(one: Any, other: Any) -> bool:
    if one is None or other is None:
        return one is other
    if isinstance(one, dict):
        return list(one) == list(other) and all(equal(one[key], other[key]) for key in one)
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def assert_same_walk(remote: Env, local: Env, steps: int, seed: int = 0) -> int:
    """Random actions in both: every field equal to the bit, and next_observation the same object in the same steps. Returns
    how many episodes ended."""
    rng = np.random.default_rng(seed)
    ended = 0
    for _ in range(steps):
        action = sample(local, rng)
        one, other = remote.step(action), local.step(action)
        for name, a, b in zip(one._fields, one[:6], other[:6]):
            assert equal(a, b), name
        assert equal(remote.action_mask, local.action_mask)
        assert (one.next_observation is one.observation) == (other.next_observation is other.observation)
        ended += int((one.terminated | one.truncated).sum())
    return ended


def sample(env: Any, rng: np.random.Generator) -> np.ndarray:
    if isinstance(env.action_space, gymnasium.spaces.Box):
        return rng.uniform(-3, 3, (env.num_envs, *env.action_space.shape)).astype(np.float32)
    return rng.integers(0, env.action_space.n, env.num_envs)
