"""The spaces of an environment, for `check_env`: those that whorl knows, what they hold, random actions."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from whorl.envs.adapters.spaces import discrete_sizes
from whorl.envs.env import Env
from whorl.errors import EnvError

logger = logging.getLogger("whorl")

PIXELS = 36  # an image has at least so many along both axes
DTYPES = {spaces.Discrete: "int64", spaces.MultiDiscrete: "int64", spaces.MultiBinary: "int8"}


def check_described(env: Env) -> None:
    """Raises EnvError, without a name, for a number of environments or a space that is none; warns of what looks like an image."""
    n = getattr(env, "num_envs", None)
    if not (isinstance(n, int) and n >= 1):
        raise EnvError(f"num_envs must be an integer of at least 1, got {n!r}")
    for name in ("observation_space", "action_space"):
        space: Any = getattr(env, name, None)
        if not isinstance(space, spaces.Space):
            raise EnvError(f"{name} must be a gymnasium space (of ONE environment), got {space!r}")
        parts: Any = space
        for leaf in parts.spaces if name == "action_space" and _is_mixed(space) else leaves(space):
            _check_leaf(name, leaf)
    for leaf in leaves(env.observation_space):
        if _looks_like_an_image(leaf) and not _is_an_image(leaf):
            logger.warning(
                "check_env: the observation %s of %s looks like an image, but agents take it for a plain vector of %d numbers: "
                "the convolutions are for uint8 with two or three axes, height and width at least %d",
                leaf.shape, leaf.dtype, np.prod(leaf.shape), PIXELS,
            )  # fmt: skip
    if isinstance(env.action_space, spaces.Dict):
        raise EnvError("action_space must not be a Dict: lay its parts side by side")


def _check_leaf(name: str, leaf: Any) -> None:
    if not (isinstance(leaf, spaces.Box) or type(leaf) in DTYPES):
        raise EnvError(
            f"{name} holds {leaf}: only Box, Discrete, MultiDiscrete, MultiBinary and Dict are known, "
            "and of actions Tuple((MultiDiscrete, Box of one axis))"
        )
    if np.any(getattr(leaf, "start", 0)):
        raise EnvError(f"{name} holds {leaf}: count from 0, without start")
    if isinstance(leaf, spaces.Box) and leaf.dtype not in (np.float32, np.uint8):
        raise EnvError(f"{name} holds a Box of {leaf.dtype}: use float32, or uint8 for images")


def bounds(space: Any) -> tuple[Any, Any]:
    """The lowest and the highest that a space without parts holds."""
    if isinstance(space, spaces.Box):
        return space.low, space.high
    if isinstance(space, spaces.Discrete):
        return 0, int(space.n) - 1
    return 0, space.nvec - 1 if isinstance(space, spaces.MultiDiscrete) else 1


def leaves(tree: Any) -> list:
    """The leaves of nested dicts, or of a Dict space."""
    inner = tree.spaces if isinstance(tree, spaces.Dict) else tree
    return [leaf for value in inner.values() for leaf in leaves(value)] if isinstance(inner, Mapping) else [tree]


def random_actions(space: Any, n: int, mask: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """n random ones, [n, ...], that the mask [n, A] allows; None allows all."""
    if _is_mixed(space):
        parts = [random_actions(part, n, mask, rng) for part in space.spaces]
        return np.concatenate(parts, -1).astype(np.float32)
    sizes = discrete_sizes(space)
    if sizes is None:
        low, high = np.maximum(space.low, -1e3), np.minimum(space.high, 1e3)
        return rng.uniform(low, high, (n, *space.shape)).astype(np.float32)
    chance = rng.random((n, sum(sizes))) * (1 if mask is None else mask)
    columns = [part.argmax(-1) for part in np.split(chance, np.cumsum(sizes)[:-1], -1)]
    dtype = np.int8 if isinstance(space, spaces.MultiBinary) else np.int64
    return np.stack(columns, -1).reshape(n, *space.shape).astype(dtype)


def _is_mixed(space: Any) -> bool:
    """Choices and numbers beside each other."""
    match space:
        case spaces.Tuple(spaces=(spaces.MultiDiscrete(), spaces.Box(shape=(_,)))):
            return True
    return False


def _looks_like_an_image(space: Any) -> bool:
    shape = sorted(space.shape)
    return isinstance(space, spaces.Box) and len(shape) in (2, 3) and shape[-2] >= 8


def _is_an_image(space: Any) -> bool:
    return space.dtype == np.uint8 and sorted(space.shape)[-2] >= PIXELS
