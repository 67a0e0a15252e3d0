"""Cliff walking (Sutton and Barto 2018, example 6.6), equal to Gymnasium's CliffWalking-v1 (not slippery)."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces
from numba.extending import register_jitable

from whorl.envs.native.grid_world import observe, painted
from whorl.envs.native.world import World

ROWS, COLUMNS = 4, 12
START, GOAL = 36, 47
_COLOURS = np.full((ROWS, COLUMNS, 3), 230, np.uint8)
_COLOURS[3, 1:11] = (60, 50, 45)
_COLOURS[3, 11] = (90, 190, 90)


@register_jitable
def dynamics(state: np.ndarray, action: int, chance: float) -> tuple[float, bool]:
    row, column = int(state[0]) // COLUMNS, int(state[0]) % COLUMNS
    row = min(max(row + (action == 2) - (action == 0), 0), ROWS - 1)
    column = min(max(column + (action == 1) - (action == 3), 0), COLUMNS - 1)
    fell = row == ROWS - 1 and 0 < column < COLUMNS - 1
    state[0] = START if fell else row * COLUMNS + column
    return (-100.0 if fell else -1.0), state[0] == GOAL


class CliffWalking(World):
    """CliffWalking-v1: 4 x 12 cells, counted row by row. Actions: 0 up, 1 right, 2 down, 3 left. Reward -1 a step, -100
    into the cliff and back to the start. Ends at the goal only: there is no time limit."""

    id = "CliffWalking-v1"
    observation_space = spaces.Discrete(ROWS * COLUMNS)
    action_space = spaces.Discrete(4)
    dynamics, observe = staticmethod(dynamics), staticmethod(observe)
    low = high = (START,)
    least, most = (0,), (GOAL,)

    def draw(self, state: np.ndarray) -> np.ndarray:
        return painted(_COLOURS, state[0])
