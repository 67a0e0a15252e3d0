"""Safety-Gymnasium: its steps give six things, the cost of the harm done beside the reward.

Written against the documented interface (`safety_gymnasium.make`, a `gymnasium.Env` but for the cost); it does not install beside a
Gymnasium of today, so this has been run against a stand-in only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from whorl.envs.adapters import foreign
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.adapters.infos import of_step
from whorl.envs.env import Env, Step
from whorl.errors import EnvError


class SafetyGymnasium(Gymnasium):
    """N of them; the cost of a step is in `cost` [N] and in its info."""

    origin = "safety_gymnasium"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.cost = np.zeros(self.num_envs, np.float32)

    def step(self, action: Any, rows: np.ndarray | None = None) -> Step:
        """As `Env.step`; the cost is in `cost` [N]."""
        step = super().step(action, rows)
        self.cost = of_step(step.info, "cost", (self.num_envs,))
        return step


class Apart(gymnasium.Wrapper):
    """Puts the cost into info, and gives Gymnasium's five things."""

    def step(self, action: Any) -> Any:
        result: Any = self.env.step(action)
        if not isinstance(result, tuple) or len(result) != 6:
            came = f"{len(result)} things" if isinstance(result, tuple) else type(result).__name__
            raise EnvError(
                f"{self}: step must give (observation, reward, cost, terminated, truncated, info), got {came}"
            )
        observation, reward, cost, terminated, truncated, info = result
        return observation, reward, terminated, truncated, {**info, "cost": float(cost)}


def one(name: str, **options: Any) -> gymnasium.Env:
    """A single environment."""
    import safety_gymnasium

    return Apart(safety_gymnasium.make(name, **options))


def make(
    id: str, num_envs: int, seed: int, device: str, prefer: str, wrappers: tuple[Callable, ...], options: dict[str, Any]
) -> Env:
    """For `make_env`: the id is "safety_gymnasium/SafetyPointGoal1-v0"."""
    return foreign.make(SafetyGymnasium, one, id, num_envs, seed, device, prefer, wrappers, options)
