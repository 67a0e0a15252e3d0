"""How an agent wants its data: one small dataclass per way. `training/build.py` makes the buffer and the collector from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from whorl.errors import BadInput


@dataclass(frozen=True)
class Rollouts:
    """On-policy: every rollout is used for some epochs of shuffled minibatches, then dropped."""

    steps: int = 128  # rows of time a rollout has [env steps per environment]; unit "episode": at least this many
    epochs: int = 1  # passes over each rollout
    minibatches: int = 1  # pieces an epoch is cut into
    unit: Literal["step", "episode"] = (
        "step"  # "episode": a rollout begins and ends with whole episodes in every environment
    )

    def check(self, num_envs: int) -> None:
        """Raises BadInput for sizes that cannot work with `num_envs` environments."""
        if self.unit not in ("step", "episode"):
            raise BadInput(f"feed.unit must be 'step' or 'episode', got {self.unit!r}")
        for name in ("steps", "epochs", "minibatches"):
            if getattr(self, name) < 1:
                raise BadInput(f"feed.{name} must be at least 1, got {getattr(self, name)}")
        rows = self.steps * num_envs
        if self.minibatches > rows:
            raise BadInput(
                f"feed.minibatches = {self.minibatches} is more than the rollout's {rows} rows "
                f"({self.steps} steps x {num_envs} environments): a minibatch would be empty. Use fewer minibatches or more steps"
            )


@dataclass(frozen=True)
class Stream:
    """Online: every step is learned from once, in order, as soon as it is taken (rollouts of T = 1)."""

    unit: ClassVar[str] = "step"
    steps: ClassVar[int] = 1

    def check(self, num_envs: int) -> None:
        """Any number of environments will do: their steps are learned from one after the other."""
