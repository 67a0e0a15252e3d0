"""What somebody recorded, with the spaces it is of: all that a run needs that learns without an environment."""

from __future__ import annotations

from dataclasses import dataclass

from gymnasium import spaces

from whorl.batch import Batch, check
from whorl.errors import BadInput

NEEDED = ("observation", "action", "next.observation", "next.reward", "next.terminated", "next.truncated")


@dataclass(frozen=True)
class Dataset:
    """Rows [T, L] in order of time, one lane for each environment they came from; `env`: the id of that environment, if it is known.

    Raises BadInput for rows that are not [T, L] or hold nothing, BatchError naming a key that is missing.
    """

    rows: Batch
    observation_space: spaces.Space
    action_space: spaces.Space
    env: str = ""

    def __post_init__(self) -> None:
        if len(self.rows.batch_size) != 2 or 0 in self.rows.batch_size:
            raise BadInput(f"a dataset holds rows [T, L], at least one; {list(self.rows.batch_size)} came")
        check(self.rows, *NEEDED)
