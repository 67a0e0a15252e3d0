"""The monitor of the gym protocol: statistics and videos of an environment, in files as OpenAI Gym wrote them.

openaigym.manifest.<id>.<pid>.manifest.json       {stats: file, videos: [[video, meta]], env_info: {gym_version, env_id, reward_threshold}}
openaigym.episode_batch.<id>.<pid>.stats.json     {initial_reset_timestamp, timestamps, episode_lengths, episode_rewards, episode_types,
                                                   episode_ends}; the last is ours: "terminated", "truncated", or "reset" by the client
openaigym.video.<id>.<pid>.video000000.mp4|gif    with .meta.json

Folder names come from outside: `folders.confined` keeps them inside one root, and the folder is held open, so that whoever swaps a
link in gets nothing. `score` sums a folder up in `upload.json`.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import re
import stat
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from whorl import folders
from whorl.apps.gym_server.film import Film
from whorl.errors import BadInput, Damaged, EnvError
from whorl.folders import Folder
from whorl.json_text import shown, strict

logger = logging.getLogger("whorl")

PREFIX = "openaigym."
MANIFEST = PREFIX + "manifest."
FLUSH_SECONDS = 10.0  # a killed server loses at most the episodes of this time
TRIALS = 100  # episodes of a score, as on OpenAI's leaderboard
MAX_MANIFEST, MAX_STATS = 1 << 20, 16 << 20  # bytes of a file that is read

_numbers = itertools.count()  # of the monitors of this process


class Monitor(gymnasium.Wrapper):
    """Records the episodes of `env` in `directory`, until `finish()`; the environment below stays usable.

    env_id: the id that the client asked for, for the manifest.
    force: first delete the monitor files that are there; only regular files directly inside whose names begin "openaigym.".
    resume: keep them and add to them. With neither, BadInput if there are any.
    video_callable: see `video_rule`. Needs an environment made with `render_mode="rgb_array"`; any other is recorded without videos.

    Recording begins with the next `reset`. An episode that a reset breaks off is recorded as it stands; one that `finish` breaks
    off is not. Raises BadInput for a step outside an episode, EnvError for a return that is not a finite number.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        directory: Folder | Path,
        env_id: str,
        force: bool = False,
        resume: bool = False,
        video_callable: Any = None,
    ) -> None:
        super().__init__(env)
        self._every = video_rule(video_callable)
        self._folder, self.env_id = _held(directory), env_id
        if force:
            _clear(self._folder)
        elif not resume:
            _check_unused(self._folder)
        self._infix = _unused_infix(self._folder)
        spec = env.unwrapped.spec
        threshold = spec.reward_threshold if spec else None
        self._info = {"gym_version": gymnasium.__version__, "env_id": env_id, "reward_threshold": threshold}
        self._first: float | None = None  # time of the first reset
        self._rows: list[tuple[float, int, float, str]] = []  # time of the end, length, return, how it ended
        self._videos: list[list[str]] = []
        self._film: Film | None = None
        self._steps: int | None = None  # of the episode under way; None between episodes
        self._return = 0.0
        self._finished = False
        self._write()

    def reset(self, **options: Any) -> Any:
        if self._finished:
            return self.env.reset(**options)
        self._break_off()
        if time.monotonic() - self._written > FLUSH_SECONDS:
            self._write()
        result = self.env.reset(**options)
        self._first = self._first or time.time()
        self._steps, self._return = 0, 0.0
        if self._every and len(self._rows) % self._every == 0:
            self._film = self._new_film()
        self._shoot()
        return result

    def step(self, action: Any) -> Any:
        if self._finished:
            return self.env.step(action)
        if self._steps is None:
            raise BadInput(f"{self.env_id} is monitored and no episode is under way: call reset before step")
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._return += float(reward)
        if not math.isfinite(self._return):
            self._steps = None  # nothing of this episode can be recorded
            raise EnvError(f"{self.env_id}: the reward {reward} made the return of the episode {self._return}")
        self._steps += 1
        self._shoot()
        if terminated or truncated:
            self._end("terminated" if terminated else "truncated")
        return observation, reward, terminated, truncated, info

    def finish(self) -> None:
        """Writes all files; from now on nothing is recorded. Does not close the environment. May be called twice."""
        if not self._finished:
            self._end_film(keep=bool(self._steps))
            self._finished = True
            self._write()
            self._folder.close()

    def close(self) -> None:
        try:
            self.finish()
        finally:
            super().close()

    def _break_off(self) -> None:
        """A reset in mid-episode ends the episode; a reset before the first step begins it again."""
        if self._steps:
            self._end("reset")
        self._end_film(keep=False)
        self._steps = None

    def _end(self, how: str) -> None:
        self._rows.append((time.time(), self._steps or 0, self._return, how))
        self._end_film(keep=True)
        self._steps = None

    def _write(self) -> None:
        """Statistics first: a manifest never names a file that is not there."""
        times, lengths, returns, ends = ([row[column] for row in self._rows] for column in range(4))
        stats = {"initial_reset_timestamp": self._first, "timestamps": times, "episode_lengths": lengths}
        stats |= {"episode_rewards": returns, "episode_types": ["t"] * len(times), "episode_ends": ends}
        name = f"{PREFIX}episode_batch.{self._infix}.stats.json"
        manifest = {"stats": name, "videos": self._videos, "env_info": self._info}
        self._folder.write_json(name, stats)
        self._folder.write_json(f"{MANIFEST}{self._infix}.manifest.json", manifest)
        self._written = time.monotonic()

    def _new_film(self) -> Film | None:
        if self.env.render_mode != "rgb_array":
            logger.warning("%s draws no pictures here: its monitor records no videos", self.env_id)
            self._every = 0
            return None
        fps = float(self.env.metadata.get("render_fps") or 30)
        return Film(self._folder, f"{PREFIX}video.{self._infix}.video{len(self._rows):06d}", len(self._rows), fps)

    def _shoot(self) -> None:
        """One more frame, where there is a film. A picture that fails ends the videos, not the step."""
        if self._film is not None:
            try:
                self._film.add(np.asarray(self.env.render(), np.uint8))
            except Exception as error:
                self._no_more_films(error)

    def _end_film(self, keep: bool) -> None:
        film, self._film = self._film, None
        if film is not None:
            try:
                if keep:
                    self._videos.append(film.close())
            except Exception as error:
                self._no_more_films(error)
            finally:
                film.discard()

    def _no_more_films(self, error: Exception) -> None:
        logger.warning("%s: no more videos, one could not be drawn or written: %s", self.env_id, error)
        if self._film is not None:
            self._film.discard()
        self._film, self._every = None, 0


# ------------------------------------------------------------------------------------------------- options from the wire


def flag(value: Any, name: str = "a flag") -> bool:
    """True, 1, "true" and "1" are True; False, 0, "false", "0" and, as nothing was said, None, "" and [] are False.

    The Lua client sends strings. Raises BadInput for anything else.
    """
    text = _plain(value)
    if text not in ("true", "1", "false", "0", ""):
        raise BadInput(f"{name} must be true or false, got {shown(value)}")
    return text in ("true", "1")


def video_rule(value: Any) -> int:
    """Which episodes, counted from 0, are filmed: those divisible by the result; none if it is 0.

    False, 0, None, "" and []: none. True: all. N, also as a string: every N-th. Raises BadInput for anything else.
    """
    text = _plain(value)
    if text in ("false", "true", ""):
        return int(text == "true")
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise BadInput(f"video_callable must be false, true or a number N for every N-th episode, got {shown(value)}")
    return int(text)


def _plain(value: Any) -> str:
    """A scalar of JSON as lower-case text, "" for what means nothing was said, "?" for the rest."""
    if value is None or value == []:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).lower() if isinstance(value, bool | int | str) else "?"


# ------------------------------------------------------------------------------------------------- the folder


def _held(directory: Folder | Path) -> Folder:
    """A folder that `confined` holds open already, or one of whoever runs this process, made if it is not there."""
    if isinstance(directory, Folder):
        return directory
    folders.make(directory)
    return Folder(directory)


def _monitor_files(folder: Folder, prefix: str) -> list[str]:
    return [name for name in folder.names() if name.startswith(prefix)]


def _clear(folder: Folder) -> None:
    for name in _monitor_files(folder, PREFIX):
        found = folder.status(name)
        if found is not None and stat.S_ISREG(found.st_mode):
            folder.remove(name)


def _check_unused(folder: Folder) -> None:
    if found := _monitor_files(folder, MANIFEST):
        raise BadInput(
            f"the folder {folder.path.name} already has monitor files, such as {found[0]}: use another one, "
            "or force=true to delete them, or resume=true to add to them"
        )


def _unused_infix(folder: Folder) -> str:
    """<id>.<pid>, of which no file is there: process numbers come again."""
    while True:
        infix = f"{next(_numbers)}.{os.getpid()}"
        if not any(f".{infix}." in name for name in _monitor_files(folder, PREFIX)):
            return infix


# ------------------------------------------------------------------------------------------------- the score


def score(training_dir: Folder | Path, algorithm_id: str | None = None) -> dict[str, Any]:
    """Sums up the monitor files of a folder, writes the result there as `upload.json` and returns it. Nothing is sent anywhere.

    {env, algorithm_id,
     episodes: all that were recorded,
     best_100_mean: the best mean return of 100 episodes in a row, None if there are fewer,
     episodes_to_solve: how many came before the first such 100 whose mean reaches the reward threshold; None if none does,
     videos: file names}

    The definitions are those of OpenAI's leaderboard (gym.scoreboard.scoring). Episodes that the client broke off have no part in
    the two scores: where each step costs, breaking off would be the best policy.
    Raises BadInput where the files are missing, too large, or not what `Monitor` writes, and for a bad algorithm_id.
    """
    with training_dir if isinstance(training_dir, Folder) else Folder(training_dir) as folder:
        return _score(folder, algorithm_id)


def _score(folder: Folder, algorithm_id: str | None) -> dict[str, Any]:
    here = f"training_dir {folder.path.name!r}"
    words = algorithm_id is None or (isinstance(algorithm_id, str) and algorithm_id.isprintable())
    _check(words and len(algorithm_id or "") <= 200, f"algorithm_id must be a short text, got {shown(algorithm_id)}")
    names = [name for name in _monitor_files(folder, MANIFEST) if name.endswith(".manifest.json")]
    _check(bool(names), f"{here} has no monitor files: start the monitor there, play, and close it")
    batches = [_batch(folder, name) for name in names]
    ids = sorted({batch["env_id"] for batch in batches})
    _check(len(ids) == 1, f"{here} mixes environments ({shown(ids)}): use one folder for each")
    episodes = sorted((row for batch in batches for row in batch["episodes"]), key=lambda row: row[0])
    returns = np.array([ret for _, ret, end in episodes if end != "reset"])
    threshold = next((batch["reward_threshold"] for batch in batches if batch["reward_threshold"] is not None), None)
    best, solved = _best(returns, threshold)
    result = {
        "env": ids[0],
        "algorithm_id": algorithm_id or None,
        "episodes": len(episodes),
        "best_100_mean": best,
        "episodes_to_solve": solved,
        "videos": [video for batch in batches for video in batch["videos"]],
    }
    try:
        folder.write_json("upload.json", result)
    except OSError as error:
        raise BadInput(f"{here}: upload.json cannot be written there: {error.strerror}") from error
    return result


def _best(returns: np.ndarray, threshold: float | None) -> tuple[float | None, int | None]:
    if len(returns) < TRIALS:
        return None, None
    means = np.lib.stride_tricks.sliding_window_view(returns, TRIALS).mean(1)
    solved = np.flatnonzero(means >= (math.inf if threshold is None else threshold))
    return float(means.max()), int(solved[0]) if len(solved) else None


def _batch(folder: Folder, name: str) -> dict[str, Any]:
    """One manifest and its statistics, checked: {env_id, reward_threshold, videos, episodes: [(timestamp, return, end)]}."""
    manifest: Any = _read(folder, name, MAX_MANIFEST)
    info, films, table = manifest.get("env_info"), manifest.get("videos"), manifest.get("stats")
    _check(isinstance(info, dict), f"{name}: env_info must be an object")
    env_id, threshold = info.get("env_id"), info.get("reward_threshold")
    _check(isinstance(env_id, str) and 0 < len(env_id) <= 200, f"{name}: env_id must be the id of an environment")
    _check(threshold is None or _number(threshold), f"{name}: reward_threshold must be a finite number or null")
    _check(_own(table, "episode_batch."), f"{name}: stats must be the name of a file beside it, got {shown(table)}")
    pairs = isinstance(films, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in films)
    _check(
        pairs and all(_own(file, "video.") for pair in films for file in pair), f"{name}: videos must be pairs of files"
    )

    stats: Any = _read(folder, table, MAX_STATS)
    columns = [stats.get(key) for key in ("timestamps", "episode_rewards", "episode_lengths")]
    _check(all(isinstance(column, list) for column in columns), f"{table}: times, rewards and lengths must be lists")
    ends = stats.get("episode_ends", [""] * len(columns[0]))  # OpenAI Gym did not write it
    equal = isinstance(ends, list) and len({len(column) for column in [*columns, ends]}) == 1
    _check(equal, f"{table}: timestamps, rewards, lengths and ends must have the same number of entries")
    _check(all(map(_number, itertools.chain(*columns))), f"{table}: times, rewards and lengths must be finite numbers")
    every = folder.names()
    there = [video for video, _ in films if video in every and folder.holds(video)]
    episodes = [(float(when), float(ret), end) for when, ret, end in zip(columns[0], columns[1], ends)]
    return {"env_id": env_id, "reward_threshold": threshold, "videos": there, "episodes": episodes}


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise BadInput(message)


def _read(folder: Folder, name: str, limit: int) -> dict[str, Any]:
    """A JSON object from a regular file of at most `limit` bytes."""
    try:
        data = strict(folder.read(name, limit))
    except Damaged as error:
        raise BadInput(str(error).replace(f"{folder.path}/", "")) from None  # whose place is nobody's business
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{name} is not valid JSON ({error})") from None
    if not isinstance(data, dict):
        raise BadInput(f"{name} must hold a JSON object")
    return data


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e100


def _own(name: Any, kind: str) -> bool:
    """Whether `name` is that of a monitor file, in the same folder."""
    return isinstance(name, str) and bool(re.fullmatch(re.escape(PREFIX + kind) + r"[A-Za-z0-9._-]{1,100}", name))
