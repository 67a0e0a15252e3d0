"""Environments written in JAX as an `Env`: what brax and jumanji share.

A library gives a `Task`, pure functions of one environment. N are stepped by vmap in one compiled call, which also counts the steps
and begins the next episode of those that ended. Randomness is counted, not kept: the key of an episode is
fold_in(fold_in(key(seed), row), episode), so the k-th episode of an environment is the same however it was begun.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium import spaces

from whorl.envs.adapters.spaces import discrete_sizes
from whorl.envs.env import Env, Observation, Step
from whorl.errors import BadInput, WhorlError, in_words

# by default JAX takes three quarters of an accelerator's memory, which torch needs too
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp

NO_LIMIT = np.iinfo(np.int32).max


class Seen(NamedTuple):
    """What one environment shows of where it stands: float32 and uint8 in nested dicts, the action mask bool [A] or None."""

    observation: Any
    mask: Any


class Moved(NamedTuple):
    """What a step of one environment led to."""

    state: Any  # a tree of arrays
    seen: Seen
    reward: Any
    terminated: Any
    truncated: Any
    info: Mapping[str, Any]  # arrays by their names


class Task(Protocol):
    """One environment of a library, as pure functions that JAX can trace."""

    observation_space: spaces.Space
    action_space: spaces.Space

    def begin(self, key: jax.Array) -> tuple[Any, Seen]:
        """The state an episode begins in, and what is seen of it."""

    def step(self, state: Any, action: jax.Array) -> Moved:
        """One step; action as in `action_space`."""

    def draw(self, state: Any) -> np.ndarray | None:
        """Picture of a state, uint8 [height, width, 3]."""


class Carry(NamedTuple):
    """Where N environments stand: all that the next step needs."""

    state: Any
    seen: Seen
    episode: jax.Array  # [N] int32, -1 before the first
    elapsed: jax.Array  # [N] int32, steps of it


def where(rows: jax.Array, new: Any, old: Any) -> Any:
    """The tree `old` [N, ...] with the rows (bool [N]) of `new`, in the dtypes of `old`."""

    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.where(rows.reshape(-1, *[1] * (b.ndim - 1)), a, b).astype(b.dtype)

    return jax.tree.map(choose, new, old)


class Batched:
    """A task for any N, compiled once for each N. Environments of a kind share one, so that they share what is compiled."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.run = jax.jit(self._run)

    def nowhere(self, n: int) -> Carry:
        """N environments before their first episode."""
        state, seen = jax.eval_shape(jax.vmap(self.task.begin), jax.random.split(jax.random.PRNGKey(0), n))
        state, seen = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), (state, seen))
        return Carry(state, seen, np.full(n, -1, np.int32), np.zeros(n, np.int32))

    def _run(
        self, carry: Carry, key: jax.Array, action: jax.Array, stepped: jax.Array, restarted: jax.Array, limit: jax.Array
    ) -> tuple[Carry, Moved]:  # fmt: skip
        """Step some rows and restart others (both bool [N]): where all stand, and what the steps led to."""
        moved = self._moved(carry.state, action, stepped)
        state, seen = where(stepped, (moved.state, moved.seen), (carry.state, carry.seen))
        elapsed = carry.elapsed + stepped
        terminated = stepped & moved.terminated
        truncated = stepped & (moved.truncated | (elapsed >= limit))
        reward = jnp.where(stepped, moved.reward, 0).astype(jnp.float32)
        begins = terminated | truncated | restarted
        there = Carry(state, seen, carry.episode, elapsed)
        # a real branch: a step in which nothing begins does not pay for beginnings
        here = jax.lax.cond(begins.any(), self._begin, lambda carry, *_: carry, there, key, begins)
        return here, Moved((), seen, reward, terminated, truncated, moved.info)

    def _moved(self, state: Any, action: jax.Array, stepped: jax.Array) -> Moved:
        step = jax.vmap(self.task.step)
        shapes = jax.eval_shape(step, state, action)  # of what is given where no row steps, as before the first episode
        nothing = lambda *_: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)  # noqa: E731
        return jax.lax.cond(stepped.any(), step, nothing, state, action)

    def _begin(self, carry: Carry, key: jax.Array, rows: jax.Array) -> Carry:
        episode = carry.episode + rows
        keys = jax.vmap(lambda i, k: jax.random.fold_in(jax.random.fold_in(key, i), k))(jnp.arange(len(rows)), episode)
        state, seen = where(rows, jax.vmap(self.task.begin)(keys), (carry.state, carry.seen))
        return Carry(state, seen, episode, jnp.where(rows, 0, carry.elapsed))


class Jax(Env):
    """N environments of a task, stepped together by one compiled call. `made` makes them.

    On the CPU all that is handed out are numpy arrays of their own. On another device they are torch tensors that share memory with
    JAX's arrays (DLPack), as actions do the other way: write into none of them. There `next_observation` is always another tensor
    than `observation`, and neither actions nor ends are looked at, because to know them costs a wait.
    A time limit sets `truncated` also on a step that terminated.
    """

    partial = frozenset({"restart", "rows"})

    def __init__(
        self, batched: Batched, id: str, num_envs: int, seed: int, device: str, max_episode_steps: int | None, drawn: bool
    ) -> None:  # fmt: skip
        if max_episode_steps is not None and max_episode_steps < 1:
            raise BadInput(f"{id}: max_episode_steps must be at least 1, got {max_episode_steps}")
        self.id, self.origin = id, id.partition("/")[0]
        self.num_envs, self.device, self.max_episode_steps = num_envs, device, max_episode_steps
        self.observation_space, self.action_space = batched.task.observation_space, batched.task.action_space
        self._batched, self._drawn = batched, drawn
        self._place = placed(id, device)
        self._all, self._none = np.ones(num_envs, bool), np.zeros(num_envs, bool)
        self._limit = np.int32(max_episode_steps or NO_LIMIT)
        self._sizes = np.array(discrete_sizes(self.action_space) or (), np.int64)
        self._action = (
            (num_envs, *(self.action_space.shape or ())),
            np.dtype(np.int32 if len(self._sizes) else np.float32),
        )
        self._still = np.zeros(*self._action)  # where an action is wanted and no row steps
        self._carry = jax.device_put(batched.nowhere(num_envs), self._place)
        self._begun = False
        self._seed_with(seed)

    def _seed_with(self, seed: int) -> None:
        self._seed = np.uint64(seed % 2**64)
        low, high = np.uint32(seed % 2**32), np.uint32(seed % 2**64 >> 32)
        self._key = jax.device_put(jax.random.fold_in(jax.random.PRNGKey(low), high), self._place)

    def reset(self, seed: int | None = None) -> Observation:
        if seed is not None:
            self._seed_with(self.part_seed(seed))
            self._carry = jax.device_put(self._batched.nowhere(self.num_envs), self._place)
        self._begun = True
        return self.restart(self._all)

    def restart(self, rows: np.ndarray) -> Observation:
        self._check_begun()
        self._run(self._still, self._none, rows)
        return self._standing()

    def step(self, action: Any, rows: np.ndarray | None = None) -> Step:
        self._check_begun()
        moved = self._run(self._checked(action, rows), self._all if rows is None else rows, self._none)
        _, (successor, _), reward, terminated, truncated, info = self._given(moved)
        some_ended = self.device != "cpu" or (terminated | truncated).any()
        here = self._standing(None if some_ended else successor)
        valid = None if rows is None else self._given(jnp.array(rows))
        return Step(here, reward, terminated, truncated, successor, valid, info=info)

    def _run(self, action: Any, stepped: np.ndarray, restarted: np.ndarray) -> Moved:
        self._carry, moved = self._batched.run(self._carry, self._key, action, stepped, restarted, self._limit)
        return moved

    def _check_begun(self) -> None:
        if not self._begun:
            raise BadInput(f"{self.id}: step before the first reset; call reset() once after making the environment")

    def _checked(self, action: Any, rows: np.ndarray | None) -> Any:
        shape, dtype = self._action
        if tuple(action.shape) != shape:
            raise BadInput(f"{self.id}: expected actions of shape {shape}, got {tuple(action.shape)}")
        if self.device != "cpu":
            return jnp.from_dlpack(action).astype(dtype)
        action = np.asarray(action)
        if len(self._sizes):
            if action.dtype.kind not in "iub":
                raise BadInput(f"{self.id}: expected actions of whole numbers, got {action.dtype}")
            good = ((action >= 0) & (action < self._sizes.reshape(action.shape[1:]))).reshape(self.num_envs, -1).all(1)
            if rows is not None:
                good |= ~rows
            if not good.all():
                row = int(np.argmin(good))
                raise BadInput(
                    f"{self.id}: expected actions of {self.action_space}, got {action[row]} for environment {row}"
                )
        return action.astype(dtype)

    def _given(self, tree: Any) -> Any:
        """Arrays of JAX's, in nested dicts and tuples, as whorl's."""
        if self.device == "cpu":
            return jax.tree.map(np.array, tree)
        import torch

        return jax.tree.map(torch.from_dlpack, tree)

    def _standing(self, observation: Observation | None = None) -> Observation:
        """Where all stand, with the mask; observation: that, where it is known."""
        seen = self._carry.seen
        self.action_mask = None if seen.mask is None else self._given(seen.mask)
        return self._given(seen.observation) if observation is None else observation

    def state(self) -> dict[str, np.ndarray]:
        """The leaves of the state's tree by their paths, [N, ...] each, with "episode" and "elapsed" [N] and "seed" []."""
        return {name: np.array(leaf) for name, leaf in self._named()} | {"seed": np.array(self._seed.astype(np.int64))}

    def _named(self) -> list[tuple[str, Any]]:
        leaves, _ = jax.tree_util.tree_flatten_with_path(self._carry)
        return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]

    def load_state(self, state: dict[str, np.ndarray]) -> Observation:
        """As `Env.load_state`. Raises BadInput for what `state` does not give: other arrays, shapes or dtypes."""
        wanted = {name: (tuple(leaf.shape), np.dtype(leaf.dtype)) for name, leaf in self._named()}
        wanted["seed"] = ((), np.dtype(np.int64))
        if other := sorted(state.keys() ^ wanted.keys()):
            raise BadInput(
                f"{self.id}: a state has the arrays {', '.join(wanted)}; missing or unknown: {', '.join(other)}"
            )
        for name, (shape, dtype) in wanted.items():
            came = np.asarray(state[name])
            if (came.shape, came.dtype) != (shape, dtype):
                raise BadInput(
                    f"{self.id}: expected {name} as {dtype} of shape {shape}, got {came.dtype} of {came.shape}"
                )
        self._seed_with(int(state["seed"]))
        tree = jax.tree.structure(self._carry)
        leaves = [np.array(state[name]) for name, _ in self._named()]
        self._carry = jax.device_put(jax.tree.unflatten(tree, leaves), self._place)
        self._begun = True
        return self._standing()

    def render(self) -> np.ndarray | None:
        if not self._drawn:
            return None
        self._check_begun()
        return self._batched.task.draw(jax.tree.map(lambda leaf: leaf[0], self._carry.state))


def made(
    kind: Callable[..., Task], id: str, num_envs: int, seed: int, device: str, prefer: str, wrappers: tuple[Callable, ...],
    options: Mapping[str, Any], limit: int | None = None,
) -> Env:  # fmt: skip
    """For `make_env`: N environments "library/name" of the task kind(name, **options), after a look at what was asked.

    limit: steps of an episode where no `max_episode_steps` is given. Raises BadInput for what cannot be made.
    """
    library, _, name = id.partition("/")
    options = dict(options)
    limit, mode = options.pop("max_episode_steps", limit), options.pop("render_mode", None)
    if prefer not in ("native", library):
        raise BadInput(f"{id} is stepped by {library}: prefer must be 'native' or {library!r}, got {prefer!r}")
    if wrappers:
        raise BadInput(f"{id} is stepped by {library}, N at once, and wrappers go around single gymnasium environments")
    if mode not in (None, "rgb_array"):
        raise BadInput(f"{id}: render_mode must be 'rgb_array', which makes `render` give pictures, got {mode!r}")
    given = tuple(sorted(options.items()))
    try:
        batched = _shared(kind, name, given) if _hashable(given) else Batched(kind(name, **options))
    except WhorlError:
        raise
    except Exception as error:  # the library's own
        asked = f" with {', '.join(options)}" if options else ""
        raise BadInput(f"{id} cannot be made{asked}: {in_words(error)}") from error
    return Jax(batched, id, num_envs, seed, device, limit, mode is not None)


@cache
def _shared(kind: Callable[..., Task], name: str, options: tuple[tuple[str, Any], ...]) -> Batched:
    return Batched(kind(name, **dict(options)))


def _hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def numbers(leaf: Any) -> Any:
    """An array or number as observations have them: uint8 as it is, any other float32."""
    leaf = jnp.asarray(leaf)
    return leaf if leaf.dtype == jnp.uint8 else leaf.astype(jnp.float32)


def box(shape: tuple[int, ...], dtype: Any, low: Any = -np.inf, high: Any = np.inf) -> spaces.Box:
    """The space of what `numbers` gives of arrays of a dtype and with these bounds."""
    if dtype == np.uint8:
        return spaces.Box(0, 255, shape, np.uint8)
    low, high = (np.broadcast_to(np.asarray(end, np.float32), shape) for end in (low, high))
    return spaces.Box(low, high, dtype=np.float32)


def placed(id: str, device: str) -> Any:
    """The device of JAX's that torch calls `device`. Raises BadInput where JAX sees none."""
    kind, _, index = device.partition(":")
    try:
        return jax.devices({"cuda": "gpu"}.get(kind, kind))[int(index or 0)]
    except (RuntimeError, IndexError, ValueError) as error:
        seen = ", ".join(map(str, jax.devices()))
        raise BadInput(
            f"{id} cannot live on {device!r}: JAX sees {seen}; install the JAX that knows it, such as "
            'pip install "jax[cuda13]", or leave device out'
        ) from error
