"""Cart-pole (Barto, Sutton and Anderson 1983), equal to Gymnasium's CartPole."""

from __future__ import annotations

import math

import numpy as np
from gymnasium import spaces
from numba.extending import register_jitable

from whorl.envs.native.world import Classic

GRAVITY, POLE_MASS, TOTAL_MASS = 9.8, 0.1, 1.1
HALF_LENGTH = 0.5  # of the pole, metres
POLE_MOMENT = POLE_MASS * HALF_LENGTH
FORCE = 10.0
SECONDS = 0.02  # per step, explicit Euler
MAX_POSITION, MAX_ANGLE = 2.4, 12 * 2 * math.pi / 360
_HIGH = np.array([2 * MAX_POSITION, np.inf, 2 * MAX_ANGLE, np.inf], np.float32)


@register_jitable
def dynamics(state: np.ndarray, action: int, chance: float) -> tuple[float, bool]:
    x, velocity, angle, spin = state
    force = FORCE if action == 1 else -FORCE
    cos, sin = math.cos(angle), math.sin(angle)
    push = (force + POLE_MOMENT * (spin * spin) * sin) / TOTAL_MASS
    spin_rate = (GRAVITY * sin - cos * push) / (HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * (cos * cos) / TOTAL_MASS))
    state[0] = x + SECONDS * velocity
    state[1] = velocity + SECONDS * (push - POLE_MOMENT * spin_rate * cos / TOTAL_MASS)
    state[2] = angle + SECONDS * spin
    state[3] = spin + SECONDS * spin_rate
    return 1.0, abs(state[0]) > MAX_POSITION or abs(state[2]) > MAX_ANGLE


@register_jitable
def observe(state: np.ndarray, out: np.ndarray) -> None:
    for k in range(4):
        out[k] = state[k]


class CartPole(Classic):
    """CartPole-v1. Observation: position, velocity, angle, spin. Actions: 0 left, 1 right. Reward 1 a step."""

    id = "CartPole-v1"
    max_episode_steps = 500
    reward_threshold = 475.0
    observation_space = spaces.Box(-_HIGH, _HIGH)
    action_space = spaces.Discrete(2)
    dynamics, observe = staticmethod(dynamics), staticmethod(observe)
    low, high = (-0.05,) * 4, (0.05,) * 4
    least, most = tuple(-_HIGH.astype(float)), tuple(_HIGH.astype(float))


class CartPoleV0(CartPole):
    """CartPole-v0: the same with a limit of 200 steps."""

    id = "CartPole-v0"
    max_episode_steps = 200
    reward_threshold = 195.0
