"""MiniGrid and BabyAI: Gymnasium environments whose observation holds a text, the mission.

`make_env(id, mission="drop")` leaves it out, `mission="tokens"` gives its words as numbers. Without a word for it there is an error,
because an agent that does not see what it is to do may learn nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from whorl.envs.adapters import registered
from whorl.envs.env import Env
from whorl.errors import BadInput, EnvError, Incompatible

# every word of both libraries' missions, and the comma; the number of one is its place here, from 1 on: only ever append
WORDS = (
    ",", "a", "after", "and", "at", "avoid", "ball", "behind", "blue", "box", "door", "end", "fetch", "find", "from", "front", "get",
    "go", "goal", "green", "grey", "hallway", "in", "key", "lava", "left", "matching", "must", "near", "next", "object", "of", "on",
    "open", "opening", "pick", "purple", "put", "reach", "red", "right", "room", "rooms", "square", "the", "then", "to", "traverse",
    "unlock", "up", "use", "yellow", "you", "your",
)  # fmt: skip
NUMBERS = {word: number for number, word in enumerate(WORDS, 1)}
LONGEST = (
    72  # words of BabyAI's longest: four times "put the grey ball in front of you next to the red door on your left"
)
ENTRY = "mission"


def make(
    id: str, num_envs: int, seed: int, device: str, prefer: str, wrappers: tuple[Callable, ...], options: dict[str, Any]
) -> Env:
    """For `make_env`: as other ids of Gymnasium's registry, with the option `mission`."""
    others = {key: value for key, value in options.items() if key != ENTRY}
    mission = options.get(ENTRY)
    if mission not in (None, *WAYS):
        raise BadInput(f"{id}: mission is 'drop' or 'tokens', got {mission!r:.80}")
    around = () if mission is None else (partial(WAYS[mission], name=id),)
    try:
        return registered.make(id, num_envs, seed, device, prefer, (*around, *wrappers), others)
    except Incompatible as error:
        if mission is not None or repr(ENTRY) not in str(error):
            raise
        raise Incompatible(
            f"{id} observes its mission as a text: say mission='tokens' for the numbers of its words or mission='drop' to leave it out "
            "(env_kwargs of a run), or put one of minigrid.wrappers around it"
        ) from error


def dropped(env: gymnasium.Env, name: str) -> gymnasium.Env:
    """`env` without its mission. The logger "whorl" warns where missions differ from episode to episode."""
    space = _parts(env, name)
    mission = space.spaces[ENTRY]
    if _longest(mission) is None or getattr(mission, "ordered_placeholders", None):
        _say_dropped(name)
    seen = spaces.Dict({key: part for key, part in space.spaces.items() if key != ENTRY})
    without = lambda observation: {key: observation[key] for key in seen.spaces}  # noqa: E731
    return gymnasium.wrappers.TransformObservation(env, without, seen)


def tokenized(env: gymnasium.Env, name: str) -> gymnasium.Env:
    """`env` whose mission is MultiDiscrete [words]: the number of each word, then zeros.

    Raises EnvError for a mission with another word, or with more words than the space says.
    """
    space = _parts(env, name)
    most = _longest(space.spaces[ENTRY]) or LONGEST
    seen = spaces.Dict({**space.spaces, ENTRY: spaces.MultiDiscrete([len(WORDS) + 1] * most)})
    read = lambda observation: {**observation, ENTRY: numbers(observation[ENTRY], most, name)}  # noqa: E731
    return gymnasium.wrappers.TransformObservation(env, read, seen)


WAYS: dict[str, Callable[..., gymnasium.Env]] = {"drop": dropped, "tokens": tokenized}


def numbers(mission: str, most: int, name: str) -> np.ndarray:
    """int64 [most]: the number of each word of a mission, then zeros."""
    words = _words(mission)
    unknown = [word for word in words if word not in NUMBERS]
    if unknown or len(words) > most:
        what = f"the unknown word {unknown[0]!r}" if unknown else f"{len(words)} words, expected at most {most}"
        raise EnvError(f"{name}: the mission {mission!r:.200} has {what}: say mission='drop' or use a wrapper of yours")
    result = np.zeros(most, np.int64)
    result[: len(words)] = [NUMBERS[word] for word in words]
    return result


def _words(mission: str) -> list[str]:
    return mission.lower().replace(",", " , ").split()


def _longest(mission: Any) -> int | None:
    """How many words a mission of this space can have; None where the space does not say: BabyAI makes its own."""
    if type(mission).__name__ != "MissionSpace":
        return None
    longest = [max(each, key=lambda text: len(_words(text))) for each in mission.ordered_placeholders or ()]
    return max(len(_words(mission.mission_func(*longest))), 1)


def _parts(env: gymnasium.Env, name: str) -> spaces.Dict:
    space = env.observation_space
    if not isinstance(space, spaces.Dict) or ENTRY not in space.spaces:
        raise BadInput(f"{name} observes no mission, only {space}: leave the option mission out")
    return space


_said: set[str] = set()


def _say_dropped(name: str) -> None:
    if name not in _said:
        _said.add(name)
        logging.getLogger("whorl").warning(
            "%s: the mission is left out, and it differs from episode to episode: an agent does not see what it is to do. "
            "mission='tokens' shows it",
            name,
        )
