"""Environments of the old package `gym`, 0.26 and before, as Gymnasium's.

| | until 0.25 | 0.26 |
|---|---|---|
| reset | `seed(seed)`, then `reset()` -> observation | `reset(seed=seed)` -> (observation, info) |
| step | (observation, reward, done, info), a time limit says `info["TimeLimit.truncated"]` | Gymnasium's five things |
| render | `render(mode="rgb_array")` | `render()`, the mode goes to `make` |
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from whorl.envs.adapters import foreign
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.env import Env
from whorl.errors import EnvError, Incompatible


class OldGym(Gymnasium):
    """N of them."""

    origin = "gym"


class Old(gymnasium.Env):
    """An environment of `gym` as one of Gymnasium's. Put it around one of yours.

    Raises Incompatible for a space that Gymnasium has no like of.
    """

    def __init__(self, env: Any, render_mode: str | None = None) -> None:
        self.env = env
        self.observation_space = space(env.observation_space)
        self.action_space = space(env.action_space)
        self.metadata = dict(getattr(env, "metadata", None) or {})
        inner = getattr(env, "unwrapped", env)
        self._seeded = not _takes(inner.reset, "seed")  # by a method of its own
        self._drawn = {"mode": "rgb_array"} if _takes(inner.render, "mode") else {}
        self.render_mode = getattr(env, "render_mode", None) or render_mode

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if not self._seeded:
            result = self.env.reset(seed=seed)
            if not isinstance(result, tuple) or len(result) != 2:
                raise EnvError(f"{self.env}: reset(seed=...) must return (observation, info)")
            return result
        if seed is not None:
            self.env.seed(seed)
        return self.env.reset(), {}

    def step(self, action: Any) -> Any:
        result = self.env.step(action)
        if len(result) != 4:
            return result
        observation, reward, done, info = result
        cut = bool(done) and bool(info.get("TimeLimit.truncated", False))
        return observation, reward, bool(done) and not cut, cut, info

    def render(self) -> Any:
        return self.env.render(**self._drawn)

    def close(self) -> None:
        self.env.close()

    def __str__(self) -> str:
        return str(self.env)


def space(old: Any) -> spaces.Space:
    """Gymnasium's space for one of gym's, nested too. Raises Incompatible for a kind that it does not have."""
    match type(old).__name__:
        case "Box":
            return spaces.Box(old.low, old.high, old.shape, old.dtype)
        case "Discrete":
            return spaces.Discrete(int(old.n), start=int(getattr(old, "start", 0)))
        case "MultiDiscrete":
            return spaces.MultiDiscrete(np.asarray(old.nvec))
        case "MultiBinary":
            return spaces.MultiBinary(old.n)
        case "Dict":
            return spaces.Dict([(key, space(inner)) for key, inner in old.spaces.items()])
        case "Tuple":
            return spaces.Tuple([space(inner) for inner in old.spaces])
    raise Incompatible(f"the space {old} of gym has no array form: put a wrapper around the environment")


def one(name: str, render_mode: str | None = None, **options: Any) -> gymnasium.Env:
    """A single environment."""
    import gym

    new = tuple(map(int, gym.__version__.split(".")[:2])) >= (0, 26)
    if new:
        options |= {"render_mode": render_mode, "disable_env_checker": True}  # the checker breaks with numpy 2
    return Old(gym.make(name, **options), render_mode)


def _takes(function: Callable[..., Any], name: str) -> bool:
    return name in inspect.signature(function).parameters


def make(
    id: str, num_envs: int, seed: int, device: str, prefer: str, wrappers: tuple[Callable, ...], options: dict[str, Any]
) -> Env:
    """For `make_env`: the id is "gym/CartPole-v1"."""
    return foreign.make(OldGym, one, id, num_envs, seed, device, prefer, wrappers, options)
