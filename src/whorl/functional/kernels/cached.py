"""Compiled functions whose cache on disk knows what they were made of."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from zlib import crc32

from numba import typeof

from whorl.jit import jit


def cached(*parts: ModuleType | str, **more: Any) -> Callable[[Callable], Callable]:
    """numba.njit with its cache on disk, for a function that inlines others from the modules `parts` (or files of such names).

    numba looks at the file of the function itself only: without the fingerprint in its name a change in another file would go on
    running the old machine code. Such a function must not allocate: it is compiled without counting references to its arrays, which
    cost more than half of the time of a loop that does little else. more: options of numba's.
    """

    def compile(function: Callable) -> Callable:
        files = [Path(part if isinstance(part, str) else part.__file__ or "") for part in parts]
        source = crc32(b"".join(file.read_bytes() for file in files))
        function.__qualname__ = f"{function.__qualname__}_{source:08x}"
        options: Any = {"error_model": "numpy", "_nrt": False, **more}
        return jit(function, **options)

    return compile


def bound(function: Any, *arguments: Any) -> Callable[[], Any]:
    """A compiled function with its arguments, whose types are looked at now and not at every call: for named tuples that takes longer
    than a small function."""
    return partial(function.compile(tuple(map(typeof, arguments))), *arguments)
