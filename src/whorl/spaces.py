"""Gymnasium spaces -> tensors. An observation is one array, or nested dicts of arrays for a Dict space."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from whorl.errors import BadInput, Incompatible


def tree_map(function: Callable, tree: Any) -> Any:
    """`function` on every leaf of nested dicts; a bare array is its own tree."""
    if isinstance(tree, dict):
        return {key: tree_map(function, value) for key, value in tree.items()}
    return function(tree)


def leaves(tree: Any) -> list:
    """The leaves of nested dicts, in order."""
    return [leaf for value in tree.values() for leaf in leaves(value)] if isinstance(tree, dict) else [tree]


def joined(trees: Sequence[Any], axis: int = 0) -> Any:
    """Arrays (numpy or torch) one after the other, or nested dicts of them; None where they are None."""
    first = trees[0]
    if first is None:
        return None
    if isinstance(first, dict):
        return {key: joined([tree[key] for tree in trees], axis) for key in first}
    return np.concatenate(trees, axis) if isinstance(first, np.ndarray) else torch.cat([*trees], axis)


def like(x: Any, example: Any) -> Any:
    """The array x (numpy or torch, on any device) as an array of the kind of `example`, on its device."""
    if isinstance(example, np.ndarray):
        return x.cpu().numpy() if isinstance(x, Tensor) else x
    return torch.as_tensor(x, device=example.device)


def restored(arrays: Mapping[str, Tensor], name: str, example: Any) -> Any:
    """A copy of the saved array `name`, of the kind of `example` (numpy or torch) and on its device.

    Raises BadInput where there is none, one of another shape or dtype, or one that holds what is not finite.
    """
    saved, wanted = arrays.get(name), torch.as_tensor(example)
    if saved is None or saved.shape != wanted.shape or saved.dtype != wanted.dtype:
        came = "none" if saved is None else f"{saved.dtype} {list(saved.shape)}"
        raise BadInput(f"the saved {name} must be {wanted.dtype} {list(wanted.shape)}, there is {came}")
    if not saved.isfinite().all():
        raise BadInput(f"the saved {name} holds numbers that are not finite")
    return like(saved.clone(), example)


def to_tensors(tree: Any, device: str | torch.device = "cpu") -> Any:
    """Arrays (numpy or torch) as tensors on `device`; on the CPU they share memory with the arrays."""
    return tree_map(lambda leaf: torch.as_tensor(leaf, device=device), tree)


def numpy_dtype(space: spaces.Space) -> np.dtype:
    """The dtype of a leaf space in a batch: uint8 images stay uint8, other Box float32, Discrete kinds int64, MultiBinary int8."""
    if isinstance(space, spaces.Box):
        return np.dtype(np.uint8) if space.dtype == np.uint8 else np.dtype(np.float32)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return np.dtype(np.int64)
    if isinstance(space, spaces.MultiBinary):
        return np.dtype(np.int8)
    raise Incompatible(
        f"a space of kind {type(space).__name__} has no tensor form; wrap the environment so that it gives Box, Discrete, "
        "MultiDiscrete, MultiBinary or Dict"
    )


def zeros(space: spaces.Space, shape: tuple[int, ...]) -> Any:
    """Zeros [*shape, *space.shape] on the CPU; nested dicts for a Dict space. Mixed actions (a Tuple) lie side by side in float32."""
    if isinstance(space, spaces.Dict):
        return {key: zeros(inner, shape) for key, inner in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return torch.cat([zeros(part, shape).float() for part in space.spaces], -1)
    return torch.from_numpy(np.zeros((*shape, *(space.shape or ())), numpy_dtype(space)))


def is_image(space: spaces.Space) -> bool:
    """A uint8 Box with three axes, or two for one channel, both spatial ones at least 36 pixels: what the Nature CNN takes."""
    return (
        isinstance(space, spaces.Box)
        and space.dtype == np.uint8
        and len(space.shape) in (2, 3)
        and sorted(space.shape)[-2] >= 36
    )


def looks_like_image(space: spaces.Space) -> bool:
    """A Box of any dtype with two or three axes, both spatial ones at least 8 long."""
    return isinstance(space, spaces.Box) and len(space.shape) in (2, 3) and sorted(space.shape)[-2] >= 8


def has_image(space: spaces.Space) -> bool:
    """Whether a space is an image or, at any depth, a Dict with one."""
    return any(map(has_image, space.spaces.values())) if isinstance(space, spaces.Dict) else is_image(space)


def flat_size(space: spaces.Space) -> int:
    """How many numbers `flatten` gives for one element (images are not flattened: use a CNN)."""
    if isinstance(space, spaces.Dict):
        return sum(flat_size(inner) for inner in space.spaces.values())
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.sum())
    numpy_dtype(space)  # refuses what has no tensor form
    return int(np.prod(space.shape or ()))


def action_size(space: spaces.Space) -> int:
    """How many numbers a policy says of an action: `flat_size`, also of a mixed one."""
    return sum(map(flat_size, space.spaces)) if isinstance(space, spaces.Tuple) else flat_size(space)


def flatten(space: spaces.Space, x: Any) -> Tensor:
    """x [..., *space.shape] as float32 [..., flat_size]: Box flat (uint8: by 1/255), discrete kinds one-hot, Dict side by side."""
    if isinstance(space, spaces.Dict):
        return torch.cat([flatten(inner, x[key]) for key, inner in space.spaces.items()], -1)
    if isinstance(space, spaces.Discrete):
        return _one_hot(x, int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return torch.cat([_one_hot(x[..., i], int(n)) for i, n in enumerate(space.nvec)], -1)
    axes = len(space.shape or ())
    x = x.flatten(-axes) if axes > 1 else x.unsqueeze(-1) if axes == 0 else x
    return x if x.is_floating_point() else x.float() / 255 if x.dtype == torch.uint8 else x.float()


def _one_hot(x: Tensor, n: int) -> Tensor:
    """As torch's one_hot, but float32 and able to run under vmap."""
    return (x.unsqueeze(-1) == torch.arange(n, device=x.device)).float()


def is_bounded(space: spaces.Box) -> bool:
    """Whether every component has a width that float32 can express and that is not 0: what actions are scaled by."""
    with np.errstate(over="ignore", invalid="ignore"):
        width = space.high.astype(np.float32) - space.low.astype(np.float32)
    return bool((np.isfinite(width) & (width > 0)).all())


def action_sizes(space: spaces.Space) -> tuple[int, ...] | None:
    """Number of choices of each discrete action component; None when the space is not discrete."""
    if isinstance(space, spaces.Discrete):
        return (int(space.n),)
    if isinstance(space, spaces.MultiDiscrete):
        return tuple(int(n) for n in space.nvec.ravel())
    if isinstance(space, spaces.MultiBinary):
        return (2,) * int(np.prod(space.shape))
    return None


def choices(space: spaces.Space, name: str) -> dict[str, tuple[int, ...]]:
    """Of an array of this space, or of those in nested dicts of them, by their names in a batch: how many whole numbers from 0 each of
    its components may be. What holds other numbers is left out."""
    if isinstance(space, spaces.Dict):
        inner = [choices(part, f"{name}.{key}") for key, part in space.spaces.items()]
        return {key: sizes for each in inner for key, sizes in each.items()}
    sizes = action_sizes(space)
    return {} if sizes is None else {name: sizes}


def describe(space: spaces.Space) -> str:
    """A space in few words, for tables and messages: `Box(4)`, `Discrete(2)`, `Dict(image: uint8 Box(84, 84, 3), ...)`."""
    if isinstance(space, spaces.Dict):
        return "Dict(" + ", ".join(f"{key}: {describe(inner)}" for key, inner in space.spaces.items()) + ")"
    if isinstance(space, spaces.Tuple):
        return f"Tuple({', '.join(map(describe, space.spaces))})"
    if isinstance(space, spaces.Discrete):
        return f"Discrete({space.n})"
    if isinstance(space, spaces.MultiDiscrete):
        return f"MultiDiscrete({', '.join(map(str, space.nvec.ravel()))})"
    kind = "uint8 " if space.dtype == np.uint8 else ""  # which networks see otherwise
    return f"{kind}{type(space).__name__}({', '.join(map(str, space.shape or ()))})"
