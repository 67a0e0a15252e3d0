"""Other processes, as /proc shows them: who is alive, whose children there are, and what one holds."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

PAGE = os.sysconf("SC_PAGE_SIZE")


def wait_until(condition: Callable[[], object]) -> None:
    """pytest's timeout ends it if it never comes true."""
    while not condition():
        time.sleep(0.005)


def gone(pid: int) -> bool:
    """It has ended, also where nobody has asked for its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def all_gone(pids: Iterable[int]) -> bool:
    return all(map(gone, pids))


def children(pid: int) -> list[int]:
    """Those of all threads of a process, zombies among them; none of one that has ended."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        found = [Path(f"/proc/{pid}/task/{thread}/children").read_text().split() for thread in threads]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return sorted(int(child) for some in found for child in some)


def descendants(pid: int) -> list[int]:
    """Its children, theirs, and so on."""
    return [found for child in children(pid) for found in (child, *descendants(child))]


class Held(NamedTuple):
    """What a process, with its descendants, holds."""

    resident: float  # MB of memory of its own; what it shares with others is in there only once it has written it
    descriptors: int
    threads: int
    processes: int

    @classmethod
    def by(cls, pid: int) -> Held:
        every = [pid, *descendants(pid)]
        pages = [Path(f"/proc/{one}/statm").read_text().split() for one in every]
        resident = sum(int(resident) - int(shared) for _, resident, shared, *_ in pages) * PAGE / 1e6
        counts = [sum(len(os.listdir(f"/proc/{one}/{what}")) for one in every) for what in ("fd", "task")]
        return cls(resident, *counts, len(every))
