"""A run that is killed at random moments comes to the same bits as one that nobody disturbed: SHA-256 of all that it must reproduce.

`WHORL_KILLS` (3) is how often: each moment is drawn from a part of the run of its own, so that few kills hit its beginning, its
middle and its end.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.processes import all_gone, descendants, gone, wait_until
from tests.training.fingerprint import fingerprint
from whorl.training import checkpoint

KILLS = int(os.environ.get("WHORL_KILLS", 3))
TRAIN, RESUME = "whorl:train", "whorl:resume"


class Warm:
    """The process of warm.py: its children are fresh processes that did not pay for `import torch`. A context manager."""

    def __init__(self) -> None:
        code, env = Path(__file__).with_name("warm.py"), {**os.environ, "OMP_NUM_THREADS": "1"}
        env["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)])
        self.process = subprocess.Popen(
            [sys.executable, str(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def begin(self, call: str, **arguments: object) -> int:
        """A child that calls `module:function` with arguments that JSON holds; its id."""
        return self._ask(call=call, **arguments)

    def wait(self) -> int:
        """The exit code of the last child, negative for a signal."""
        return self._ask(call="wait")

    def _ask(self, **request: object) -> int:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def __enter__(self) -> Warm:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait()


def check_same_bits(
    warm: Warm,
    folder: Path,
    options: Mapping[str, object],
    *,
    kills: int = KILLS,
    call: str = TRAIN,
    resume: str = RESUME,
    changed: Mapping[str, object] | None = None,
) -> None:
    """Trains once to the end, then `kills` times killed with SIGKILL and resumed.

    options: of `call`, which gets the folder of all runs as `runs`, too. changed: options that `resume` gets beside the path. No child of
    a killed run outlives it.
    """

    def begin(runs: Path) -> int:
        child = warm.begin(call, **options, runs=str(runs))
        wait_until(lambda: (runs / "last").exists() or gone(child))
        assert (runs / "last").exists(), "the run ended before it began"
        return child

    began = time.monotonic()
    begin(folder / "whole")
    assert warm.wait() == 0
    length = time.monotonic() - began
    whole = fingerprint(folder / "whole" / "last")
    moments = random.Random(str(sorted(options.items(), key=str)))
    killed = 0
    while killed < kills:
        runs = folder / f"{killed}_{time.monotonic_ns()}"
        child = begin(runs)
        time.sleep((killed + moments.random()) / kills * 0.8 * length)
        below = descendants(child)
        os.kill(child, signal.SIGKILL)
        if warm.wait() != -signal.SIGKILL:
            length *= 0.8  # it was done before the signal came: the machine is faster now
            continue
        wait_until(lambda: all_gone(below))  # noqa: B023 (it is called here)
        killed += 1
        path = (runs / "last").resolve()
        if not (path / "eval.json").exists():
            warm.begin(resume, path=str(path), quiet=True, **changed or {})
            assert warm.wait() == 0
        assert fingerprint(path) == whole, f"killed run {killed} of {kills}"
        inside = path / "checkpoints"
        assert [one for one in inside.iterdir() if one.name.startswith(".")] == []
        assert (inside / "last").resolve() == checkpoint.newest(inside).resolve()
