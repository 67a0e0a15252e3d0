"""A small environment of Jumanji's kind, for the tests: two numbers are chosen at once, and 1 as the first ends the episode."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jumanji import specs
from jumanji.env import Environment
from jumanji.types import TimeStep, restart, transition, truncation


class Seen(NamedTuple):
    number: jax.Array  # [] int32, ten times the first and the second
    action_mask: jax.Array  # [2, 3] bool


class Pair(Environment):
    observation_spec = specs.Spec(
        Seen, number=specs.Array((), int), action_mask=specs.BoundedArray((2, 3), bool, False, True)
    )
    action_spec = specs.MultiDiscreteArray(jnp.array([2, 3]))

    def reset(self, key: jax.Array) -> tuple[jax.Array, TimeStep]:
        """At first every second combination is allowed."""
        return jnp.zeros(()), restart(Seen(jnp.zeros((), int), jnp.arange(6).reshape(2, 3) % 2 == 0))

    def step(self, state: jax.Array, action: jax.Array) -> tuple[jax.Array, TimeStep]:
        """Later none is."""
        number = 10 * action[0] + action[1]
        seen, extras = Seen(number, jnp.zeros((2, 3), bool)), {"product": action[0] * action[1]}
        return state, jax.lax.cond(action[0] == 1, truncation, transition, number.astype(float), seen, None, extras)
