"""Many cases in one test: cheaper than a test for each, and a failure says which it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def each(cases: Iterable[T]) -> Iterator[T]:
    """The cases in turn, each printed first: what a failing test printed last is its case."""
    for case in cases:
        print(f"case: {ascii(case)[:300]}")
        yield case
