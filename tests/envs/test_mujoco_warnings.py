"""Against the real MuJoCo: what it warns of while environments are made."""

import subprocess
import sys

import pytest

CODE = """
import contextlib, sys, warnings
from whorl.envs.make import EnvKind, make_env
if sys.argv[1] == "error":
    warnings.simplefilter("error")
make_env("HalfCheetah-v5", 4)
with warnings.catch_warnings():  # by itself this makes Python forget what it said
    pass
make_env("HalfCheetah-v5", 2)
if sys.argv[1] == "own":
    import gymnasium, mujoco
    mujoco.set_mju_user_warning(lambda text: print("mine"))
    EnvKind(lambda: gymnasium.make("HalfCheetah-v5")).make(2)
"""


@pytest.mark.parametrize("how", ["", "error", "own"])
def test_one_warning_for_all_environments(how, tmp_path):
    pytest.importorskip("mujoco", reason="needs the package mujoco")
    done = subprocess.run([sys.executable, "-c", CODE, how], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("compiler attribute 'settotalmass' is deprecated") == 1, done.stderr
    assert done.stdout.count("mine") == (2 if how == "own" else 0) and not list(tmp_path.iterdir())  # no MUJOCO_LOG.TXT
