"""Which ids may be made, under which retired names, and making one environment.

An id is looked up, never interpreted: it is a key of Gymnasium's registry or the name of a native world, so none imports
a module. Libraries that register environments are imported when the server starts.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.wrappers import FlattenObservation

from whorl.apps.gym_server.wire import described
from whorl.envs import native
from whorl.envs.adapters import LIBRARIES, library
from whorl.envs.env import Env
from whorl.envs.ids import near
from whorl.envs.make import make_env
from whorl.errors import BadInput

LONGEST = 100  # letters of an id

# name -> its last retired version; up to there an id means the newest version installed
MUJOCO = ["Reacher", "Pusher", "InvertedPendulum", "InvertedDoublePendulum", "HalfCheetah", "Hopper", "Swimmer"]
MUJOCO += ["Walker2d", "Ant", "Humanoid", "HumanoidStandup"]
RETIRED = {"Pendulum": 0, "Acrobot": 0, "FrozenLake": 0, "FrozenLake8x8": 0, "CliffWalking": 0, "Blackjack": 0}
RETIRED |= {"Taxi": 3, "LunarLander": 2, "LunarLanderContinuous": 2, "CarRacing": 2}
RETIRED |= {"BipedalWalker": 2, "BipedalWalkerHardcore": 2, **dict.fromkeys(MUJOCO, 3)}


def register_libraries() -> None:
    """Import the libraries that bring environments, where they are installed. An id that arrives later imports nothing."""
    for each in LIBRARIES:
        each.register()


def resolved(env_id: Any, allow: Iterable[str] = ()) -> tuple[str, dict[str, Any]]:
    """An id as it came -> (id of today, options for making it).

    allow: patterns as of file names; where there are any, one must match the id that came or that of today.
    Raises BadInput with the words that clients know, "malformed environment ID", and the reason.
    """
    if not isinstance(env_id, str) or len(env_id) > LONGEST or ":" in env_id:
        raise malformed(env_id, f"an id is a string of at most {LONGEST} letters, such as CartPole-v1")
    today, options = _today(env_id)
    patterns = list(allow)
    if patterns and not any(fnmatchcase(name, pattern) for pattern in patterns for name in (env_id, today)):
        raise malformed(env_id, f"this server makes {', '.join(patterns)}")
    if today in gymnasium.registry or today in native.WORLDS:
        return today, options
    if command := library(env_id).missing():
        raise malformed(env_id, f"it needs an extra that is not installed: {command}")
    there = ", ".join(near(env_id))
    raise malformed(env_id, f"there is {there}" if there else "no environment is called so")


def malformed(env_id: Any, reason: object) -> BadInput:
    said = env_id if isinstance(env_id, str) and env_id.isprintable() else ascii(env_id)
    said = said if len(said) <= LONGEST else said[:LONGEST] + "..."
    return BadInput(f"Attempted to look up malformed environment ID '{said}': {reason}")


def _today(env_id: str) -> tuple[str, dict[str, Any]]:
    match = re.fullmatch(r"([A-Za-z0-9]+)(-ram)?-v([0-9]{1,3})", env_id)
    if not match:
        return env_id, {}
    name, ram, version = match.groups()
    if ram:  # Atari's memory instead of its picture: ale-py registers the games, their settings, and no such names
        game = gymnasium.registry.get(f"{name}-v{version}")
        return (game.id, {"obs_type": "ram"}) if game and "game" in game.kwargs else (env_id, {})
    spec = gymnasium.registry.get(env_id)
    if int(version) > RETIRED.get(name, -1) or (spec and not callable(spec.entry_point)):
        return env_id, {}  # MuJoCo's retired versions are registered, as a function that raises
    same = [spec for spec in gymnasium.registry.values() if (spec.namespace, spec.name) == (None, name)]
    return (max(same, key=lambda spec: spec.version or 0).id if same else env_id), {}


def single(env_id: Any, allow: Iterable[str] = (), flatten: bool = False) -> gymnasium.Env:
    """One environment: Gymnasium's where it has one of that id, else a native world, which draws pictures where it can.

    flatten: observations become one flat Box, for clients that read nothing else. Raises BadInput ("malformed environment
    ID") for an id that may not or cannot be made.
    """
    today, options = resolved(env_id, allow)
    spec = gymnasium.registry.get(today)
    env: gymnasium.Env | None = None
    try:
        env = _registered(spec, options) if spec else Native(make_env(today, seed=secrets.randbits(63)))
        env = FlattenObservation(env) if flatten else env
        for space in (env.observation_space, env.action_space):
            described(space)  # or it has no JSON form
        return env
    except (ImportError, TypeError, NotImplementedError, gymnasium.error.Error, BadInput) as error:
        if env is not None:
            env.close()
        raise malformed(env_id, f"it cannot be made here: {error}") from error


def _registered(spec: EnvSpec, options: dict[str, Any]) -> gymnasium.Env:
    creator: Any = spec.entry_point if callable(spec.entry_point) else load_env_creator(str(spec.entry_point))
    metadata = getattr(creator, "metadata", None)
    if isinstance(metadata, dict) and "rgb_array" in metadata.get("render_modes", ()):
        options = {"render_mode": "rgb_array", **options}
    # the checker warns about environments and refuses actions out of bounds, which clients have always sent
    return gymnasium.make(spec, disable_env_checker=True, **options)


class Native(gymnasium.Env):
    """Environment 0 of a whorl `Env` of one, as Gymnasium's clients step it: the env has reset itself at the end of an
    episode, so the reset that follows begins nothing, it tells. info["action_mask"] is the mask, where there is one."""

    metadata = {"render_modes": ["rgb_array"]}
    render_mode = "rgb_array"

    def __init__(self, env: Env) -> None:
        if env.num_envs != 1:
            raise BadInput(f"expected an environment of one, got {env!r}")
        self._env = env
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self._fresh: Any = None  # the observation of an episode that the env began itself

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        begun, self._fresh = self._fresh, None
        if begun is None or seed is not None:
            begun = _first(self._env.reset(seed))
        return begun, self._info()

    def step(self, action: Any) -> Any:
        step = self._env.step(np.asarray(action)[None])
        terminated, truncated = bool(step.terminated[0]), bool(step.truncated[0])
        self._fresh = _first(step.observation) if terminated or truncated else None
        return _first(step.next_observation), float(step.reward[0]), terminated, truncated, self._info()

    def _info(self) -> dict[str, Any]:
        mask = self._env.action_mask
        return {} if mask is None else {"action_mask": np.array(mask[0])}

    def render(self) -> Any:
        return self._env.render()

    def close(self) -> None:
        self._env.close()


def _first(observation: Any) -> Any:
    """Row 0, copied: the env writes into its arrays again."""
    if isinstance(observation, dict):
        return {key: _first(value) for key, value in observation.items()}
    return observation[0].copy()
