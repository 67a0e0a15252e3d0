"""How an agent wants its data: one small dataclass per way. `training/build.py` makes the buffer and the collector from it."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
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


@dataclass(frozen=True)
class Replay:
    """Off-policy: rows are kept in a ring and drawn many times."""

    batch_size: int = 256  # rows of one gradient update
    capacity: int = 1_000_000  # rows that are kept; the oldest goes first
    replay_ratio: float = 1.0  # gradient updates per environment step (Fedus et al. 2020); rlpyt's ratio / batch_size
    warmup: int = 1_000  # environment steps before the first update
    steps: int = 1  # rows of time collected between two rounds of updates [env steps per environment]
    n_step: int = 1  # rewards summed before bootstrapping
    prioritized: bool = False  # draw rows in proportion to priority**alpha (Schaul et al. 2016)
    alpha: float = 0.6  # 0 = uniform
    beta: float = 0.4  # exponent of the importance weights at the start, 1 = full correction
    beta_steps: int = 0  # environment steps over which beta rises linearly to 1; 0 = it stays
    storage: Literal["memory", "memmap", "frames"] = "memory"  # memmap: on disk; frames: each image once
    relabel: Literal["none", "future", "final", "episode", "random"] = (
        "none"  # hindsight goals (Andrychowicz et al. 2017)
    )
    relabel_fraction: float = 0.8  # of the rows that get another goal
    prefetch: int = 0  # batches drawn ahead by a thread, of those that are due
    unit: ClassVar[str] = "step"

    def check(self, num_envs: int) -> None:
        """Raises BadInput for sizes that cannot work with `num_envs` environments."""
        for name, least in (("batch_size", 1), ("steps", 1), ("n_step", 1), ("warmup", 0), ("prefetch", 0)):
            if getattr(self, name) < least:
                raise BadInput(f"feed.{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("alpha", "beta", "relabel_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadInput(f"feed.{name} must lie in [0, 1], got {getattr(self, name)}")
        if not 1e-6 <= self.replay_ratio < inf:
            raise BadInput(
                f"feed.replay_ratio must be at least 1e-6, got {self.replay_ratio} (gradient updates per environment step)"
            )
        if self.beta_steps < 0:
            raise BadInput(f"feed.beta_steps must be at least 0, got {self.beta_steps}")
        rows = self.capacity // num_envs  # of each environment
        for name in ("n_step", "steps"):
            if getattr(self, name) > rows:
                raise BadInput(
                    f"feed.{name} = {getattr(self, name)} is longer than the {rows} rows that each of {num_envs} environments has in the "
                    f"buffer (feed.capacity = {self.capacity}): use a larger capacity"
                )
        unused = [("relabel_fraction", "relabel")] if self.relabel == "none" else []
        unused += [] if self.prioritized else [(name, "prioritized") for name in ("alpha", "beta", "beta_steps")]
        for name, needs in unused:
            if getattr(self, name) != getattr(Replay, name):
                raise BadInput(
                    f"feed.{name} = {getattr(self, name)} does nothing without feed.{needs}: set that, or leave it out"
                )
        if self.prefetch and self.replay_ratio * self.steps * num_envs <= 1:
            raise BadInput(
                f"feed.prefetch = {self.prefetch} draws ahead of the batches that are due at once, and there is never more than one "
                "(replay_ratio x steps x environments): leave it out"
            )
        if self.warmup > self.capacity:
            raise BadInput(
                f"feed.warmup = {self.warmup} is more than feed.capacity = {self.capacity}: rows would be dropped before they are used"
            )
        if self.relabel != "none" and self.n_step > 1:
            raise BadInput(
                f"feed.relabel changes the goal of one row, but feed.n_step = {self.n_step} sums rewards of several: use n_step = 1"
            )
