"""Brax's environments (Freeman et al. 2021, "Brax: a differentiable physics engine for large scale rigid body simulation").

`make_env("brax/ant", backend="mjx")` steps the same task with MJX, MuJoCo in JAX, which is physics and has no tasks of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from whorl.envs.adapters.jax_ import Moved, Seen, box, jax, jnp, made, numbers
from whorl.envs.env import Env
from whorl.errors import BadInput
from whorl.options import did_you_mean

if sys.platform == "linux" and not os.environ.get("DISPLAY"):
    os.environ.setdefault("MUJOCO_GL", "egl")  # which draws without a window; MuJoCo looks as it is imported

import brax.envs

NAMES = (  # what comes with Brax 0.14; others enter by `brax.envs.register_environment`
    "ant", "fast", "halfcheetah", "hopper", "humanoid", "humanoidstandup", "inverted_pendulum", "inverted_double_pendulum",
    "pusher", "reacher", "swimmer", "walker2d",
)  # fmt: skip
EPISODE = 1000  # steps, as in `brax.envs.create`
HEIGHT, WIDTH = 240, 320


class Brax:
    """One of Brax's environments, without its wrappers: an episode that is done has terminated. Actions are from -1 to 1 and clipped
    to that, as Brax's own policies give them; `info` has its metrics. options: of its class, such as backend="spring"."""

    def __init__(self, name: str, **options: Any) -> None:
        try:
            self._env = brax.envs.get_environment(name, **options)
        except KeyError as error:
            if error.args != (name,):
                raise
            raise BadInput(f"brax has no environment {name!r}{did_you_mean(name, NAMES)}") from None
        first = jax.eval_shape(self._env.reset, jax.random.PRNGKey(0))
        self.observation_space = _space(first.obs)
        self.action_space: spaces.Space = spaces.Box(-1.0, 1.0, (self._env.action_size,), np.float32)

    def begin(self, key: jax.Array) -> tuple[Any, Seen]:
        state = self._env.reset(key)
        return state, _seen(state)

    def step(self, state: Any, action: jax.Array) -> Moved:
        state = self._env.step(state, jnp.clip(action, -1, 1))
        return Moved(state, _seen(state), state.reward, state.done != 0, False, state.metrics)

    def draw(self, state: Any) -> np.ndarray:
        """By MuJoCo's renderer, from the camera that follows the body where there is one."""
        model = self._env.sys.mj_model
        cameras = [model.camera(i).name for i in range(model.ncam)]
        camera = "track" if "track" in cameras else None
        return self._env.render([state.pipeline_state], HEIGHT, WIDTH, camera)[0]


def _seen(state: Any) -> Seen:
    return Seen(jax.tree.map(numbers, state.obs), None)


def _space(observation: Any) -> spaces.Space:
    if isinstance(observation, Mapping):
        return spaces.Dict([(name, _space(part)) for name, part in observation.items()])
    return box(observation.shape, observation.dtype)


def make(
    id: str, num_envs: int, seed: int, device: str, prefer: str, wrappers: tuple[Callable, ...], options: dict[str, Any]
) -> Env:
    """For `make_env`: N of "brax/name"."""
    return made(Brax, id, num_envs, seed, device, prefer, wrappers, options, EPISODE)
