"""Action masks of N Gymnasium environments.

The mask is the observation entry "action_mask" (taken out; one remaining entry stands alone, without its Dict), else
`info["action_mask"]`. Both are read only where actions have discrete parts. A row that gave no mask at the reset allows all, and gives
none later.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from whorl.envs.adapters.spaces import Convert, discrete_sizes, observations
from whorl.envs.adapters.together import of_row

ENTRY = "action_mask"


class Masks:
    """Reads them. name: of the environments, for messages. action_space: whorl's of ONE; observed: the engine's own space of ONE."""

    def __init__(self, name: str, num_envs: int, action_space: spaces.Space, observed: spaces.Space) -> None:
        self._name, self._num_envs, self._action_space = name, num_envs, action_space
        self._sizes = discrete_sizes(action_space)
        self._observed = observed
        self._entry = self._sizes is not None and isinstance(observed, spaces.Dict) and ENTRY in observed.spaces
        self._gives: np.ndarray | None = None  # [N] rows whose info holds a mask; None: not asked yet

    def observations(self) -> tuple[spaces.Space, Convert]:
        """What whorl sees beside the mask, as `observations` in adapters/spaces.py."""
        if not self._entry:
            return observations(self._observed)
        assert isinstance(self._observed, spaces.Dict)
        others = {key: space for key, space in self._observed.spaces.items() if key != ENTRY}
        if len(others) != 1:
            return observations(spaces.Dict(list(others.items())))
        ((key, only),) = others.items()
        space, convert = observations(only, f"the observation entry {key!r}")
        return space, lambda raw: convert(raw[key])

    def begin(self) -> None:
        """All environments were reset: which of them give masks is seen anew."""
        self._gives = None

    def observed(self, raw: Any) -> np.ndarray | None:
        """[N, A] of a batch of the engine's observations, any N; None where they hold none."""
        return self._mask(raw[ENTRY]) if self._entry else None

    def read(self, raw: Any, info: Any, rows: Any = slice(None)) -> np.ndarray | None:
        """[N, A] bool; None where no row gave one. rows: those that were asked, the others mean nothing."""
        if self._sizes is None:
            return None
        if self._entry:
            return self._mask(raw[ENTRY])
        there = ENTRY in info
        if self._gives is None or there or self._gives.any():
            self._check_gives(info.get(f"_{ENTRY}", np.full(self._num_envs, there)), rows)
        return self._mask(info[ENTRY], info.get(f"_{ENTRY}")) if there else None

    def _check_gives(self, gives: np.ndarray, rows: Any) -> None:
        """An environment whose info holds an action mask has one there after each reset and step, and another never."""
        if self._gives is None:
            self._gives = np.array(gives, bool)
        changed = np.flatnonzero((self._gives != gives)[rows])
        if len(changed):
            row = int(np.arange(self._num_envs)[rows][changed[0]])
            change = "has gone from info" if self._gives[row] else "has come into info, where reset gave none"
            what = f"the action mask {change}: give one after every reset and every step, or never"
            raise of_row(row, f"{self._name}: environment {row}: {what}")

    def _mask(self, given: Any, present: Any = None) -> np.ndarray:
        """[N, A] bool from one array, a tuple of arrays (one per component) or an object array of either."""
        size, n = sum(self._sizes or ()), len(given[0] if isinstance(given, tuple) else given)
        rows = np.arange(n) if present is None else np.flatnonzero(present)
        if isinstance(given, tuple):
            given = np.concatenate([np.reshape(part, (n, -1)) for part in given], -1)
        given = np.asarray(given)[rows]
        if given.dtype != object and given.size == len(rows) * size and ((given == 0) | (given == 1)).all():
            mask = np.ones((n, size), bool)
            mask[rows] = given.reshape(-1, size)
            return mask
        return self._mask_by_rows(given, rows, n, size)

    def _mask_by_rows(self, given: np.ndarray, rows: np.ndarray, n: int, size: int) -> np.ndarray:
        """The same, one row after another: of what does not lie in one array, or is wrong."""
        mask = np.ones((n, size), bool)
        for row, own in zip(rows.tolist(), given, strict=True):
            parts = own if isinstance(own, tuple | list) else [own]
            flat = np.concatenate([np.ravel(part) for part in parts])
            what = f"{self._name}: environment {row}: an action mask for {self._action_space}"
            if flat.size != size:
                raise of_row(row, f"{what} has {size} entries, got {flat.size}")
            wrong = [entry for entry in flat.tolist() if entry not in (0, 1)]
            if wrong:
                raise of_row(row, f"{what} is made of 0 and 1, got {wrong[0]!r}")
            mask[row] = flat.astype(bool)
        return mask


def merged(mask: Any, fresh: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    """A mask [N, A] whose `rows` (bool [N]) are those of `fresh`; None in it: those rows give none, and allow what they did."""
    if mask is None or fresh is None:
        return fresh if mask is None else mask
    return np.where(rows[:, None], fresh, mask)
