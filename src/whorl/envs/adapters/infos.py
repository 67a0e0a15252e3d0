"""The infos of N environments, in Gymnasium's vector form, put together when somebody asks for one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


class Infos(Mapping[str, Any]):
    """`infos[key]` is an array [N] (or [N, ...]) of what each environment said, `infos["_key"]` a bool [N] of which said it.

    Values of unequal types or shapes, and those that are no numbers, stand in an array of objects, None where nothing was said; nested
    dicts are `Infos` again. Nobody pays for what nobody reads.
    """

    def __init__(self, num_envs: int) -> None:
        self._num_envs = num_envs
        self._said: dict[str, dict[int, Any]] = {}  # key -> {environment: value}

    def add(self, row: int, info: Mapping[str, Any]) -> None:
        """What environment `row` said. What it says later of the same key counts."""
        for key, value in info.items():
            self._said.setdefault(key, {})[row] = value

    def __getitem__(self, key: str) -> Any:
        if key in self._said:
            return self._together(key, self._said[key])
        if not key.startswith("_") or key[1:] not in self._said:
            raise KeyError(key)
        said = np.zeros(self._num_envs, bool)
        said[list(self._said[key[1:]])] = True
        return said

    def __contains__(self, key: object) -> bool:  # asked at each step
        return key in self._said or (isinstance(key, str) and key.startswith("_") and key[1:] in self._said)

    def _together(self, key: str, values: dict[int, Any]) -> Any:
        kinds = {isinstance(value, Mapping) + 2 * isinstance(value, NUMBERS) for value in values.values()}
        if kinds == {1} and key != "final_obs":  # which Gymnasium keeps row by row
            inner = Infos(self._num_envs)
            for row, value in values.items():
                inner.add(row, value)
            return inner
        arrays = (
            {row: np.asarray(value) for row, value in values.items()} if kinds == {2} and key != "final_obs" else {}
        )
        if len({array.shape for array in arrays.values()}) == 1:
            shape = next(iter(arrays.values())).shape
            together = np.zeros((self._num_envs, *shape), np.result_type(*arrays.values()))
        else:
            together = np.full(self._num_envs, None, object)
        for row, value in values.items():
            together[row] = value
        return together

    def __iter__(self) -> Iterator[str]:
        for key in self._said:
            yield key
            yield f"_{key}"

    def __len__(self) -> int:
        return 2 * len(self._said)


NUMBERS = (bool, int, float, np.generic, np.ndarray)


def of_step(info: Mapping[str, Any], key: str, shape: tuple[int, ...]) -> np.ndarray:
    """What environments said of the step itself under `key`, float32 of `shape` [N, ...]: where an episode ended, it stands in
    `info["final_info"]`. Zeros where they said nothing."""
    result = np.zeros(shape, np.float32)
    for said in (info, info.get("final_info", {})):
        if key in said:
            rows = said[f"_{key}"]
            result[rows] = said[key][rows]
    return result
