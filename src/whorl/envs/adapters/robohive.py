"""RoboHive: importing it brings its environments into Gymnasium's registry, under names without a namespace.

Written against the documented interface; it does not install here, so this has been run against a stand-in only.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from whorl.envs.adapters import registered
from whorl.envs.env import Env


def make(
    id: str, num_envs: int, seed: int, device: str, prefer: str, wrappers: tuple[Callable, ...], options: dict[str, Any]
) -> Env:
    """For `make_env`: the id is "robohive/FrankaReachRandom-v0"."""
    importlib.import_module("robohive")
    env = registered.make(id.partition("/")[2], num_envs, seed, device, prefer, wrappers, options)
    env.id = id
    return env
