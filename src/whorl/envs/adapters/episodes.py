"""What was done in the present episode of each of N environments: enough to play it again, where the seed and the actions decide all."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np

from whorl.envs.adapters.spaces import action_form, discrete_sizes
from whorl.envs.adapters.trees import leaves
from whorl.envs.env import Observation
from whorl.errors import Damaged

SEEN = 16  # bytes of a digest
FIRST_ROWS = 256  # that memory is taken for at first


def seed_of(seed: int, row: int, episode: int) -> int:
    """The seed of one episode of environment `row`: SeedSequence((seed, row, episode)), which for episode 0 is that of (seed, row)."""
    return int(np.random.SeedSequence((seed, row, episode)).generate_state(1)[0])


class Episodes:
    """Actions and rewards of the last `limit` steps at most, [T, N, ...], written in place; `began` says where in them each environment's
    episode began, below 0 where that is not kept any more."""

    def __init__(self, num_envs: int, action_space: Any, limit: int) -> None:
        self.space, self.limit, self.steps = action_space, limit, 0
        shape, dtype = action_form(action_space)
        self.began = np.zeros(num_envs, np.int64)
        rows = min(limit, FIRST_ROWS)
        self._actions = np.zeros((rows, num_envs, *shape), dtype)
        self._rewards = np.zeros((rows, num_envs), np.float32)

    @property
    def lengths(self) -> np.ndarray:
        """Steps of each present episode, int64 [N]."""
        return self.steps - self.began

    def add(self, action: Any, reward: np.ndarray, rows: np.ndarray | None = None) -> None:
        """One step of all, or of `rows` (bool [N]); action [N, ...], reward [N] float32."""
        if self.steps == len(self._actions):
            self._make_room()
        if rows is not None:
            self._hold(np.flatnonzero(~rows))
        asked = slice(None) if rows is None else rows
        self._actions[self.steps][asked] = action[asked]
        self._rewards[self.steps][asked] = reward[asked]
        self.steps += 1

    def _hold(self, rows: np.ndarray) -> None:
        """Move the present episodes of environments that stand still up by one, so that they end with the others'."""
        for i in rows:
            kept = slice(max(self.began[i], 0), self.steps)
            for array in (self._actions, self._rewards):
                array[kept.start + 1 : self.steps + 1, i] = array[kept, i]
            self.began[i] += 1

    def _make_room(self) -> None:
        first = max(int(self.began.min()), self.steps - self.limit)
        kept = self.steps - first
        rows = len(self._actions) * (2 if 2 * kept > len(self._actions) else 1)
        for name in ("_actions", "_rewards"):
            old = getattr(self, name)
            new = np.zeros((rows, *old.shape[1:]), old.dtype)
            new[:kept] = old[first : self.steps]
            setattr(self, name, new)
        self.began -= first
        self.steps = kept

    def state(self) -> dict[str, np.ndarray]:
        """{length [N], actions [sum of lengths, ...], environment after environment}; no actions where an episode is beyond the limit."""
        lengths = self.lengths
        rows = (
            [] if (lengths > self.limit).any() else [self._actions[b : self.steps, i] for i, b in enumerate(self.began)]
        )
        return {"length": lengths, "actions": np.concatenate([self._actions[:0, 0], *rows])}

    def seen(self, observation: Observation, mask: np.ndarray | None) -> np.ndarray:
        """Digests, uint8 [N, SEEN], of what each environment showed: where it stands, its action mask, and the rewards so far."""
        arrays = [*leaves(observation), *([] if mask is None else [mask])]
        digests = []
        for i, began in enumerate(self.began):
            digest = blake2b(self._rewards[max(began, 0) : self.steps, i].tobytes(), digest_size=SEEN)
            for array in arrays:
                digest.update(np.ascontiguousarray(array[i]).tobytes())
            digests.append(np.frombuffer(digest.digest(), np.uint8))
        return np.stack(digests)

    def begin(self, rewards: list[list[float]], actions: list[np.ndarray]) -> None:
        """Take up episodes that were just played, one list of rewards and one array of actions for each environment."""
        self.steps = max(map(len, actions))
        rows = max(self.steps, len(self._actions))
        self._actions = np.zeros((rows, *self._actions.shape[1:]), self._actions.dtype)
        self._rewards = np.zeros((rows, *self._rewards.shape[1:]), np.float32)
        for i, (given, done) in enumerate(zip(rewards, actions, strict=True)):
            self.began[i] = self.steps - len(done)
            self._actions[self.began[i] : self.steps, i], self._rewards[self.began[i] : self.steps, i] = done, given

    def read(self, state: dict[str, np.ndarray], name: str) -> tuple[int, np.ndarray, list[np.ndarray]]:
        """(seed, episode [N], actions of each environment) of a saved state whose lengths are within the limit.

        Raises Damaged, in the name of the environment, for arrays that no environment of these spaces can have saved.
        """
        _, n, *one = self._actions.shape
        wanted = {"length": (n,), "episode": (n,), "seed": (), "seen": (n, SEEN)}
        for key, shape in wanted.items():
            _demand(name, key, state.get(key), shape, np.dtype(np.uint8 if key == "seen" else np.int64))
        lengths, episode, actions = state["length"], state["episode"], state.get("actions", np.zeros(()))
        _demand(name, "actions", actions, (*actions.shape[:1], *one), self._actions.dtype)
        if (lengths < 0).any() or (episode < -1).any() or ((episode < 0) & (lengths > 0)).any():
            raise Damaged(
                f"{name}: the saved episodes have the numbers {episode.tolist()} and lengths {lengths.tolist()}"
            )
        if (lengths <= self.limit).all() and int(lengths.sum()) != len(actions):
            raise Damaged(f"{name}: there are {len(actions)} saved actions for episodes of {lengths.tolist()} steps")
        sizes = np.array(discrete_sizes(self.space) or (), np.int64)
        flat = actions.reshape(len(actions), int(np.prod(one)))
        choices = flat[:, : len(sizes)]
        if not (np.isfinite(flat).all() and ((choices >= 0) & (choices < sizes) & (choices % 1 == 0)).all()):
            raise Damaged(f"{name}: a saved action is none of {self.space}")
        return int(state["seed"]) % 2**64, episode, np.split(actions, np.cumsum(np.minimum(lengths, len(actions)))[:-1])


def _demand(name: str, key: str, array: Any, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != dtype:
        came = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise Damaged(f"{name}: the saved {key} must be {dtype} of shape {shape}, got {came}")
