"""Functions compiled by numba, and the one place that decides where their machine code is kept. Slow to import, as numba is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import numba

logger = logging.getLogger("whorl")


def jit(function: Callable | None = None, **options: Any) -> Any:
    """numba.njit, with its cache on disk: in NUMBA_CACHE_DIR, beside the source, or in the user's own cache.

    Where none of them can be written every process compiles anew, and the first function says so. Plain, or with options of numba's:
    `@jit`, `@jit(nogil=True)`.
    """
    if function is None:
        return lambda function: jit(function, **options)
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError as error:
        if "no locator" not in str(error):
            raise
        _say_once()
        return numba.njit(**options)(function)


@cache
def _say_once() -> None:
    logger.warning(
        "numba finds no folder where it may keep what it compiles, so every process compiles anew, which takes seconds: "
        "set the environment variable NUMBA_CACHE_DIR to a folder that may be written"
    )
