"""The seeds that tests draw their own data from: WHORL_TEST_SEED (0) moves all of them at once (`make test-portable`)."""

from __future__ import annotations

import os

DATA = int(os.environ.get("WHORL_TEST_SEED", "0"))


def seed(number: int = 0) -> int:
    """`number` itself by default, and another far from every other `number` for each other WHORL_TEST_SEED."""
    return number + 1_000_003 * DATA
