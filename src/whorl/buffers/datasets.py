"""What somebody recorded, with the spaces it is of: all that a run needs that learns without an environment."""

from __future__ import annotations

from dataclasses import dataclass

from gymnasium import spaces
from torch import Tensor

from whorl.batch import VOCABULARY, Batch, Tree, check, get, names
from whorl.errors import BadInput
from whorl.spaces import zeros

NEEDED = ("observation", "action", "next.observation", "next.reward", "next.terminated", "next.truncated")
OURS = ("index", "weight", "relabelled", "priority")  # written by a buffer, when it draws


@dataclass(frozen=True)
class Dataset:
    """Rows [T, L] in order of time, one lane for each environment they came from; `env`: the id of that environment, if it is known.

    Raises BadInput for rows that are not [T, L], hold nothing, fit other spaces, hold what a buffer writes, or are not finite; BatchError
    naming a key that is missing or of another shape or dtype than the vocabulary says.
    """

    rows: Batch
    observation_space: spaces.Space
    action_space: spaces.Space
    env: str = ""

    def __post_init__(self) -> None:
        if not hasattr(self.rows, "batch_size") or len(self.rows.batch_size) != 2 or 0 in self.rows.batch_size:
            raise BadInput(
                f"a dataset holds rows [T, L], at least one; {type(self.rows).__name__} {_shape(self.rows)} came"
            )
        there = names(self.rows)
        if ours := [name for name in OURS if name in there]:
            raise BadInput(f"{', '.join(ours)} is written by the buffer that draws: leave it out of a dataset")
        check(self.rows, *NEEDED, *(name for name in there if name in VOCABULARY and name not in NEEDED))
        shape = tuple(self.rows.batch_size)
        for key, space in (("observation", self.observation_space), ("action", self.action_space)):
            _fit(key, self.rows[key], zeros(space, shape))
        _fit("next.observation", self.rows["next"]["observation"], zeros(self.observation_space, shape))
        if isinstance(self.action_space, spaces.Discrete):
            low, high = int(self.rows["action"].min()), int(self.rows["action"].max())
            if low < 0 or high >= self.action_space.n:
                raise BadInput(f"actions count from 0 to {int(self.action_space.n) - 1}, {low} to {high} came")
        for name in there:
            value = get(self.rows, name)
            if value.is_floating_point() and not value.isfinite().all():
                t, lane = (~value.isfinite()).nonzero()[0, :2].tolist()
                raise BadInput(f"{name} of row {t}, lane {lane} is not finite: leave the row out, or mend it")


def _shape(rows: object) -> list[int]:
    return list(getattr(rows, "batch_size", []))


def _fit(key: str, value: Tree, wanted: Tree) -> None:
    """Raises BadInput unless a value has the shapes and dtypes of its space."""
    if isinstance(wanted, dict):
        for name, inner in wanted.items():
            if isinstance(value, Tensor) or name not in list(value.keys()):
                raise BadInput(f"{key} lacks {name!r}, which its space has")
            _fit(f"{key}.{name}", value[name], inner)
        return
    came, expected = (value.dtype, list(value.shape)), (wanted.dtype, list(wanted.shape))  # type: ignore[union-attr]
    if came != expected:
        raise BadInput(f"{key} is {came[0]} {came[1]}, its space wants {expected[0]} {expected[1]}")
