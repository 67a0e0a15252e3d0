"""Isaac Lab: N environments stepped together by a simulator that speaks torch.

Written against the documented interface (`AppLauncher`, `parse_env_cfg`, `ManagerBasedRLEnv` and `DirectRLEnv`, which reset by themselves
in the step that ends); Isaac Sim does not run here, so this has been run against a stand-in only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from whorl.envs.env import Array, Env, Observation, Step
from whorl.errors import BadInput, EnvError, Incompatible, in_words

GROUP = "policy"  # of observations: what an agent sees; others, such as "critic", are left out
FINAL = "final_obs"  # of extras: where it is, all rows' observations before the resets


class IsaacLab(Env):
    """N environments of one task. Options go to `gymnasium.make` beside its config; `sim_device` says where it simulates.

    Arrays are numpy on the CPU, or tensors on another device. Where the task does not give the last observation of an episode in its
    extras, as Isaac Lab's own do not, the one before it stands for it, as rsl_rl has it; the logger "whorl" says so once.

    Raises Incompatible for observations without the group "policy" or with parts that are no Box.
    """

    origin = "isaaclab"

    def __init__(
        self, id: str, num_envs: int, seed: int, device: str = "cpu", max_episode_steps: int | None = None,
        sim_device: str = "cuda:0", render_mode: str | None = None, **options: Any,
    ) -> None:  # fmt: skip
        _launched(render_mode is not None)
        task = id.partition("/")[2]
        import_module("isaaclab_tasks")  # registers them
        try:
            config = import_module("isaaclab_tasks.utils").parse_env_cfg(task, device=sim_device, num_envs=num_envs)
            config.seed = seed
            if max_episode_steps is not None:  # which it rounds up
                config.episode_length_s = (max_episode_steps - 0.5) * config.sim.dt * config.decimation
            made: Any = gymnasium.make(task, cfg=config, render_mode=render_mode, **options)
        except Exception as error:
            raise BadInput(f"{id} cannot be made: {in_words(error)}") from error
        self._sim = made.unwrapped
        self.id, self.num_envs, self.device = id, num_envs, device
        self.max_episode_steps = int(self._sim.max_episode_length)
        groups = self._sim.single_observation_space
        if not isinstance(groups, spaces.Dict) or GROUP not in groups.spaces:
            raise Incompatible(f"{id} has no observation group {GROUP!r}, only {groups}")
        self.observation_space = _floats(groups[GROUP], id)
        self.action_space = _floats(self._sim.single_action_space, id)
        self._seed: int | None = seed  # of the first reset
        self._standing: Observation | None = None
        self._closed = False

    def reset(self, seed: int | None = None) -> Observation:
        seed, self._seed = self._seed if seed is None else self.part_seed(seed), None
        groups, _ = self._sim.reset(seed=seed)
        self._standing = self._own(groups[GROUP])
        return self._standing

    def step(self, action: Array, rows: np.ndarray | None = None) -> Step:
        if rows is not None:
            raise Incompatible(f"{self!r}: the simulator steps all environments at once")
        if self._standing is None:
            raise BadInput(f"{self!r}: call reset() once before the first step")
        import torch  # as the simulator has: environments bring none along

        result = self._sim.step(torch.as_tensor(action, device=self._sim.device))
        if len(result) != 5:
            raise EnvError(
                f"{self!r}: step must give observations, rewards, terminated, truncated and extras, got {len(result)} things"
            )
        groups, reward, terminated, truncated, extras = result
        before, self._standing = self._standing, self._own(groups[GROUP])
        here = there = self._standing
        ended = terminated | truncated
        if self.device != "cpu" or ended.any():  # there, to know would make the host wait
            if FINAL in extras:
                last = self._own(extras[FINAL][GROUP])
            else:
                last = before
                _say_no_final(self.id)
            there = _where(self._own(ended), last, here)
        return Step(here, self._own(reward.float()), self._own(terminated), self._own(truncated), there, info=extras)

    def render(self) -> Any:
        picture = self._sim.render()
        return None if picture is None else np.asarray(picture, np.uint8)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._sim.close()

    def _own(self, tree: Any) -> Any:
        """A copy of tensors, in nested dicts, as this environment gives them."""
        if isinstance(tree, dict):
            return {key: self._own(value) for key, value in tree.items()}
        copy = tree.detach().to(self.device, copy=True)
        return copy.numpy() if self.device == "cpu" else copy


def _floats(space: spaces.Space, id: str) -> spaces.Space:
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: _floats(part, id) for key, part in space.spaces.items()})
    if not isinstance(space, spaces.Box) or space.dtype not in (np.float32, np.uint8):
        raise Incompatible(f"{id}: expected spaces of float32 or uint8 boxes, got {space}")
    return space


def _where(rows: Any, tree: Any, other: Any) -> Any:
    """The rows of one tree, and else of the other."""
    if isinstance(tree, dict):
        return {key: _where(rows, value, other[key]) for key, value in tree.items()}
    rows = rows.reshape(-1, *[1] * (tree.ndim - 1))
    return np.where(rows, tree, other) if isinstance(tree, np.ndarray) else tree.where(rows, other)


@cache
def _launched(cameras: bool) -> Any:
    """The simulator's application, which starts once in a process, before anything of it is imported."""
    return import_module("isaaclab.app").AppLauncher(headless=True, enable_cameras=cameras).app


@cache
def _say_no_final(id: str) -> None:
    logging.getLogger("whorl").warning(
        "%s gives no extras[%r]: at a time limit the last observation but one stands for the last, as rsl_rl has it",
        id,
        FINAL,
    )


def make(
    id: str, num_envs: int, seed: int, device: str, prefer: str, wrappers: tuple[Callable, ...], options: dict[str, Any]
) -> Env:
    """For `make_env`: the id is "isaaclab/Isaac-Cartpole-v0"."""
    if prefer not in ("native", IsaacLab.origin):
        raise BadInput(f"prefer must be 'native' or {IsaacLab.origin!r}, got {prefer!r}")
    if wrappers:
        raise BadInput(f"{id} steps its environments together, and wrappers go around single ones")
    return IsaacLab(id, num_envs, seed, device, **options)
