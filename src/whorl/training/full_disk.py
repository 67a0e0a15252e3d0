"""A full disk costs what could not be written, and no more: it is said, the run goes on, and the next write tries again."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from whorl.errors import Damaged, WhorlError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no room, no room for this user, a file that may grow no more


class FullDisk:
    """What of the run folder `run` could not be written so far: `missing`."""

    def __init__(self, run: Path, say: Callable[[str], object]):
        self.run, self.missing = run, set[str]()
        self._say = say

    @contextmanager
    def tolerated(self, what: str) -> Iterator[None]:
        """Around whatever writes `what`: a full disk is said once, and again when it is written after all. Every other failure is
        raised, that of a folder that is gone as Damaged."""
        try:
            yield
        except (OSError, WhorlError) as error:
            if not self.run.is_dir():
                raise Damaged(
                    f"the run folder {self.run} is gone: somebody removed it, so nothing more of the run can be kept"
                ) from None
            if isinstance(error, WhorlError) or error.errno not in FULL:
                raise
            if what not in self.missing:
                self._say(
                    f"the disk is full, so {what} is not written; training goes on, and it is tried again when it is due ({error})"
                )
            self.missing.add(what)
        else:
            if what in self.missing:
                self.missing.remove(what)
                self._say(f"there is room again: {what} is written")
