"""Mountain car (Moore 1990), with discrete and with continuous actions, equal to Gymnasium's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces
from numba.extending import register_jitable

from whorl.envs.native.world import Classic, clip

LEFT, RIGHT, MAX_SPEED = -1.2, 0.6, 0.07
FORCE, GRAVITY, GOAL = 0.001, 0.0025, 0.5
POWER, CONTINUOUS_GOAL = 0.0015, 0.45
_LOW, _HIGH = np.array([LEFT, -MAX_SPEED], np.float32), np.array([RIGHT, MAX_SPEED], np.float32)


@register_jitable
def dynamics(state: np.ndarray, action: Any, chance: float) -> tuple[float, bool]:
    velocity = state[1] + ((action - 1) * FORCE + math.cos(3 * state[0]) * (-GRAVITY))
    velocity = clip(velocity, -MAX_SPEED, MAX_SPEED)
    position = clip(state[0] + velocity, LEFT, RIGHT)
    if position == LEFT and velocity < 0:
        velocity = 0.0
    state[0], state[1] = position, velocity
    return -1.0, position >= GOAL and velocity >= 0


@register_jitable
def continuous_dynamics(state: np.ndarray, action: Any, chance: float) -> tuple[Any, Any]:
    single = np.float32  # Gymnasium keeps this state in single precision
    position, velocity = single(state[0]), single(state[1])
    force = clip(action[0], single(-1), single(1))
    slope = single(GRAVITY * math.cos(np.float64(single(3) * position)))
    velocity = clip(velocity + (force * single(POWER) - slope), single(-MAX_SPEED), single(MAX_SPEED))
    position = clip(position + velocity, single(LEFT), single(RIGHT))
    if position == single(LEFT) and velocity < 0:
        velocity = single(0)
    state[0], state[1] = position, velocity
    terminated = position >= single(CONTINUOUS_GOAL) and velocity >= 0
    wanted = np.float64(action[0])  # the cost is of the action as given, not as clipped
    return (100.0 if terminated else 0.0) - wanted * wanted * 0.1, terminated


@register_jitable
def observe(state: np.ndarray, out: np.ndarray) -> None:
    out[0], out[1] = state[0], state[1]


class MountainCar(Classic):
    """MountainCar-v0. Observation: position, velocity. Actions: 0 left, 1 nothing, 2 right. Reward -1 a step."""

    id = "MountainCar-v0"
    max_episode_steps = 200
    reward_threshold = -110.0
    observation_space = spaces.Box(_LOW, _HIGH)
    action_space: spaces.Space = spaces.Discrete(3)
    dynamics, observe = staticmethod(dynamics), staticmethod(observe)
    low, high = (-0.6, 0.0), (-0.4, 0.0)
    least, most = (LEFT, -MAX_SPEED), (RIGHT, MAX_SPEED)


class MountainCarContinuous(MountainCar):
    """MountainCarContinuous-v0. Action: force in [-1, 1]. Reward 100 at the goal, minus 0.1 force^2 a step."""

    id = "MountainCarContinuous-v0"
    max_episode_steps = 999
    reward_threshold = 90.0
    action_space = spaces.Box(-1.0, 1.0, (1,))
    dynamics = staticmethod(continuous_dynamics)
