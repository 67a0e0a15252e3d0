"""The 19-state random walk (Sutton and Barto 2018, example 7.1): a world to predict, not to control."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from numba.extending import register_jitable

from whorl.envs.native.world import World

STATES = 19


@register_jitable
def dynamics(state: np.ndarray, action: int, chance: float) -> tuple[float, bool]:
    cell = state[0] + (1.0 if chance < 0.5 else -1.0)
    if cell < 0 or cell >= STATES:  # the walk is over; the successor shown is the edge it fell from
        return (-1.0 if cell < 0 else 1.0), True
    state[0] = cell
    return 0.0, False


@register_jitable
def observe(state: np.ndarray, out: np.ndarray) -> None:
    out[0] = int(state[0])


class RandomWalk(World):
    """RandomWalk-v0. Starts in the middle, moves left or right with equal chance whatever the (one) action; reward -1
    off the left end, +1 off the right end. `values` [19]: the true undiscounted values, from -0.9 to 0.9."""

    id = "RandomWalk-v0"
    observation_space = spaces.Discrete(STATES)
    action_space = spaces.Discrete(1)
    dynamics, observe = staticmethod(dynamics), staticmethod(observe)
    low = high = ((STATES - 1) / 2,)
    least, most = (0,), (STATES - 1,)
    values = np.linspace(-0.9, 0.9, STATES)
