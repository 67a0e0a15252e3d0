"""What an environment's id means, and which library has it. Places and tokens of URLs: test_http.py."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import gymnasium
import pytest

from whorl.envs import ids
from whorl.envs.adapters import LIBRARIES, library


@pytest.mark.parametrize(
    ("id", "adapter", "extra"),
    [
        ("http://127.0.0.1:5000/CartPole-v1", "http", ""),
        ("HTTPS://h/ALE/Pong-v5", "http", ""),
        ("ALE/Pong-v5", "atari", "atari"),
        ("dm_control/cartpole-balance", "dm_control", "dmc"),
        ("dm_control/cartpole-balance-v0", "registered", "dmc"),
        ("envpool/Pong-v5", "envpool", "envpool"),
        ("LunarLander-v3", "registered", "box2d"),
        ("HalfCheetah-v5", "registered", "mujoco"),
        ("FrozenLake-v1", "registered", ""),
        ("ALE", "registered", ""),
        ("mine/Thing-v0", "registered", ""),
    ],
)
def test_the_first_library_that_has_an_id(id, adapter, extra):
    assert (library(id).adapter, library(id).extra) == (adapter, extra)


def test_every_extra_is_one_of_the_package():
    """What a message tells the user to install is there."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert {each.extra for each in LIBRARIES if each.extra} <= project["optional-dependencies"].keys()


def test_names():
    assert [ids.namespace(id) for id in ("ALE/Pong-v5", "Pong-v5", "a/b/c", "ALE")] == ["ALE", "", "a", ""]
    assert "box2d" in ids.entry_point("LunarLander-v3") and ids.entry_point("nothing") == ""
    assert ids.newest("HalfCheetah-v4") == "HalfCheetah-v5" and ids.newest("FrozenLake-v1") == "FrozenLake-v1"
    assert ids.near("cartpol-v1")[0] == "CartPole-v1" and ids.near("qqqqqqqqq") == []


def test_a_new_version_is_the_newest(monkeypatch):
    spec = gymnasium.envs.registration.EnvSpec("FrozenLake-v17", entry_point="nowhere:Nothing")
    monkeypatch.setitem(gymnasium.registry, spec.id, spec)
    assert ids.newest("FrozenLake-v1") == "FrozenLake-v17"


def test_adapters_are_imported_when_they_are_needed():
    """The catalogue and `make_env` bring no HTTP client along, and a native world brings no adapter."""
    code = """
import sys
from whorl.envs.make import make_env
import whorl.training.catalog
make_env("RandomWalk-v0")
print([m for m in ("http.client", "torch", "whorl.envs.adapters.http", "whorl.envs.adapters.gymnasium") if m in sys.modules])
make_env("FrozenLake-v1")
print([m for m in ("http.client", "torch", "whorl.envs.adapters.http", "whorl.envs.adapters.gymnasium") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[]", "['whorl.envs.adapters.gymnasium']"], done.stderr
