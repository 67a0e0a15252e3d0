"""Compiled functions work wherever whorl is installed."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
import torch
import whorl.collectors.ledger, whorl.envs.native.cartpole, whorl.policies.actors.greedy
from whorl.functional.kernels import recurrence
print(recurrence(torch.ones(3), torch.ones(3), backend="numba"))
"""


def test_where_numba_may_keep_nothing_one_line_says_so(tmp_path):
    """As in a container that runs as another user: the source cannot be written, and neither can the home."""
    (tmp_path / "file").touch()
    nowhere = {
        "NUMBA_CACHE_DIR": str(tmp_path / "file" / "x"),  # below a file nothing can be made, not even by root
        "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator",
    }
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=os.environ | nowhere)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "tensor([3., 2., 1.])"
    [line] = [line for line in done.stderr.splitlines() if "numba" in line]
    assert "set the environment variable NUMBA_CACHE_DIR to a folder that may be written" in line
