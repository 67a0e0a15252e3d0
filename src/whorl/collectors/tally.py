"""What a run asks of its environments' `info`: into the batch, and one number for each episode. Nobody pays for what nobody asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from whorl.batch import Arrays, Numbers, State
from whorl.collectors.ledger import EVERY, Episode
from whorl.envs.env import Info
from whorl.errors import BadInput, EnvError
from whorl.options import did_you_mean

WAYS = ("sum", "mean", "last")  # of an episode's steps
DISCOUNTED_RETURN, NONZERO_REWARDS = "discounted_return", "nonzero_rewards"
OF_REWARDS = (DISCOUNTED_RETURN, NONZERO_REWARDS)  # computed, not found in info

Memory = Mapping[str, Any]  # of a rollout: arrays [T, N, ...], nested


class Tally:
    """Adds up, for each of N environments, the entries `ways` of info over the episode under way.

    ways: name -> "sum", "mean" or "last", over the steps that gave a number. discounted_return and nonzero_rewards are made of the
    rewards, whatever their way says. An episode that never gave a number has NaN.
    """

    def __init__(self, ways: Mapping[str, str], num_envs: int, discount: float = 1.0):
        self.ways, self.discount = dict(ways), discount
        self.keys = [name for name in ways if name not in OF_REWARDS]
        self.totals = np.zeros((len(ways), num_envs))
        self.counts = np.zeros((len(ways), num_envs), np.int64)
        self.weights = np.ones(num_envs)  # discount**k
        self.unseen, self.words = set(self.keys), set[str]()  # what no info had so far, and what there was instead

    def read(self, info: Info, ended: np.ndarray) -> dict[str, np.ndarray]:
        """The entries of one step, float32 [N] each, NaN where an environment gave none. Where an episode ended, they are those of its
        last step. Raises EnvError for one that is no number."""
        final = info.get("final_info", {})
        found = {}
        for key in self.keys:
            found[key] = _numbers(key, info, len(ended))
            if ended.any():
                found[key] = np.where(ended, _numbers(key, final, len(ended)), found[key])
        if self.unseen:
            self.words |= {str(name) for said in (info, final) for name in said if not str(name).startswith("_")}
        return found

    def add(self, memory: Memory, rows: int, episodes: Sequence[Episode]) -> list[Episode]:
        """Count the first rows of a rollout's memory; `episodes` that ended in it, with their numbers, in the order of `ways`."""
        result, infos = memory["next"], memory.get("info", {})
        lost, games = result["truncated"], memory.get("game_over", result["terminated"])
        ended: list[tuple[float, ...]] = []
        self.unseen -= {key for key in self.unseen if not np.isnan(infos[key][:rows]).all()}
        for t in range(rows):
            mask, reward = memory["mask"][t], result.get("raw_reward", result["reward"])[t]
            for k, (name, way) in enumerate(self.ways.items()):
                if name == DISCOUNTED_RETURN:
                    value = self.weights * reward
                elif name == NONZERO_REWARDS:
                    value = (reward != 0).astype(float)
                else:
                    value = infos[name][t]
                there = mask & ~np.isnan(value)
                kept = 0.0 if way == "last" and name not in OF_REWARDS else self.totals[k]
                self.totals[k] = np.where(there, kept + value, self.totals[k])
                self.counts[k] += there
            self.weights = np.where(mask, self.weights * self.discount, self.weights)
            for i in np.flatnonzero(np.where(mask, games[t] | result["truncated"][t], lost[t])):
                if mask[i]:
                    ended.append(tuple(map(float, self._episode(int(i)))))
                self.totals[:, i], self.counts[:, i], self.weights[i] = 0.0, 0, 1.0
        return [episode._replace(info=info) for episode, info in zip(episodes, ended, strict=True)]

    def _episode(self, i: int) -> np.ndarray:
        """[K] of environment i's episode so far."""
        means = np.array([way == "mean" and name not in OF_REWARDS for name, way in self.ways.items()])
        total, count = self.totals[:, i], self.counts[:, i]
        return np.where(count > 0, np.where(means, total / np.maximum(count, 1), total), np.nan)

    def missed(self) -> list[str]:
        """A line, once, for each entry that no step's info has had so far: its name may be misspelt."""
        words = sorted(self.words - {"final_info", "final_obs"})
        there = f": there was {', '.join(words)[:200] or 'nothing at all'}"
        lines = [
            f"info_keys: no step's info has had {key!r} so far{did_you_mean(key, words) or there}"
            for key in sorted(self.unseen)
        ]
        self.unseen = set()
        return lines

    def forget(self, rows: slice = EVERY) -> None:
        """The episodes under way were given up."""
        self.totals[:, rows], self.counts[:, rows], self.weights[rows] = 0.0, 0, 1.0

    def state(self) -> State:
        arrays = {"totals": self.totals, "counts": self.counts, "weights": self.weights}
        return {name: torch.as_tensor(array.copy()) for name, array in arrays.items()}, {}

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        for name, array in (("totals", self.totals), ("counts", self.counts), ("weights", self.weights)):
            array[:] = torch.as_tensor(arrays[name]).numpy()
        return True


def _numbers(key: str, info: Info, n: int) -> np.ndarray:
    """float32 [n], NaN where an environment gave none."""
    numbers = np.full(n, np.nan, np.float32)
    if key not in info:
        return numbers
    values, said = np.asarray(info[key]), np.asarray(info.get(f"_{key}", np.ones(n, bool)))
    for i in np.flatnonzero(said):
        try:
            numbers[i] = values[i]
        except (TypeError, ValueError):
            raise EnvError(
                f"info[{key!r}] of environment {i} should be a number, as info_keys asks for it, got {values[i]!r:.100}"
            ) from None
    return numbers


def ways_of(text: str) -> dict[str, str]:
    """ "success:last,x:mean" -> {"success": "last", "x": "mean"}; a name alone is summed. Raises BadInput for another way."""
    found = {}
    for word in filter(None, map(str.strip, text.split(","))):
        name, _, way = word.partition(":")
        if (way or "sum") not in WAYS or not name:
            raise BadInput(
                f"info_keys takes KEY or KEY:sum, KEY:mean, KEY:last, with commas between several, got {word!r}"
            )
        found[name] = way or "sum"
    return found


def text_of(given: str | Sequence[str] | Mapping[str, str]) -> str:
    """`["x"]` or `{"x": "mean"}` as `ways_of` reads it."""
    if isinstance(given, str):
        return given
    words = [*given, *given.values()] if isinstance(given, Mapping) else given
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise BadInput(
            f"info_keys takes a text, a list of texts, or a dict such as {{'x': 'mean'}}, got {given!r:.100}"
        )
    return ",".join(f"{name}:{way}" for name, way in given.items()) if isinstance(given, Mapping) else ",".join(given)
