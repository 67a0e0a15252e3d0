"""MO-Gymnasium: Gymnasium environments that pay a vector of rewards."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from whorl.envs.adapters import registered
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.adapters.infos import of_step
from whorl.envs.env import Env, Step
from whorl.errors import EnvError

ENTRY = "reward_vector"


class MoGymnasium(Gymnasium):
    """N of them. The K rewards of a step are in `reward_vector` [N, K] and in its info; the reward is 0 until a transform makes one number
    of them."""

    origin = "mo_gymnasium"
    scalar_reward = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._shape = (self.num_envs, *self.own_attribute("reward_space").shape)
        self.reward_vector = np.zeros(self._shape, np.float32)

    def step(self, action: Any, rows: np.ndarray | None = None) -> Step:
        """As `Env.step`; the rewards are in `reward_vector` and in `info["reward_vector"]`, both [N, K]."""
        step = super().step(action, rows)
        self.reward_vector = of_step(step.info, ENTRY, self._shape)
        said: Any = step.info
        return step._replace(info=ChainMap({ENTRY: self.reward_vector}, said))


class Apart(gymnasium.Wrapper):
    """Puts the vector of rewards into info, and pays 0."""

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        vector = np.asarray(reward, np.float32)
        wanted = self.unwrapped.reward_space.shape  # type: ignore[attr-defined]
        if vector.shape != wanted:
            raise EnvError(f"{self}: step must give rewards of shape {wanted}, got {vector.shape}")
        return observation, 0.0, terminated, truncated, {**info, ENTRY: vector}


def make(
    id: str, num_envs: int, seed: int, device: str, prefer: str, wrappers: tuple[Callable, ...], options: dict[str, Any]
) -> Env:
    """For `make_env`."""
    return registered.make(id, num_envs, seed, device, prefer, (Apart, *wrappers), options, MoGymnasium)
