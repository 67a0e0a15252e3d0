"""Between the environment's own form and whorl's, for spaces of any shape."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space
from hypothesis import given, settings
from hypothesis import strategies as st

from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.adapters.spaces import action_form, discrete_sizes
from whorl.envs.make import make_env
from whorl.envs.own_form import batched, row, rows

shapes = st.sampled_from([(1,), (3,), (2, 2)])


@st.composite
def discretes(draw) -> spaces.Space:
    kind, shape = draw(st.integers(0, 2)), draw(shapes)
    if kind == 0:
        return spaces.Discrete(draw(st.integers(1, 5)), start=draw(st.integers(-5, 5)))
    if kind == 1:
        return spaces.MultiBinary(shape)
    drawn = np.random.default_rng(draw(st.integers(0, 999)))
    return spaces.MultiDiscrete(drawn.integers(1, 5, shape), start=drawn.integers(-4, 4, shape))


@st.composite
def boxes(draw) -> spaces.Space:
    low = draw(st.sampled_from([-0.1, -7.0, 0.0, 3.0]))
    dtype = draw(st.sampled_from([np.float32, np.float64, np.int8, np.int64]))
    low = np.floor(low) if np.dtype(dtype).kind == "i" else low
    return spaces.Box(low, low + draw(st.integers(1, 9)), draw(shapes | st.just(())), dtype)


def nested(leaf: st.SearchStrategy) -> st.SearchStrategy:
    return st.recursive(
        leaf,
        lambda inner: (
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: spaces.Tuple(parts))
            | st.dictionaries(st.sampled_from("zab"), inner, min_size=1).map(lambda parts: spaces.Dict(parts))
        ),
        max_leaves=4,
    )


class Still(gymnasium.Env):
    def __init__(self, observation: spaces.Space, action: spaces.Space):
        self.observation_space, self.action_space = observation, action


@settings(max_examples=30, deadline=None)
@given(nested(discretes()) | nested(boxes()) | nested(discretes() | boxes()), st.integers(1, 3), st.integers(0, 99))
def test_every_action_of_whorls_is_one_of_the_environments_own(space, n, seed):
    env, drawn = Gymnasium(Still(spaces.Discrete(2), space)), np.random.default_rng(seed)
    sizes, (shape, dtype) = discrete_sizes(env.action_space) or [], action_form(env.action_space)
    flat = drawn.normal(0, 9, (n, math.prod(shape))).astype(dtype)
    flat[:, : len(sizes)] = drawn.integers(0, sizes, (n, len(sizes)))
    own = env.decode(flat.reshape(n, *shape))
    assert rows(own) == n
    assert all(space.contains(row(own, i)) for i in range(n)), own


@settings(max_examples=30, deadline=None)
@given(nested(discretes() | boxes()), st.integers(1, 3), st.integers(0, 99))
def test_every_observation_of_the_environment_is_one_of_whorls(space, n, seed):
    env, many = Gymnasium(Still(space, spaces.Discrete(2))), batch_space(space, n)
    many.seed(seed)
    given_batch = many.sample()
    batch, single = batched(space, given_batch)
    seen, mask = env.encode(batch)
    assert not single and rows(batch) == n and mask is None
    for i in range(n):
        assert env.observation_space.contains(row(seen, i))
        alone, single = batched(space, row(batch, i))
        assert single and same(env.encode(alone)[0], row(seen, i))


def same(one: Any, other: Any) -> bool:
    """Whether a batch of one holds this row."""
    if isinstance(other, dict):
        return all(same(one[key], other[key]) for key in other)
    return np.array_equal(one[0], other)


def test_a_native_world_has_no_other_form():
    env = make_env("CartPole-v1", 2)
    observation = env.reset(0)
    assert env.own_observation_space is env.observation_space and env.own_action_space is env.action_space
    assert env.encode(observation) == (observation, None) and env.decode(observation) is observation
