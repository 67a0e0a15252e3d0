"""Jumanji's environments of one agent (Bonnet et al. 2024, "Jumanji: a diverse suite of scalable RL environments in JAX")."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from math import prod
from typing import Any

import jumanji
import numpy as np
from gymnasium import spaces
from jumanji import specs
from matplotlib import pyplot

from whorl.envs.adapters.jax_ import Moved, Seen, box, jax, jnp, made, numbers
from whorl.envs.adapters.spaces import actions, discrete_sizes
from whorl.envs.env import Env
from whorl.errors import BadInput, Incompatible
from whorl.options import did_you_mean

MASK = "action_mask"


class Jumanji:
    """One of Jumanji's environments. The last step of an episode has terminated where its discount is 0, else it was truncated; most
    of Jumanji's own time limits terminate.

    Observations are nested Dicts of Boxes, float32 but for uint8. The entry "action_mask" is taken out where actions are discrete, and
    one that remains stands alone. Several whole numbers whose mask speaks of their combinations are one Discrete action, counted as the
    mask's entries are; with a mask for each number they are MultiDiscrete. A mask that allows nothing while the episode goes on allows
    all: whatever is done then does nothing. `info` has the extras.
    options: of its class, such as num_rows=6.
    """

    def __init__(self, name: str, **options: Any) -> None:
        if name not in (known := jumanji.registered_environments()):
            raise BadInput(f"jumanji has no environment {name!r}{did_you_mean(name, sorted(known))}")
        self._env = env = jumanji.make(name, **options)
        if env.reward_spec.shape or env.discount_spec.shape:
            raise Incompatible(
                f"jumanji/{name} has a reward for each of several agents, and one agent learns in an environment"
            )
        self._own = specs.jumanji_specs_to_gym_spaces(env.action_spec)
        self.action_space, _ = actions(self._own)
        sizes, entries = discrete_sizes(self.action_space), _entries(env.observation_spec)
        self._combined: tuple[int, ...] = ()  # the sizes of the numbers that one action stands for
        self._masked = sizes is not None and MASK in entries
        if sizes is not None and self._masked:
            shape = entries.pop(MASK).shape
            if shape == tuple(sizes):
                self._combined = shape
                self.action_space = spaces.Discrete(prod(shape))
            elif any(shape != (len(sizes), size) for size in sizes):
                raise Incompatible(
                    f"jumanji/{name} has a mask of shape {shape}, which speaks neither of the combinations nor of the parts of {self._own}"
                )
        self._alone = next(iter(entries)) if len(entries) == 1 else ""
        if self._alone:
            self.observation_space = _space(entries[self._alone])
        else:
            self.observation_space = spaces.Dict([(key, _space(spec)) for key, spec in entries.items()])

    def begin(self, key: jax.Array) -> tuple[Any, Seen]:
        state, first = self._env.reset(key)
        return state, self._seen(first)

    def step(self, state: Any, action: jax.Array) -> Moved:
        state, step = self._env.step(state, self._taken(action))
        over = step.last()
        return Moved(
            state, self._seen(step), step.reward, over & (step.discount == 0), over & (step.discount != 0), step.extras
        )

    def _taken(self, action: jax.Array) -> jax.Array:
        """An action of `action_space` in the environment's own form."""
        own, dtype = self._own, self._env.action_spec.dtype
        if self._combined:
            action = jnp.stack(jnp.unravel_index(action, self._combined))
        action = action.reshape(own.shape)
        if isinstance(own, spaces.Box):
            whole = np.issubdtype(dtype, np.integer)
            action = jnp.clip(jnp.rint(action) if whole else action, own.low, own.high)
        return action.astype(dtype)

    def _seen(self, step: Any) -> Seen:
        given = _arrays(self._env.observation_spec, step.observation)
        mask = None
        if self._masked:
            parts = given.pop(MASK).reshape(1 if self._combined else len(self._own.nvec), -1) > 0
            mask = (parts | ~parts.any(1, keepdims=True)).reshape(-1)
        return Seen(given[self._alone] if self._alone else given, mask)

    def draw(self, state: Any) -> np.ndarray:
        """By the environment's viewer, which draws in matplotlib's current figure."""
        before = pyplot.get_backend()
        pyplot.switch_backend("agg")  # pictures, no window
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that there is no window
                self._env.render(state)
            canvas = pyplot.gcf().canvas
            canvas.draw()
            return np.array(canvas.buffer_rgba())[:, :, :3]  # type: ignore[attr-defined]
        finally:
            pyplot.switch_backend(before)


def _entries(spec: Any) -> dict[str, Any]:
    """The named parts of a nested spec; none of an array's."""
    return {name: part for name, part in vars(spec).items() if isinstance(part, specs.Spec)}


def _arrays(spec: Any, observation: Any) -> Any:
    """An observation, nested as its spec is, as nested dicts."""
    parts = _entries(spec)
    if not parts:
        return numbers(observation)
    return {name: _arrays(part, getattr(observation, name)) for name, part in parts.items()}


def _space(spec: Any) -> spaces.Space:
    if parts := _entries(spec):
        return spaces.Dict([(name, _space(part)) for name, part in parts.items()])
    # a DiscreteArray says less than comes: TSP's position is -1 before the first city, Snake counts one step more
    bounded = isinstance(spec, specs.BoundedArray) and not isinstance(spec, specs.DiscreteArray)
    return box(spec.shape, spec.dtype, spec.minimum, spec.maximum) if bounded else box(spec.shape, spec.dtype)


def make(
    id: str, num_envs: int, seed: int, device: str, prefer: str, wrappers: tuple[Callable, ...], options: dict[str, Any]
) -> Env:
    """For `make_env`: N of "jumanji/name"."""
    return made(Jumanji, id, num_envs, seed, device, prefer, wrappers, options)
