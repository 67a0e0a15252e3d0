"""Observations as nested dicts of arrays: copies of them, and rows of a batch taken out, put in and looked at one by one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


def copied(observation: Any) -> Any:
    """A copy of one observation, nested in dicts and tuples."""
    if isinstance(observation, dict):
        return {key: copied(value) for key, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(copied(value) for value in observation)
    return observation.copy() if isinstance(observation, np.ndarray) else observation


def leaves(tree: Any) -> Iterator[Any]:
    """The arrays of nested dicts."""
    if isinstance(tree, dict):
        for inner in tree.values():
            yield from leaves(inner)
    else:
        yield tree


def rows_of(tree: Any, rows: np.ndarray) -> Any:
    """Those rows of every array, nested in dicts and tuples."""
    if isinstance(tree, dict):
        return {key: rows_of(value, rows) for key, value in tree.items()}
    return tuple(rows_of(value, rows) for value in tree) if isinstance(tree, tuple) else tree[rows]


def replaced(tree: Any, rows: np.ndarray, source: Any) -> Any:
    """A copy of `tree` whose `rows` are those of `source`."""
    if isinstance(tree, dict):
        return {key: replaced(value, rows, source[key]) for key, value in tree.items()}
    copy = tree.copy()
    copy[rows] = source
    return copy
