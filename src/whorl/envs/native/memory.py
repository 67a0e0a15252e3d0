"""Worlds that nobody solves without remembering: a corridor, a game of repeating, poles whose speed is not shown."""

from __future__ import annotations

import math

import numpy as np
from gymnasium import spaces
from numba.extending import register_jitable

from whorl.envs.native import cartpole, pendulum
from whorl.envs.native.world import World, picture

LENGTH = 20  # cells of the corridor
SUITS, BACK, DECK = 4, 4, 52  # cards: kinds, steps that an answer lies behind, steps of an episode
FORWARD, UP, DOWN = 0, 1, 2


@register_jitable
def walk(state: np.ndarray, action: int, chance: float) -> tuple[float, bool]:
    """state: cue in [-1, 1), whose sign says where to turn; cell."""
    at_end = state[1] == LENGTH
    if action == FORWARD and not at_end:
        state[1] += 1.0
        return 0.0, False
    if action == FORWARD or not at_end:
        return -0.1, False
    return (1.0 if (action == UP) == (state[0] >= 0.0) else -1.0), True


@register_jitable
def look(state: np.ndarray, out: np.ndarray) -> None:
    first = state[1] == 0.0
    out[0] = (1.0 if state[0] >= 0.0 else -1.0) if first else 0.0
    out[1] = 1.0 if state[1] == LENGTH else 0.0
    out[2] = 1.0 if first else 0.0


class TMaze(World):
    """TMaze20-v0. Observation: a cue of -1 or 1 at the first cell only, whether this is the junction, whether this is the first cell.
    Actions: 0 forward, 1 up, 2 down. After 20 cells, up is right for a cue of 1 and down for -1: reward 1, else -1, and the episode
    ends. Bumping into a wall costs 0.1. Source: Bakker 2002, "Reinforcement Learning with Long Short-Term Memory"."""

    id = "TMaze20-v0"
    max_episode_steps = 60
    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(3)
    dynamics, observe = staticmethod(walk), staticmethod(look)
    low, high = (-1.0, 0.0), (1.0, 0.0)
    least, most = (-1.0, 0.0), (1.0, float(LENGTH))


@register_jitable
def deal(state: np.ndarray, action: int, chance: float) -> tuple[float, bool]:
    """state: steps so far, the card that is shown, and those of the BACK steps before it, the newest first."""
    reward = 1.0 / (DECK - BACK) if state[0] >= BACK and action == int(state[1 + BACK]) else 0.0
    for k in range(BACK, 0, -1):
        state[1 + k] = state[k]
    state[1] = np.floor(chance * SUITS)
    state[0] += 1.0
    return reward, state[0] >= DECK


@register_jitable
def card(state: np.ndarray, out: np.ndarray) -> None:
    for k in range(SUITS):
        out[k] = 1.0 if int(state[1]) == k else 0.0


class RepeatPrevious(World):
    """RepeatPrevious-v0. Observation: the suit of a card, one-hot [4]. Action: the suit that was shown 4 steps ago; each right answer
    counts 1/48, and an episode has 52 steps. Source: POPGym, Morad et al. 2023."""

    id = "RepeatPrevious-v0"
    observation_space = spaces.Box(0, 1, (SUITS,), np.float32)
    action_space = spaces.Discrete(SUITS)
    dynamics, observe = staticmethod(deal), staticmethod(card)
    low, high = (0.0,) * (2 + BACK), (0.0, float(SUITS)) + (0.0,) * BACK
    least, most = (0.0,) * (2 + BACK), (float(DECK),) + (float(SUITS),) * (1 + BACK)


@register_jitable
def balance(state: np.ndarray, action: int, chance: float) -> tuple[float, bool]:
    return cartpole.dynamics(state, action, chance)


@register_jitable
def places(state: np.ndarray, out: np.ndarray) -> None:
    out[0], out[1] = state[0], state[2]


class CartPoleP(cartpole.CartPole):
    """CartPoleP-v1: CartPole-v1 that shows position and angle, and no velocities."""

    id = "CartPoleP-v1"
    observation_space = spaces.Box(
        cartpole.CartPole.observation_space.low[::2], cartpole.CartPole.observation_space.high[::2]
    )
    dynamics, observe = staticmethod(balance), staticmethod(places)

    def draw(self, state: np.ndarray) -> np.ndarray:
        return picture(cartpole.CartPole.id, state)


@register_jitable
def swing(state: np.ndarray, action: np.ndarray, chance: float) -> tuple[float, bool]:
    return pendulum.dynamics(state, action, chance)


@register_jitable
def angle(state: np.ndarray, out: np.ndarray) -> None:
    out[0], out[1] = math.cos(state[0]), math.sin(state[0])


class PendulumP(pendulum.Pendulum):
    """PendulumP-v1: Pendulum-v1 that shows cosine and sine, and no speed."""

    id = "PendulumP-v1"
    observation_space = spaces.Box(-1, 1, (2,))
    dynamics, observe = staticmethod(swing), staticmethod(angle)

    def draw(self, state: np.ndarray) -> np.ndarray:
        return picture(pendulum.Pendulum.id, state)
