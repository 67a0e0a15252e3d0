"""N Gymnasium environments of this process, stepped one after another, whose errors say which of them it was."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import SyncVectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array, iterate

from whorl.envs.adapters.episodes import seed_of
from whorl.envs.adapters.infos import Infos
from whorl.envs.adapters.trees import copied, rows_of
from whorl.envs.watchdog import TURN
from whorl.errors import EnvError, in_words

FLAGS = {bool, np.bool_}
NUMBERS = {bool, int, float, np.bool_, np.float64, np.float32, np.int64, np.int32}  # the usual types of a reward
MISFITS = (
    TypeError,
    ValueError,
    LookupError,
    OverflowError,
    AttributeError,
)  # what numpy raises for what it cannot take


class Indexed(gymnasium.Wrapper):
    """Says which environment an error came from, takes nothing but a step's five things and a reset's two, and keeps the last observation
    from the reset that follows it."""

    def __init__(self, env: gymnasium.Env, name: str, index: int) -> None:
        super().__init__(env)
        self._name, self._index = name, index
        self.seed: int | None = (
            None  # of all episodes, each of which has a seed of its own; None: it is seeded by whoever resets it
        )
        self.first = 0  # of the environment that this is a row of
        self.episode = -1  # the number of the present one, since that seed
        self.films = False
        self.last: np.ndarray | None = None  # picture of where the last step ended an episode

    def step(self, action: Any) -> Any:
        TURN.to(self._index, "step")
        result = self._ask("step", self.env.step, action)
        if not isinstance(result, tuple) or len(result) != 5:
            raise self._breach(
                f"step must return (observation, reward, terminated, truncated, info), got {_described(result)}"
            )
        observation, reward, terminated, truncated, info = result
        if type(reward) not in NUMBERS:
            reward = self._number(reward)
        if type(terminated) not in FLAGS or type(truncated) not in FLAGS:
            terminated, truncated = self._flag("terminated", terminated), self._flag("truncated", truncated)
        if not isinstance(info, dict):
            raise self._breach(f"info must be a dict, got {type(info).__name__}")
        if terminated or truncated:  # the environment may write its next episode into the same array
            observation = copied(observation)
            self.last = self.picture() if self.films else None
        return observation, reward, terminated, truncated, info

    def reset(self, **kwargs: Any) -> Any:
        TURN.to(self._index, "reset")
        if self.seed is not None:
            self.episode += 1
            kwargs["seed"] = seed_of(self.seed, self.first + self._index, self.episode)
        result = self._ask("reset", self.env.reset, **kwargs)
        if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], dict):
            raise self._breach(f"reset must return (observation, info), got {_described(result)}")
        return result

    def picture(self) -> np.ndarray:
        """Of where it stands, uint8 [height, width, 3]."""
        picture = self._ask("render", self.env.render)
        if np.ndim(picture) != 3:
            raise self._breach(f"render must give a picture [height, width, 3], got {_described(picture)}")
        return np.array(picture, np.uint8)

    def _ask(self, method: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too: an environment does not end a run
            raise self._breach(f"{method} raised {in_words(error)}") from error

    def _number(self, reward: Any) -> float:
        if np.ndim(reward) or np.asarray(reward).dtype.kind not in "biuf":
            raise self._breach(f"the reward must be one number, got {_described(reward)}")
        return float(reward)

    def _flag(self, name: str, flag: Any) -> bool:
        if np.ndim(flag) or np.asarray(flag).dtype.kind not in "biu" or flag not in (0, 1):
            raise self._breach(f"{name} must be True or False, got {_described(flag)}")
        return bool(flag)

    def _breach(self, what: str) -> EnvError:
        return of_row(self._index, f"{self._name}: environment {self.first + self._index}: {what}")


class Together(SyncVectorEnv):
    """Gymnasium's own loop over environments, which says whose observation does not fit and leaves their infos as they are."""

    name = ""

    def reset(self, *, options: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        if options:  # some rows only: what was handed out holds the true successors of the others
            self._observations = create_empty_array(self.single_observation_space, self.num_envs)
        try:
            return super().reset(options=options, **kwargs)
        except MISFITS as error:
            raise self._misfit(error) from error

    def step(self, actions: Any) -> Any:
        try:
            return super().step(actions)
        except MISFITS as error:
            raise self._misfit(error) from error

    def close_extras(self, **kwargs: Any) -> None:
        with ExitStack() as every:  # also where one of them raises
            for env in self.envs:
                every.callback(env.close)

    def _add_info(self, vector_infos: Any, env_info: dict[str, Any], env_num: int) -> Any:
        infos = vector_infos if isinstance(vector_infos, Infos) else Infos(self.num_envs)
        infos.add(env_num, env_info)
        return infos

    def _misfit(self, error: Exception) -> EnvError:
        """What could not be laid into the batch: an observation, which raises itself, or else the reward of who was asked last."""
        stacked(self.name, self.single_observation_space, dict(enumerate(self._env_obs)))
        row = TURN.row or 0
        return of_row(row, f"{self.name}: environment {row}: its reward fits no float: {in_words(error)}")


def step_rows(name: str, engine: SyncVectorEnv, actions: Any, rows: np.ndarray) -> Any:
    """Step those environments of an engine (bool [N], one at least) and leave the others alone; an ended one is not reset.

    As `engine.step`, all [N, ...]: what stands in the other rows means nothing.
    """
    reward, flags = np.zeros(engine.num_envs), np.zeros((2, engine.num_envs), bool)
    observations, infos = dict[int, Any](), Infos(engine.num_envs)
    for i, action in enumerate(iterate(engine.action_space, actions)):
        if rows[i]:
            observations[i], reward[i], flags[0, i], flags[1, i], info = engine.envs[i].step(action)
            infos.add(i, info)
    batch = stacked(name, engine.single_observation_space, observations)
    return rows_of(batch, np.maximum(rows.cumsum() - 1, 0)), reward, *flags, infos


def of_row(row: int, message: str) -> EnvError:
    error = EnvError(message)
    error.row = row
    return error


def stacked(name: str, space: Any, observations: dict[int, Any]) -> Any:
    """The observations of some rows as a batch. Raises EnvError, naming the first that does not fit."""
    try:
        return concatenate(space, list(observations.values()), create_empty_array(space, len(observations)))  # type: ignore[arg-type]
    except MISFITS:
        for row, observation in observations.items():
            try:
                concatenate(space, [observation], create_empty_array(space, 1))  # type: ignore[arg-type]
            except MISFITS as error:
                what = f"an observation does not fit {space}: {said(error)}; got {_described(observation)}"
                raise of_row(row, f"{name}: environment {row}: {what}") from error
        raise


def said(error: Exception) -> str:
    """What numpy and dicts say of a value that does not fit, and that it is a key that is missing."""
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def _described(value: Any) -> str:
    """A value in few words, for a message."""
    if isinstance(value, tuple | list):
        return f"{len(value)} things"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_described(inner)}" for key, inner in value.items()) + "}"
    return f"{type(value).__name__} {value!r:.60}"
