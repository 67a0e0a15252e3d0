"""What a workload is: programs that do the same work, and how many times the others ours is to be."""

from typing import Any, NamedTuple

# Whether freed megabytes are reused or fetched anew (page faults) is luck from process to process, and moved the ratio of GAE at
# [128, 4096] from 17x to 57x. So both sides get an allocator (glibc) that reuses them.
REUSE = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_TOP_PAD_": str(2**28)}


class Program(NamedTuple):
    """A file of benchmarks/peers, and what it is asked: options of its `run`, or words of a whole process that is made anew each time."""

    whose: str  # interpreter: "whorl" or "peers"
    file: str
    options: dict[str, Any] = {}
    words: tuple[str, ...] | None = None
    env: dict[str, str] = {}


class Goal(NamedTuple):
    """What is asked of one of our programs beside another."""

    ours: str
    theirs: str
    ratio: float  # ours / theirs: at least that of a rate, at most that of seconds or MiB
    of: str = "value"  # or "mib", the memory of a whole process


class Workload(NamedTuple):
    """One row of the page: programs take turns."""

    title: str
    unit: str  # "steps/s", "calls/s": more is better; "s": less is
    programs: dict[str, Program]
    goals: list[Goal] = []


def whorl(work: str, *updates: str) -> dict[str, Program]:
    """One of `whorl bench`, with these bodies of updates."""
    return {
        f"whorl {update}": Program("whorl", "learn_whorl.py", {"work": work, "update": update}) for update in updates
    }


def sb3(algorithm: str, env: str = "CartPole-v1", **sizes: Any) -> dict[str, Program]:
    """Stable-Baselines3 at the same work."""
    return {"Stable-Baselines3": Program("peers", "learn_sb3.py", {"algorithm": algorithm, "env": env, **sizes})}
