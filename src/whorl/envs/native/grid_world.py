"""A small grid with walls, whose action mask says which moves lead somewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numba.extending import register_jitable

from whorl.envs.env import Observation, Step
from whorl.envs.native.world import World

MAP = ("S....", ".##..", "...#.", ".#...", "...#G")
SIZE = len(MAP)
START, GOAL = 0, SIZE * SIZE - 1
WALL = np.array([[mark == "#" for mark in row] for row in MAP])
_COLOURS = np.where(WALL[..., None], 60, np.full(3, 230)).astype(np.uint8)
_COLOURS[-1, -1] = (90, 190, 90)


@register_jitable
def moved(cell: int, action: int) -> int:
    """The cell one step up, right, down or left; the same one where a wall or the border is in the way."""
    row, column = cell // SIZE, cell % SIZE
    row, column = row + (action == 2) - (action == 0), column + (action == 1) - (action == 3)
    if not (0 <= row < SIZE and 0 <= column < SIZE) or WALL[row, column]:
        return cell
    return row * SIZE + column


@register_jitable
def dynamics(state: np.ndarray, action: int, chance: float) -> tuple[float, bool]:
    state[0] = moved(int(state[0]), action)
    terminated = state[0] == GOAL
    return (1.0 if terminated else -0.04), terminated


@register_jitable
def observe(state: np.ndarray, out: np.ndarray) -> None:
    out[0] = int(state[0])


ALLOWED = np.array([[moved(cell, action) != cell for action in range(4)] for cell in range(SIZE * SIZE)])  # [cells, 4]


class GridWorld(World):
    """GridWorld-v0: 5 x 5 cells, counted row by row, corner to corner. Actions: 0 up, 1 right, 2 down, 3 left. Reward 1
    at the goal, -0.04 for every other step; the best return is 0.72 (8 steps).

    `action_mask` [N, 4] bool: moves that are not blocked, where each environment stands now. A blocked move stays put.
    """

    id = "GridWorld-v0"
    max_episode_steps = 100
    reward_threshold = 0.7
    observation_space = spaces.Discrete(SIZE * SIZE)
    action_space = spaces.Discrete(4)
    dynamics, observe = staticmethod(dynamics), staticmethod(observe)
    low = high = (START,)
    least, most = (0,), (GOAL,)

    def __init__(self, num_envs: int = 1, seed: int = 0, max_episode_steps: int | None = None):
        super().__init__(num_envs, seed, max_episode_steps)
        self.action_mask = self._mask = ALLOWED[np.full(num_envs, START)]

    def _masked(self, observation: Any) -> Any:
        ALLOWED.take(observation, 0, self._mask, mode="clip")
        return observation

    def reset(self, seed: int | None = None) -> Observation:
        return self._masked(super().reset(seed))

    def restart(self, rows: np.ndarray) -> Observation:
        return self._masked(super().restart(rows))

    def step(self, action: Any, rows: np.ndarray | None = None) -> Step:
        step = super().step(action, rows)
        self._masked(step.observation)
        return step

    def load_state(self, state: dict[str, np.ndarray]) -> Observation:
        return self._masked(super().load_state(state))

    def draw(self, state: np.ndarray) -> np.ndarray:
        return painted(_COLOURS, state[0])


def painted(colours: np.ndarray, cell: float, scale: int = 24) -> np.ndarray:
    """A grid of colours [rows, columns, 3] as a picture, `scale` pixels a cell, with the walker drawn into its cell."""
    image = colours.repeat(scale, 0).repeat(scale, 1)
    image[::scale] = image[:, ::scale] = 200
    row, column = divmod(int(cell), colours.shape[1])
    edge = scale // 4
    image[row * scale + edge : (row + 1) * scale - edge, column * scale + edge : (column + 1) * scale - edge] = (
        40,
        90,
        200,
    )
    return image
