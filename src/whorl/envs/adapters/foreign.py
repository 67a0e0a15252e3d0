"""Environments that another library's `make` makes one at a time, stepped as Gymnasium's are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium

from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.errors import BadInput


def make(
    kind: type[Gymnasium], one: Callable[..., gymnasium.Env], id: str, num_envs: int, seed: int, device: str, prefer: str,
    wrappers: tuple[Callable, ...], options: dict[str, Any],
) -> Gymnasium:  # fmt: skip
    """`kind` of num_envs environments, each `one(name, **options)` for the id "library/name".

    Raises BadInput for another device or stepper than the library's, and for what the library cannot make.
    """
    if prefer not in ("native", kind.origin):
        raise BadInput(f"prefer must be 'native' or {kind.origin!r}, got {prefer!r}")
    if device != "cpu":
        raise BadInput(f"{id} is stepped by {kind.origin} on the CPU, got device={device!r}")
    limit = options.get("max_episode_steps")
    others = {key: value for key, value in options.items() if key != "max_episode_steps"}
    single = partial(one, id.partition("/")[2], **others)
    env = kind(single, num_envs, seed, wrappers=wrappers, max_episode_steps=limit)
    env.id = id
    return env
