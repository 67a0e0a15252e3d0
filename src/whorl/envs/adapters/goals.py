"""Goals of Gymnasium environments that judge them: `compute_reward`, as gymnasium-robotics writes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from whorl.envs.env import Array, Goal

Judge = Callable[[Any, Any, dict[str, Any]], Any]


def goal_of(env: gymnasium.Env, observation_space: spaces.Space) -> Goal | None:
    """How `env` judges goals: by `compute_reward(achieved_goal, desired_goal, info)`, and `compute_terminated` if it has that.

    None for one that has no compute_reward, or whose observation is no Dict of achieved_goal and desired_goal.
    """
    parts = getattr(observation_space, "spaces", {})
    reward = getattr(env.unwrapped, "compute_reward", None)
    if reward is None or not {"achieved_goal", "desired_goal"} <= parts.keys():
        return None
    terminated = getattr(env.unwrapped, "compute_terminated", None)
    axes = len(parts["desired_goal"].shape)
    return Goal(_each(reward, axes, np.float32), terminated and _each(terminated, axes, np.bool_))


def _each(judge: Judge, axes: int, dtype: Any) -> Callable[[Array, Array], Array]:
    """`judge` for goals [..., *goal], numpy or torch. It is asked for all at once; where it does not answer with one number for each, it
    knows single goals only, and is asked for one after another."""

    def judged(achieved_goal: Array, desired_goal: Array) -> Array:
        achieved, desired = (np.asarray(x.cpu() if hasattr(x, "cpu") else x) for x in (achieved_goal, desired_goal))
        shape = desired.shape[: desired.ndim - axes]
        try:
            result = np.asarray(judge(achieved, desired, {}))
        except (TypeError, ValueError, IndexError):  # the truth value of an array, for instance
            result = np.empty(0)
        if result.shape != shape or not shape:
            pairs = zip(_rows(achieved, axes), _rows(desired, axes), strict=True)
            result = np.array([judge(one, other, {}) for one, other in pairs]).reshape(shape)
        result = result.astype(dtype)
        return result if isinstance(achieved_goal, np.ndarray) else achieved_goal.new_tensor(result)

    return judged


def _rows(goals: np.ndarray, axes: int) -> np.ndarray:
    return goals.reshape(-1, *goals.shape[goals.ndim - axes :])
