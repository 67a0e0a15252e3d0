"""Functions compiled by numba, and the one place that decides where their machine code is kept. Slow to import, as numba is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numba
from numba.core.caching import FunctionCache

logger = logging.getLogger("whorl")

# `fastmath` of kernels whose sums may be taken in any order; never "nnan" or "ninf": what is not finite must be seen
FAST = {"contract", "arcp", "nsz", "reassoc"}


def jit(function: Callable | None = None, **options: Any) -> Any:
    """numba.njit, with its cache on disk: in NUMBA_CACHE_DIR, beside the source, or in the user's own cache.

    Where none of them can be written, or the disk is full, every process compiles anew, and the first function says so. Plain, or with
    options of numba's: `@jit`, `@jit(nogil=True)`.
    """
    if function is None:
        return lambda function: jit(function, **options)
    compiled = numba.njit(**options)(function)
    try:
        compiled._cache = _Kept(function)  # numba's own `cache=True` sets the class that this one is made of
    except RuntimeError as error:
        if "no locator" not in str(error):
            raise
        _say_once("numba finds no folder where it may keep what it compiles")
    return compiled


class _Kept(FunctionCache):
    """The machine code of a function on disk; what cannot be written is not kept, and what is damaged is compiled anew."""

    def load_overload(self, *what: Any) -> Any:
        try:
            return super().load_overload(*what)
        except Exception as error:  # half a file is half a pickle, which raises anything
            logger.warning("what numba kept in %s is damaged (%s): it is compiled anew", self.cache_path, error)
        try:
            self.flush()
        except OSError:
            self.disable()
        return None

    def save_overload(self, *what: Any) -> None:
        try:
            super().save_overload(*what)
        except OSError as error:
            _say_once(f"numba cannot keep what it compiles in {self.cache_path} ({error.strerror})")


_said: list[str] = []


def _say_once(why: str) -> None:
    if _said:
        return
    _said.append(why)
    logger.warning(
        "%s, so every process compiles anew, which takes seconds: set the environment variable NUMBA_CACHE_DIR to a folder that may "
        "be written",
        why,
    )
