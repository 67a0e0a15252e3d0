"""Compiled functions work wherever whorl is installed, whether what is compiled can be kept or not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import resource, sys
from whorl.jit import jit

@jit
def double(x):
    return 2 * x

@jit(nogil=True)
def twice(x):
    return double(double(x))

if sys.argv[1] == "full":  # as on a full disk, a file can be made and nothing written to it
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
print(twice(5), double(5), sum(double.stats.cache_hits.values()) + sum(twice.stats.cache_hits.values()))
"""


def run(folder: Path, state: str, **environment: str) -> tuple[str, list[str]]:
    """(What a process prints, the lines of what it says)."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), state]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr.splitlines()


@pytest.mark.parametrize("state", ["full", "nowhere"])
def test_where_numba_can_keep_nothing_one_line_says_so(tmp_path, state):
    """A full disk; a container that runs as another user: neither the source nor the home can be written."""
    (tmp_path / "file").touch()  # below a file nothing can be made, not even by root
    where = tmp_path / ("file/x" if state == "nowhere" else "cache")
    said, lines = run(
        tmp_path, state, NUMBA_CACHE_DIR=str(where), NUMBA_CACHE_LOCATOR_CLASSES="UserProvidedCacheLocator"
    )
    assert said == "20 10 0" and len(lines) == 1
    assert "set the environment variable NUMBA_CACHE_DIR to a folder that may be written" in lines[0]
    assert ("finds no folder" if state == "nowhere" else str(where)) in lines[0]


def test_what_is_damaged_is_compiled_anew(tmp_path):
    """A computer that went off while files were written, of one function the list of its code, of the other the code: said, and mended."""
    kept = {"NUMBA_CACHE_DIR": str(tmp_path)}
    run(tmp_path, "good", **kept)
    damaged = [*tmp_path.rglob("*double*.nbi"), *tmp_path.rglob("*twice*.nbc")]
    for file in damaged:
        file.write_bytes(file.read_bytes()[:50])
    said, lines = run(tmp_path, "good", **kept)
    assert said == "20 10 0" and len(lines) == len(damaged) == 2
    assert all("is damaged (" in line and "compiled anew" in line for line in lines)
    assert run(tmp_path, "good", **kept) == ("20 10 2", [])


def test_what_is_compiled_is_kept(tmp_path):
    assert run(tmp_path, "good", NUMBA_CACHE_DIR=str(tmp_path)) == ("20 10 0", [])
    assert run(tmp_path, "good", NUMBA_CACHE_DIR=str(tmp_path)) == ("20 10 2", [])
