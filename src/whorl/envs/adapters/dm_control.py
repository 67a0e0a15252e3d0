"""The tasks of dm_control's suite (Tunyasuvunakool et al. 2020, arXiv:2006.12983) as Gymnasium environments: "dm_control/cartpole-balance".

Ids with a version, "dm_control/cartpole-balance-v0", are shimmy's, whose observation is the suite's own Dict.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from dm_control import suite
from gymnasium.envs.registration import EnvSpec

from whorl.envs.adapters import check_cpu
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.env import Env
from whorl.errors import BadInput, EnvError

NAMESPACE = "dm_control/"
UNLIMITED = 1e10  # mjMAXVAL: what the suite gives as the bound of an actuator that has none


class DmControl(Gymnasium):
    """N tasks of dm_control's suite, stepped together as `Gymnasium` steps environments.

    id: "dm_control/DOMAIN-TASK"; options as those of `Task`. Everything else is `Gymnasium`'s: seeds, state, single rows.
    """

    origin = "dm_control"

    def __init__(
        self, id: str, num_envs: int = 1, seed: int = 0, wrappers: tuple[Callable, ...] = (), **options: Any
    ) -> None:
        super().__init__(partial(Task, id, **options), num_envs, seed, wrappers=wrappers)
        self.id = id


class Task(gymnasium.Env):
    """One task of the suite.

    Observation: the suite's arrays side by side in its own order, one float32 vector. An episode terminates where the suite's discount
    is 0, and is truncated at the time limit or where the suite ends it with discount 1. Drawing needs EGL where there is no display.

    max_episode_steps: replaces the suite's time limit. width, height (pixels) and camera_id are of `render`.
    options: go to the suite's function, such as time_limit (seconds) and environment_kwargs. random: the seed of what it draws when it
        makes the task, which is the same in all of them; a reset's seed is for what an episode draws.

    Raises BadInput for a task that is not in the suite and for options that its function does not take, EnvError for a last discount
    between 0 and 1: part of a future is neither an end nor a time limit.
    """

    metadata = {"render_modes": ["rgb_array"]}

    def __init__(
        self,
        id: str,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        width: int = 320,
        height: int = 240,
        camera_id: int = 0,
        **options: Any,
    ) -> None:
        domain, task, function = _found(id)
        taken = inspect.signature(function).parameters
        if unknown := [name for name in options if name not in taken]:
            raise BadInput(f"{id} takes {', '.join(taken)} as options, got {', '.join(unknown)}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise BadInput(f"{id} draws with render_mode='rgb_array', got {render_mode!r}")
        if max_episode_steps is not None and max_episode_steps < 1:
            raise BadInput(f"{id}: max_episode_steps must be at least 1, got {max_episode_steps}")
        seconds = options.pop("time_limit", taken["time_limit"].default)
        self._env = suite.load(domain, task, {"random": 0, **options, "time_limit": math.inf})
        if max_episode_steps is None and seconds < math.inf:
            max_episode_steps = math.ceil(seconds / self._env.control_timestep())
        self.spec = EnvSpec(id, max_episode_steps=max_episode_steps)
        self._limit, self._steps = max_episode_steps or math.inf, 0
        self.render_mode, self._picture = render_mode, {"height": height, "width": width, "camera_id": camera_id}
        size = sum(math.prod(each.shape) for each in self._env.observation_spec().values())
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        action = self._env.action_spec()
        low, high = (np.broadcast_to(end, action.shape) for end in (action.minimum, action.maximum))
        low, high = np.where(low <= -UNLIMITED, -np.inf, low), np.where(high >= UNLIMITED, np.inf, high)
        self.action_space = gymnasium.spaces.Box(low, high, dtype=np.float64)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        if seed is not None:
            self._env.task.random.seed(seed)
        self._steps = 0
        return _flat(self._env.reset().observation), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        step = self._env.step(action)
        self._steps += 1
        if step.last() and step.discount not in (0, 1):
            raise EnvError(
                f"an episode ended with discount {step.discount}: 0 (no future) or 1 (unseen) can be learned from"
            )
        terminated = step.last() and step.discount == 0
        truncated = not terminated and (step.last() or self._steps >= self._limit)
        return _flat(step.observation), float(step.reward), terminated, truncated, {}

    def render(self) -> np.ndarray:
        return self._env.physics.render(**self._picture).copy()  # of a buffer that the next picture is drawn into

    def close(self) -> None:
        self._env.physics.free()

    def __str__(self) -> str:
        return self.spec.id if self.spec else type(self).__name__


def _flat(observation: Mapping[str, Any]) -> np.ndarray:
    return np.concatenate([np.ravel(part) for part in observation.values()], dtype=np.float32, casting="same_kind")


def _found(id: str) -> tuple[str, str, Callable]:
    """(domain, task, the function that makes it). Raises BadInput, with near matches, for what is not in the suite."""
    for domain, task in suite.ALL_TASKS:
        if id == f"{NAMESPACE}{domain}-{task}":
            return domain, task, getattr(suite, domain).SUITE[task]
    near = difflib.get_close_matches(id, [f"{NAMESPACE}{domain}-{task}" for domain, task in suite.ALL_TASKS])
    hint = f"near matches: {', '.join(near)}" if near else "they are in dm_control.suite.ALL_TASKS"
    raise BadInput(f"no task of dm_control's suite is called {id!r}; {hint}")


def make(
    id: str, num_envs: int, seed: int, device: str, prefer: str, wrappers: tuple[Callable, ...], options: dict[str, Any]
) -> Env:
    """For `make_env`: `DmControl`."""
    check_cpu(id, DmControl.origin, device, prefer)
    return DmControl(id, num_envs, seed, wrappers, **options)
