"""Transforms of when episodes begin and end."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from whorl.errors import BadInput
from whorl.transforms.transform import Array, Observation, Result, Transform, zeros


class TimeLimit(Transform):
    """Truncates episodes after `steps` steps.

    `truncated` is set on a step that terminates, too, as native worlds and Gymnasium do.

    Gymnasium: TimeLimit; TorchRL: StepCounter(max_steps).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"restart"})

    def __init__(self, steps: int) -> None:
        super().__init__()
        if steps < 1:
            raise BadInput(f"TimeLimit needs at least 1 step, got {steps}")
        self.steps = steps

    def begin(self, n: int, device: str) -> None:
        self.memory = {"taken": zeros((n,), np.int64, device)}

    def step(self, result: Result) -> Result:
        taken = self.memory["taken"]
        taken += 1
        over = taken >= self.steps
        return result._replace(truncated=result.truncated | over)

    def reset(self, observation: Observation, rows: Array) -> Observation:
        self.memory["taken"][rows] = 0
        return observation

    def episode_steps(self, most: int | None) -> int | None:
        return self.steps if most is None else min(most, self.steps)
