"""One run of a sweep, in its process: `python -m whorl.training.sweep_run REQUEST`, which is JSON."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from operator import attrgetter
from typing import Any

from whorl.errors import WhorlError
from whorl.training.imports import bring


def _run(request: dict[str, Any]) -> None:
    from whorl.training.start import resume, train  # with torch: after `_die_with`

    try:
        own = _outside(request)
        if "resume" in request:
            same = {name: request[name] for name in ("env", "env_kwargs", "logger")}
            resume(request["resume"], quiet=True, **same, **own)
        else:
            train(**request["train"] | own, quiet=True)
    except WhorlError as error:
        print(f"whorl: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _outside(request: dict[str, Any]) -> dict[str, Any]:
    """Import what the user of the sweep had imported; what of it `train` and `resume` are given: classes that no name stands for."""
    sys.path += [place for place in request["path"] if place not in sys.path]
    bring(request["imports"])
    found = {"agent": request["own"], "encoder": request["encoder"]}
    if request["named"]:
        del found["agent"]
    return {option: attrgetter(own[1])(sys.modules[own[0]]) for option, own in found.items() if own}


def _die_with(parent: int) -> None:
    """The kernel kills this process when its parent ends, however that dies. Linux only: elsewhere a run that a killed
    sweep left behind goes on to its end and holds the sweep's lock so long."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before that
        sys.exit(f"whorl: the sweep, process {parent}, is gone")


if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    _die_with(request["parent"])
    _run(request)
