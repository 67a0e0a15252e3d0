"""Tuned settings per (agent, environment): typed Python, one file per agent, each value set with its source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from whorl.feeds import Fed

if TYPE_CHECKING:
    from whorl.transforms.chain import Spec


@dataclass(frozen=True)
class Preset:
    config: Fed  # the agent's Config
    num_envs: int = 8
    total_steps: int = 100_000  # environment steps
    source: str = "defaults of the agent"
    transforms: tuple[Spec, ...] = ()  # between environments and agent, the innermost first
