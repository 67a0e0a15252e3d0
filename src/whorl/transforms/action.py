"""Transforms of actions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete

from whorl.errors import BadInput, Incompatible
from whorl.spaces import action_sizes
from whorl.transforms.draws import Drawing
from whorl.transforms.transform import Array, Observation, OfAction, Result, Spaces, Transform, merged, zeros

MOST = 2**20  # choices of an action


class ScaleAction(OfAction):
    """Actions from `low` to `high` outside are those of the Box's bounds inside: (a - low) / gradient + low_in, where gradient is
    (high - low) / (high_in - low_in).

    In Gymnasium's order of operations. Gymnasium: RescaleAction; TorchRL: ActionScaling.
    """

    def __init__(self, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__()
        if not low < high:
            raise BadInput(f"ScaleAction needs low < high, got {low} and {high}")
        self.low, self.high = low, high

    def spaces(self, observation: Space, action: Space) -> Spaces:
        if not isinstance(action, Box) or not action.is_bounded():
            raise Incompatible(f"it scales a Box with bounds, and the action is {action}")
        gradient = ((self.high - self.low) / (action.high.astype(np.longdouble) - action.low)).astype(np.float32)
        for name, x in (
            ("gradient", gradient),
            ("intercept", (gradient * -action.low + np.float64(self.low)).astype(np.float32)),
        ):
            self.register_buffer(name, torch.as_tensor(x), persistent=False)
        return observation, Box(self.low, self.high, action.shape, np.float32)

    def action(self, action: Array) -> Array:
        gradient, intercept = self.constants(action)
        return (action.clip(self.low, self.high) - intercept) / gradient


class FlattenAction(OfAction):
    """Several choices as one, of all their combinations, the last choice changing fastest; masks of theirs allow a combination where
    they allow all of it. TorchRL: FlattenAction."""

    def spaces(self, observation: Space, action: Space) -> Spaces:
        sizes = action_sizes(action)
        if sizes is None:
            raise Incompatible(f"it flattens discrete actions of several parts, and the action is {action}")
        self._shape = action.shape or ()
        digits = registered_digits(self, sizes)
        self.register_buffer("columns", digits + torch.tensor([0, *np.cumsum(sizes)[:-1]]), persistent=False)
        return observation, Discrete(len(digits))

    def action(self, action: Array) -> Array:
        digits, _ = self.constants(action)
        return digits[action].reshape(*action.shape, *self._shape)

    def allowed(self, mask: Any) -> Array | None:
        return None if mask is None else mask[:, self.constants(mask)[1]].all(-1)


class DiscretizeAction(OfAction):
    """`bins` equal parts of each number of a bounded Box, of which an action chooses the middle: one number of bins for all, or one each.
    One choice of all combinations, the last number changing fastest, or (`multi`) one choice for each number.

    Gymnasium: DiscretizeAction(multidiscrete=); TorchRL: ActionDiscretizer(sampling=MEDIAN).
    """

    def __init__(self, bins: int | Sequence[int], multi: bool = False) -> None:
        super().__init__()
        self.bins, self.multi = bins, multi
        if np.min(bins) < 1:
            raise BadInput(f"DiscretizeAction needs at least 1 bin, got {bins}")

    def spaces(self, observation: Space, action: Space) -> Spaces:
        if not isinstance(action, Box) or not action.is_bounded():
            raise Incompatible(f"it cuts a Box with bounds into bins, and the action is {action}")
        low, high = action.low.ravel(), action.high.ravel()
        sizes = [self.bins] * len(low) if isinstance(self.bins, int) else list(self.bins)
        if len(sizes) != len(low):
            raise Incompatible(f"bins are {len(sizes)} numbers, and the action {action} has {len(low)}")
        if len(low) * max(sizes) > MOST:
            raise Incompatible(f"its bins are {len(low)} times {max(sizes):,}, and {MOST:,} are the most")
        middles = torch.zeros(len(low), max(sizes))
        for row, size, a, b in zip(middles, sizes, low, high, strict=True):
            edges = np.linspace(a, b, size + 1)
            row[:size] = torch.as_tensor(0.5 * (edges[:-1] + edges[1:]))
        self._shape = action.shape
        self.register_buffer("middles", middles, persistent=False)
        self.register_buffer("numbers", torch.arange(len(low)), persistent=False)
        if self.multi:
            return observation, MultiDiscrete(sizes)
        return observation, Discrete(len(registered_digits(self, sizes)))

    def action(self, action: Array) -> Array:
        middles, numbers, *digits = self.constants(action)
        chosen = digits[0][action] if digits else action
        return middles[numbers, chosen].reshape(len(action), *self._shape)


class ProjectAction(OfAction):
    """`count` choices outside, of which those beyond the n inside mean choice modulo n, so that environments with different numbers of
    actions have one action space. TorchRL: DiscreteActionProjection; that draws an action instead."""

    def __init__(self, count: int) -> None:
        super().__init__()
        if not 1 <= count <= MOST:
            raise BadInput(f"ProjectAction needs a count from 1 to {MOST:,}, got {count}")
        self.count = count

    def spaces(self, observation: Space, action: Space) -> Spaces:
        if not isinstance(action, Discrete) or action.n > self.count:
            raise Incompatible(f"it projects {self.count} choices onto no more than those, and the action is {action}")
        self._inside = int(action.n)
        return observation, Discrete(self.count)

    def action(self, action: Array) -> Array:
        return action % self._inside

    def allowed(self, mask: Array | None) -> Array | None:
        return None if mask is None else mask[:, np.arange(self.count) % self._inside]


class MaskAction(Transform):
    """Takes the entry `entry` [A] of the observation out of it: the actions that are allowed where the environment stands, beside what
    forbids some already. An entry that is left alone is the observation. TorchRL: ActionMask."""

    def __init__(self, entry: str = "action_mask") -> None:
        super().__init__()
        self.entry = entry

    def spaces(self, observation: Space, action: Space) -> Spaces:
        parts = dict(observation.spaces) if isinstance(observation, Dict) else {}
        mask, sizes = parts.pop(self.entry, None), action_sizes(action)
        if mask is None or not parts:
            raise Incompatible(f"it takes {self.entry!r} out of a Dict of more, and the observation is {observation}")
        if sizes is None or mask.shape != (sum(sizes),):
            raise Incompatible(f"the entry {self.entry!r}, {mask}, is no mask of the action {action}")
        self._actions, self._alone = sum(sizes), next(iter(parts)) if len(parts) == 1 else None
        return parts[self._alone] if self._alone else Dict(parts), action

    def begin(self, n: int, device: str) -> None:
        self.memory = {"mask": zeros((n, self._actions), bool, device)}

    def step(self, result: Result) -> Result:
        ended = result.terminated | result.truncated  # whose own masks nobody needs, and some allow nothing
        self.memory["mask"] = (result.observation[self.entry] != 0) | ended[:, None]
        return result._replace(observation=self._rest(result.observation))

    def reset(self, observation: Observation, rows: Array) -> Observation:
        self.memory["mask"] = merged(self.memory["mask"], rows, observation[self.entry] != 0)
        return self._rest(observation)

    def allowed(self, mask: Array | None) -> Array | None:
        return self.memory["mask"] if mask is None else self.memory["mask"] & mask

    def _rest(self, observation: Observation) -> Observation:
        if self._alone:
            return observation[self._alone]
        return {name: part for name, part in observation.items() if name != self.entry}


class StickyAction(Drawing):
    """With `probability`, the environment does once more what it did last; an episode's first action is always the agent's.

    Machado et al. 2018, section 5.2. Gymnasium: StickyAction.
    """

    def __init__(self, probability: float = 0.25) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise BadInput(f"StickyAction needs a probability in [0, 1), got {probability}")
        self.probability = probability

    def spaces(self, observation: Space, action: Space) -> Spaces:
        self._shape, self._dtype = action.shape or (), action.dtype
        return observation, action

    def begin(self, n: int, device: str) -> None:
        super().begin(n, device)
        self.memory["last"] = self._done = zeros((n, *self._shape), self._dtype, device)

    def action(self, action: Array) -> Array:
        sticks = (self.uniform() < self.probability) & (self.memory["step"] > 0)
        self._done = merged(action, sticks, self.memory["last"])
        return self._done

    def step(self, result: Result) -> Result:  # and not in `action`: who stands is to keep its memory
        self.memory["last"] = self._done
        self.memory["step"] += 1
        return result


def registered_digits(transform: Transform, sizes: Sequence[int]) -> torch.Tensor:
    """The buffer "digits" of `transform`: all combinations of so many choices each, int64 [product, parts], the last changing fastest.

    Raises Incompatible for more than MOST.
    """
    if (product := math.prod(sizes)) > MOST:
        raise Incompatible(f"there are {product:,} combinations of {len(sizes)} choices, and {MOST:,} are the most")
    digits = torch.as_tensor(np.stack(np.unravel_index(np.arange(product), sizes), -1))
    transform.register_buffer("digits", digits, persistent=False)
    return digits
