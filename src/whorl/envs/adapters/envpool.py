"""envpool's environments (Weng et al. 2022, arXiv:2206.10558), stepped together in C++: "envpool/Pong-v5", "envpool/CartPole-v1".

It steps N at once in threads of its own, and resets an environment in the step after its end, where nobody has reset it before:
told by number which to reset, it invents no step.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable
from typing import Any

import envpool
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from whorl.envs.adapters import check_cpu
from whorl.envs.adapters.episodes import seed_of
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.adapters.trees import replaced
from whorl.envs.env import Env
from whorl.errors import BadInput, in_words

NAMESPACE = "envpool/"
OURS = ("num_envs", "seed", "env_seed", "batch_size")  # said by make_env, or a pool that is not stepped all at once


class EnvPool(Gymnasium):
    """N environments of envpool. id: "envpool/" and envpool's own name; options as those of `envpool.make`.

    Single rows can restart; they cannot be stepped alone, and nothing is saved: a resumed run begins fresh episodes.
    """

    origin = "envpool"

    def __init__(self, id: str, num_envs: int = 1, seed: int = 0, **options: Any) -> None:
        pool = Pool(id, num_envs, options)
        super().__init__(pool, num_envs, seed)
        self.id = id
        self.max_episode_steps, self.reward_threshold = pool.max_episode_steps, pool.reward_threshold


class Pool(VectorEnv):
    """A pool in the manner of Gymnasium's other vector environments: it resets when told to, those of a mask or all, and with a seed
    every random stream starts anew, in a pool of its own: envpool takes seeds nowhere else."""

    metadata = {"render_modes": ["rgb_array"], "autoreset_mode": AutoresetMode.DISABLED}

    def __init__(self, id: str, num_envs: int, options: dict[str, Any]) -> None:
        name = _found(id)
        if wrong := [key for key in options if key in OURS]:
            raise BadInput(
                f"{', '.join(wrong)} cannot be passed to {id}: all of a pool are stepped together, seeded by make_env"
            )
        try:
            with warnings.catch_warnings():  # of bounds that float32 rounds
                warnings.simplefilter("ignore")
                spec = envpool.make_spec(name, num_envs=num_envs, **options)
                observation, action = spec.gymnasium_observation_space, spec.gymnasium_action_space
        except Exception as error:
            raise BadInput(f"{id} cannot be made: {in_words(error)}") from error
        if spec.config.max_num_players > 1:
            raise BadInput(f"{id} has {spec.config.max_num_players} players: one agent learns in an environment")
        self._id, self._name, self._options = id, name, options
        self.num_envs, self.render_mode = num_envs, options.get("render_mode")
        self.single_observation_space, self.single_action_space = _bounded(observation), action
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(action, num_envs)
        config = spec.config._asdict()
        self.max_episode_steps, self.reward_threshold = config["max_episode_steps"], config.get("reward_threshold")
        self._pool: Any = None
        self._standing: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if self._pool is None or seed is not None:
            self.close_extras()
            seeds = [seed_of(seed or 0, row, 0) >> 1 for row in range(self.num_envs)]  # int32
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._pool = envpool.make(self._name, "gymnasium", num_envs=self.num_envs, seed=seeds, **self._options)
                _ = self._pool.observation_space  # made at the first look, and kept
        fresh, info = self._pool.reset(options=options)
        rows = None if options is None else options["reset_mask"]
        self._standing = fresh if rows is None else replaced(self._standing, rows, fresh)
        return self._standing, info if rows is None else {}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        step = self._pool.step(actions)
        self._standing = step[0]
        return step

    def render(self) -> Any:
        return self._pool.render()

    def close_extras(self, **kwargs: Any) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None  # whose threads end

    def __str__(self) -> str:
        return self._id


def _bounded(space: Any) -> Any:
    """A space whose Boxes have no lower bound where envpool gives the smallest positive float for it."""
    if isinstance(space, spaces.Dict):
        return spaces.Dict([(key, _bounded(inner)) for key, inner in space.spaces.items()])
    if not isinstance(space, spaces.Box) or space.dtype.kind != "f":
        return space
    low = np.where(space.low == np.finfo(space.dtype).tiny, -np.inf, space.low)
    return spaces.Box(low, space.high, dtype=space.dtype)


def _found(id: str) -> str:
    """envpool's own name for it. Raises BadInput, with near matches, for an id that it does not have."""
    name, known = id.removeprefix(NAMESPACE), envpool.list_all_envs()
    if name in known:
        return name
    near = ", ".join(NAMESPACE + each for each in difflib.get_close_matches(name, known))
    raise BadInput(
        f"envpool has no environment {id!r}; {f'near matches: {near}' if near else 'envpool.list_all_envs() lists all'}"
    )


def make(
    id: str, num_envs: int, seed: int, device: str, prefer: str, wrappers: tuple[Callable, ...], options: dict[str, Any]
) -> Env:
    """For `make_env`: `EnvPool`."""
    check_cpu(id, EnvPool.origin, device, prefer)
    if wrappers:
        raise BadInput(f"{id} is stepped in C++, where wrappers cannot go around single environments: leave them out")
    return EnvPool(id, num_envs, seed, **options)
