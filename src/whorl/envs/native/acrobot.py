"""Acrobot (Sutton 1996), equal to Gymnasium's (the equations of Sutton and Barto's book)."""

from __future__ import annotations

import math

import numpy as np
from gymnasium import spaces
from numba.extending import register_jitable

from whorl.envs.native.world import Classic, clip

GRAVITY = 9.8
SECONDS = 0.2  # per step, fourth-order Runge-Kutta
MAX_SPIN_1, MAX_SPIN_2 = 4 * math.pi, 9 * math.pi
_HIGH = np.array([1, 1, 1, 1, MAX_SPIN_1, MAX_SPIN_2], np.float32)


@register_jitable
def rates(
    angle_1: float, angle_2: float, spin_1: float, spin_2: float, torque: float
) -> tuple[float, float, float, float]:
    """Time derivatives of the four. Both links have mass 1, length 1, centre of mass at 0.5 and moment of inertia 1."""
    cos, sin = math.cos(angle_2), math.sin(angle_2)
    d1 = 0.25 + (1.25 + cos) + 2.0
    d2 = 0.25 + 0.5 * cos + 1.0
    phi2 = 0.5 * GRAVITY * math.cos(angle_1 + angle_2 - math.pi / 2)
    phi1 = -0.5 * spin_2**2 * sin - spin_2 * spin_1 * sin + 1.5 * GRAVITY * math.cos(angle_1 - math.pi / 2) + phi2
    rate_2 = (torque + d2 / d1 * phi1 - 0.5 * spin_1**2 * sin - phi2) / (1.25 - d2**2 / d1)
    return spin_1, spin_2, -(d2 * rate_2 + phi1) / d1, rate_2


@register_jitable
def wrap(angle: float) -> float:
    """The angle within [-pi, pi]."""
    while angle > math.pi:
        angle = angle - 2 * math.pi
    while angle < -math.pi:
        angle = angle + 2 * math.pi
    return angle


@register_jitable
def dynamics(state: np.ndarray, action: int, chance: float) -> tuple[float, bool]:
    a, b, c, d = state
    torque, half = action - 1.0, SECONDS / 2
    k1 = rates(a, b, c, d, torque)
    k2 = rates(a + half * k1[0], b + half * k1[1], c + half * k1[2], d + half * k1[3], torque)
    k3 = rates(a + half * k2[0], b + half * k2[1], c + half * k2[2], d + half * k2[3], torque)
    k4 = rates(a + SECONDS * k3[0], b + SECONDS * k3[1], c + SECONDS * k3[2], d + SECONDS * k3[3], torque)
    for k in range(4):
        state[k] += SECONDS / 6.0 * (k1[k] + 2 * k2[k] + 2 * k3[k] + k4[k])
    state[0], state[1] = wrap(state[0]), wrap(state[1])
    state[2], state[3] = clip(state[2], -MAX_SPIN_1, MAX_SPIN_1), clip(state[3], -MAX_SPIN_2, MAX_SPIN_2)
    terminated = -math.cos(state[0]) - math.cos(state[1] + state[0]) > 1.0
    return (0.0 if terminated else -1.0), terminated


@register_jitable
def observe(state: np.ndarray, out: np.ndarray) -> None:
    out[0], out[1] = math.cos(state[0]), math.sin(state[0])
    out[2], out[3] = math.cos(state[1]), math.sin(state[1])
    out[4], out[5] = state[2], state[3]


class Acrobot(Classic):
    """Acrobot-v1. Observation: cosine and sine of both angles, both spins. Actions: torque -1, 0, 1. Reward -1 until
    the tip is above the bar, then 0."""

    id = "Acrobot-v1"
    max_episode_steps = 500
    reward_threshold = -100.0
    observation_space = spaces.Box(-_HIGH, _HIGH)
    action_space = spaces.Discrete(3)
    dynamics, observe = staticmethod(dynamics), staticmethod(observe)
    low, high = (-0.1,) * 4, (0.1,) * 4
    least = (-math.pi, -math.pi, -MAX_SPIN_1, -MAX_SPIN_2)
    most = (math.pi, math.pi, MAX_SPIN_1, MAX_SPIN_2)
