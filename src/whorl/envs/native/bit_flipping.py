"""Bit flipping (Andrychowicz et al. 2017, "Hindsight experience replay", section 3.1): a goal that chance never finds."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numba.extending import register_jitable

from whorl.envs.env import Goal
from whorl.envs.native.world import World


def reward(achieved_goal: Any, desired_goal: Any) -> Any:
    """0 where all bits agree, else -1: [..., n] and [..., n], float32 of 0 and 1, numpy or torch -> [...] float32."""
    return 0.0 - abs(achieved_goal - desired_goal).sum(-1).clip(0, 1)


def reached(achieved_goal: Any, desired_goal: Any) -> Any:
    """Whether all bits agree, which ends the episode: as `reward`, but bool."""
    return (achieved_goal == desired_goal).all(-1)


@register_jitable
def dynamics(state: np.ndarray, action: int, chance: float) -> tuple[float, bool]:
    n = len(state) // 2
    state[action] = 1 - int(state[action])
    for k in range(n):
        if int(state[k]) != int(state[n + k]):
            return -1.0, False
    return 0.0, True


@register_jitable
def observe(state: np.ndarray, out: np.ndarray) -> None:
    n = len(state) // 2
    for k in range(n):
        out[k] = out[2 * n + k] = int(state[k])  # achieved_goal, observation
        out[n + k] = int(state[n + k])  # desired_goal


def space(bits: int) -> spaces.Dict:
    part = spaces.Box(0, 1, (bits,), np.float32)
    return spaces.Dict({"achieved_goal": part, "desired_goal": part, "observation": part})


class BitFlipping(World):
    """BitFlipping15-v0: n = 15 bits and a goal of n bits, both uniformly random at the start; action k flips bit k.

    Observation: Dict of `observation` and `achieved_goal` (the bits) and `desired_goal`, each float32 [n] of 0 and 1.
    Reward 0 for the step that makes all bits equal to the goal, -1 for every other. That step terminates the episode, as
    in Stable-Baselines3's BitFlippingEnv (the paper plays on to the limit); after n steps the episode is truncated.
    So an episode succeeded if and only if it terminated, that is, if and only if its return is above -n; a goal d flips
    away earns 1 - d at best (a start on the goal has to leave it and come back). Unlike SB3's, the goal is drawn anew for
    each episode, as in the paper.

    `goal` holds `reward` and `reached`: what hindsight relabelling recomputes.
    """

    id = "BitFlipping15-v0"
    max_episode_steps = 15
    observation_space = space(15)
    action_space = spaces.Discrete(15)
    dynamics, observe = staticmethod(dynamics), staticmethod(observe)
    low: ClassVar[tuple[float, ...]] = (0.0,) * 30  # of a state of bits and goal; the whole part of a number is the bit
    high: ClassVar[tuple[float, ...]] = (2.0,) * 30
    least, most = low, high
    goal = Goal(reward, reached)


class BitFlipping8(BitFlipping):
    """BitFlipping8-v0: the same with n = 8."""

    id = "BitFlipping8-v0"
    max_episode_steps = 8
    observation_space = space(8)
    action_space = spaces.Discrete(8)
    low, high = (0.0,) * 16, (2.0,) * 16
    least, most = low, high
