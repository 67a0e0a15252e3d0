"""Pendulum swing-up, equal to Gymnasium's."""

from __future__ import annotations

import math

import numpy as np
from gymnasium import spaces
from numba.extending import register_jitable

from whorl.envs.native.world import Classic, clip

GRAVITY, MAX_SPEED, MAX_TORQUE = 10.0, 8.0, 2.0  # mass and length are 1
SECONDS = 0.05  # per step, semi-implicit Euler
_HIGH = np.array([1, 1, MAX_SPEED], np.float32)


@register_jitable
def dynamics(state: np.ndarray, action: np.ndarray, chance: float) -> tuple[float, bool]:
    single = np.float32  # the action's share is computed in its own precision, as Gymnasium's is
    angle, speed = state
    torque = clip(action[0], single(-MAX_TORQUE), single(MAX_TORQUE))
    from_upright = (angle + math.pi) % (2 * math.pi) - math.pi
    cost = from_upright**2 + 0.1 * speed**2 + single(0.001) * (torque * torque)
    speed = speed + (1.5 * GRAVITY * math.sin(angle) + single(3) * torque) * SECONDS
    speed = clip(speed, -MAX_SPEED, MAX_SPEED)
    state[0], state[1] = angle + speed * SECONDS, speed
    return -cost, False


@register_jitable
def observe(state: np.ndarray, out: np.ndarray) -> None:
    out[0], out[1], out[2] = math.cos(state[0]), math.sin(state[0]), state[1]


class Pendulum(Classic):
    """Pendulum-v1. Observation: cosine, sine, speed. Action: torque in [-2, 2]. Reward: minus (angle from upright)^2,
    0.1 speed^2 and 0.001 torque^2. It never terminates."""

    id = "Pendulum-v1"
    max_episode_steps = 200
    observation_space = spaces.Box(-_HIGH, _HIGH)
    action_space = spaces.Box(-MAX_TORQUE, MAX_TORQUE, (1,))
    dynamics, observe = staticmethod(dynamics), staticmethod(observe)
    low, high = (-math.pi, -1.0), (math.pi, 1.0)
    least, most = (-math.inf, -MAX_SPEED), (math.inf, MAX_SPEED)  # the angle is never wrapped
