"""Atari 2600 games, N at once in threads of the emulator's own: "ALE/Pong-v5" (Bellemare et al. 2013; protocol: Machado et al. 2018)."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any

import gymnasium
import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode

from whorl.envs.adapters import library, registered
from whorl.envs.adapters.episodes import seed_of
from whorl.envs.env import Array, Env, Observation, Step
from whorl.errors import BadInput
from whorl.options import Amount, Count, Share, check, override

FRAMES = 108_000  # of an episode: half an hour of play
# options of the engine that are transforms here: returns are counted, and evaluation plays, without them
APART = {"reward_clipping": "clip_reward", "episodic_life": "end_of_life", "life_loss_info": "end_of_life"}


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Options:
    """Of a game and of what is made of its frames; the names are those of `ale_py.vector_env.AtariVectorEnv`."""

    # "sticky actions": of playing the last action again, in each frame
    repeat_action_probability: Annotated[float, Share] = 0.25
    # frames of no action that a game begins with, at most
    noop_max: Annotated[int, Amount] = 30
    # begin by pressing fire, in games that wait for it
    use_fire_reset: bool = False
    # frames of a step, in which the action stays
    frameskip: Annotated[int, Count] = 4
    # of the last two frames of a step, each pixel's maximum
    maxpool: bool = True
    grayscale: bool = True
    img_height: Annotated[int, Count] = 84
    img_width: Annotated[int, Count] = 84
    # frames of an observation
    stack_num: Annotated[int, Count] = 4
    # all 18 actions, and not those alone that the game knows
    full_action_space: bool = False
    # radius, angle and fire in the place of actions by number
    continuous: bool = False
    continuous_action_threshold: Annotated[float, Share] = 0.5
    # that play the games; by default the cores that this process may use
    num_threads: Annotated[int, Count] = field(default_factory=cores)


class Atari(Env):
    """N copies of a game of Gymnasium's registry. Observation: uint8 [4, 84, 84], gray, the newest of four frames last, zeros before the
    first; reward: the score of four frames; an episode: a whole game, at most half an hour of it (27,000 steps). options: `Options`.

    Row i has the random stream of `SeedSequence((seed, first + i, 0))`. Rows restart, none is stepped alone, and nothing is saved: a
    resumed run begins new games. `info["lives"]` [N] says how many are left; `render` gives the newest frame of environment 0.
    Raises BadInput for an option that cannot be, and for an action that the game does not have.
    """

    origin = "ale"
    partial = frozenset({"restart"})
    told = {"lives": "int32"}

    def __init__(
        self, id: str, num_envs: int = 1, seed: int = 0, max_episode_steps: int | None = None, render_mode: str | None = None,
        **options: Any,
    ) -> None:  # fmt: skip
        asked = override(Options(), options)
        check(asked)
        limit = math.ceil(FRAMES / asked.frameskip) if max_episode_steps is None else max_episode_steps
        if render_mode not in (None, "rgb_array") or limit < 1:
            raise BadInput(
                f"{id} draws with render_mode='rgb_array', and max_episode_steps is at least 1; got {render_mode!r} and {limit}"
            )
        self.id, self.num_envs, self.max_episode_steps = id, num_envs, limit
        self._engine: Any = AtariVectorEnv(
            gymnasium.spec(id).kwargs["game"], num_envs, autoreset_mode=AutoresetMode.SAME_STEP, reward_clipping=False,
            max_num_frames_per_episode=(limit + 1) * asked.frameskip, **asdict(asked),
        )  # fmt: skip
        self.observation_space: Any = self._engine.single_observation_space
        self.action_space = self._engine.single_action_space
        self._standing = np.zeros((num_envs, *self.observation_space.shape), np.uint8)
        self._taken = np.zeros(num_envs, np.int64)  # steps of each game
        self._seed: int | None = seed  # of the first reset

    def reset(self, seed: int | None = None) -> Observation:
        seed, self._seed = self._seed if seed is None else seed, None
        seeds = None if seed is None else [seed_of(seed, self.first + i, 0) >> 1 for i in range(self.num_envs)]  # int32
        self._standing, _ = self._engine.reset(seed=None if seeds is None else np.array(seeds))
        self._taken[:] = 0
        return self._standing

    def restart(self, rows: np.ndarray) -> Observation:
        if rows.any():
            self._standing, _ = self._engine.reset(options={"reset_mask": np.array(rows)})
            self._taken[rows] = 0
        return self._standing

    def send(self, action: Array) -> None:
        """As `Env.send`: the emulator's threads play while this one goes on."""
        action, space = np.ascontiguousarray(action), self.action_space
        if (
            isinstance(space, Discrete) and not ((action >= 0) & (action < space.n)).all()
        ):  # the engine would wait for ever
            raise BadInput(f"{self.id}: an action is a whole number from 0 to {space.n - 1}, got {action.tolist()}")
        self._engine.send(action)

    def receive(self) -> Step:
        observation, reward, terminated, _, info = self._engine.recv()
        self._standing = successor = observation
        self._taken += 1  # by hand: at a limit of its own the engine's last frame is an older one
        truncated = self._taken == self.max_episode_steps
        if terminated.any():
            successor = observation.copy()
            successor[terminated] = info["final_obs"][terminated]
            self._taken[terminated] = 0
        self.restart(truncated & ~terminated)
        return Step(self._standing, reward.astype(np.float32), terminated, truncated, successor, info=info)

    def step(self, action: Array, rows: np.ndarray | None = None) -> Step:
        self.send(action)
        return self.receive()

    def render(self) -> np.ndarray:
        newest = self._standing[0, -1]
        return newest if newest.ndim == 3 else np.repeat(newest[..., None], 3, -1)

    def close(self) -> None:
        self._engine = None  # whose threads end


def make(
    id: str, num_envs: int, seed: int, device: str, prefer: str, wrappers: tuple[Callable, ...], options: dict[str, Any]
) -> Env:
    """For `make_env`: `Atari`; what it cannot do (wrappers, `obs_type`, `mode`, `difficulty`), and all where that is preferred, is
    Gymnasium's, whose frames are as the console draws them."""
    if wrong := [name for name in options if name in APART]:
        raise BadInput(f"{wrong[0]} is no option of {id} but the transform {APART[wrong[0]]}, for training only")
    library(id).register()
    others = options.keys() - {each.name for each in fields(Options)} - {"max_episode_steps", "render_mode"}
    if prefer != "native" or device != "cpu" or wrappers or others or id not in gymnasium.registry:
        return registered.make(id, num_envs, seed, device, prefer, wrappers, options)
    return Atari(id, num_envs, seed, **options)
