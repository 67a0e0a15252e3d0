"""`make_env`: an id becomes N environments: native where there is a native world, else by the adapter of its library."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import gymnasium

from whorl.envs import native
from whorl.envs.adapters import library
from whorl.envs.env import Env
from whorl.envs.ids import is_url
from whorl.errors import BadInput

logger = logging.getLogger("whorl")


def make_env(
    id: str, num_envs: int = 1, seed: int = 0, device: str = "cpu", prefer: str = "native", **options: Any
) -> Env:
    """N environments of the kind `id`, stepped together; `env.origin` says who steps them, and so does one INFO line of
    the logger "whorl".

    id: a name from `known_envs()`, or the URL of an environment on a gym HTTP server (see `Http`). Your own environment
        object needs no id: `Gymnasium(env)`.
    seed: of the first episodes; `env.reset(seed)` starts the streams anew.
    device: where a native world lives; other environments live on the CPU.
    prefer: "native" takes the native world where there is one; "gymnasium" never does.
    options: go to `gymnasium.make`, such as `render_mode="rgb_array"` or `max_episode_steps`. A native world knows
        these two only, and draws without the first. A URL knows those of `Http`.

    Raises BadInput, with near matches for an unknown id and the command to install a missing extra.
    """
    if not isinstance(id, str):
        raise BadInput(
            f"make_env takes an id, got {type(id).__name__}: wrap your own environment with "
            "whorl.envs.adapters.gymnasium.Gymnasium"
        )
    if ":" in id and not is_url(id):
        raise BadInput(
            f"{id!r}: an id cannot import a module. Import it yourself, make the environment and wrap it: "
            "whorl.envs.adapters.gymnasium.Gymnasium(env)"
        )
    if isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1:
        raise BadInput(f"num_envs must be an integer of at least 1, got {num_envs!r}")
    if prefer == "native" and id in native.WORLDS:
        options.pop("render_mode", None)  # a native world draws whenever it is asked
        unknown = set(options) - {"max_episode_steps"}
        if unknown:
            raise BadInput(
                f"the native {id} has no option {', '.join(sorted(unknown))}, only max_episode_steps; "
                "prefer='gymnasium' passes options on to gymnasium"
            )
        env = native.make(id, num_envs, seed, device, **options)
    else:
        env = library(id).make(id, num_envs, seed, device, prefer, options)
    logger.info("environment: %r", env)
    return env


def environment(id: str, num_envs: int, seed: int, device: str = "cpu", max_episode_steps: int | None = None) -> Env:
    """`make_env`, with episodes of at most `max_episode_steps`: a longer limit is replaced, a shorter one stays."""
    env = make_env(id, num_envs, seed=seed, device=device)
    if max_episode_steps is None or (env.max_episode_steps or math.inf) <= max_episode_steps:
        return env
    env.close()
    return make_env(id, num_envs, seed=seed, device=device, max_episode_steps=max_episode_steps)


EnvLike = (
    str | Env | gymnasium.Env | gymnasium.vector.VectorEnv | Callable[[], gymnasium.Env]
)  # what `whorl.train` takes


def as_env(env: EnvLike, num_envs: int | None = None, seed: int = 0) -> Env:
    """An environment object as an `Env`: wrapped by the Gymnasium adapter unless it is one already.

    num_envs counts only for a callable that makes environments (8 of them if it is None). Raises BadInput for anything else.
    """
    if isinstance(env, Env):
        return env
    from whorl.envs.adapters.gymnasium import Gymnasium

    if isinstance(env, gymnasium.Env | gymnasium.vector.VectorEnv):
        return Gymnasium(env, seed=seed)
    if callable(env):
        return Gymnasium(env, num_envs=8 if num_envs is None else num_envs, seed=seed)
    raise BadInput(
        f"an environment is an id, an Env, a gymnasium.Env or VectorEnv, or a callable that makes one; got {type(env).__name__}"
    )
