"""Transforms of the entries of a Dict: which there are, under which names, and some more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Tuple

from whorl.errors import BadInput, Incompatible
from whorl.transforms.entry import entries, lead, piled, repeated, replaced, replaced_space
from whorl.transforms.shape import flat, flat_space
from whorl.transforms.transform import (
    Array,
    Observation,
    OfObservation,
    Result,
    Spaces,
    Transform,
    copied,
    plain,
    space_with_entry,
    with_entry,
    zeros,
)


def named(keys: Sequence[str], name: str) -> list[str]:
    """Raises BadInput for what is no list of names."""
    if isinstance(keys, str) or not keys or not all(isinstance(key, str) for key in keys) or len({*keys}) < len(keys):
        raise BadInput(f"{name} takes a list of names, each once, such as ['position', 'speed']; got {keys!r:.80}")
    return list(keys)


class Select(OfObservation):
    """The entries `keys` of a Dict in that order, without the others; one name that is no list: that entry alone, without its Dict.

    TorchRL: SelectTransform; Gymnasium: FilterObservation.
    """

    def __init__(self, keys: str | Sequence[str]) -> None:
        super().__init__()
        self.keys = keys
        self._names = [keys] if isinstance(keys, str) else named(keys, "Select")

    def spaces(self, observation: Space, action: Space) -> Spaces:
        found = entries(observation, self._names)
        return found[self.keys] if isinstance(self.keys, str) else Dict([*found.items()]), action

    def look(self, observation: Observation) -> Observation:
        if isinstance(self.keys, str):
            return observation[self.keys]
        return {key: observation[key] for key in self._names}


class Exclude(OfObservation):
    """A Dict without the entries `keys`. TorchRL: ExcludeTransform; Gymnasium: FilterObservation."""

    def __init__(self, keys: Sequence[str]) -> None:
        super().__init__()
        self.keys = named(keys, "Exclude")

    def spaces(self, observation: Space, action: Space) -> Spaces:
        entries(observation, self.keys)
        left = self.look(entries(observation))
        if not left:
            raise Incompatible(f"without {', '.join(self.keys)} nothing is left to observe")
        return Dict([*left.items()]), action

    def look(self, observation: Observation) -> Observation:
        return {key: value for key, value in observation.items() if key not in self.keys}


class Rename(OfObservation):
    """The entries of a Dict under other names, {old: new}. TorchRL: RenameTransform."""

    def __init__(self, names: Mapping[str, str]) -> None:
        super().__init__()
        self.names = dict(names)
        named([*self.names], "Rename"), named([*self.names.values()], "Rename")

    def spaces(self, observation: Space, action: Space) -> Spaces:
        entries(observation, [*self.names])
        renamed = self.look(whole := entries(observation))
        if len(renamed) < len(whole):
            raise Incompatible(f"two entries would have one name: {self.names} of {', '.join(whole)}")
        return Dict([*renamed.items()]), action

    def look(self, observation: Observation) -> Observation:
        return {self.names.get(key, key): value for key, value in observation.items()}


class CatObservations(OfObservation):
    """One vector of the entries `keys` of a Dict, in that order, as `FlattenObservation` makes one of each; what is not named is left out,
    or, with a name `into` for the vector, stays beside it. TorchRL: CatTensors; Gymnasium: FlattenObservation(FilterObservation).
    """

    def __init__(self, keys: Sequence[str], into: str | None = None) -> None:
        super().__init__()
        self.keys, self.into = named(keys, "CatObservations"), into

    def spaces(self, observation: Space, action: Space) -> Spaces:
        self._inside = Dict([*entries(observation, self.keys).items()])
        return put_together(observation, self.keys, self.into, flat_space(self._inside)), action

    def look(self, observation: Observation) -> Observation:
        return beside(observation, self.keys, self.into, flat(self._inside, observation))


class StackObservations(OfObservation):
    """The entries `keys` of a Dict, arrays of one shape, as one array with a new axis `axis` in front or elsewhere; what is not named is
    left out, or, with a name `into` for the array, stays beside it. TorchRL: Stack.
    """

    def __init__(self, keys: Sequence[str], axis: int = 0, into: str | None = None) -> None:
        super().__init__()
        self.keys, self.axis, self.into = named(keys, "StackObservations"), axis, into

    def spaces(self, observation: Space, action: Space) -> Spaces:
        boxes = [*entries(observation, self.keys).values()]
        if not all(
            isinstance(box, Box) and (box.shape, box.dtype) == (boxes[0].shape, boxes[0].dtype) for box in boxes
        ):
            raise Incompatible(f"arrays of one shape and dtype are stacked, got {', '.join(map(str, boxes))}")
        size = len(boxes[0].shape or ()) + 1
        if not -size <= self.axis < size:
            raise Incompatible(f"arrays of shape {boxes[0].shape} cannot be stacked along an axis {self.axis}")
        self._axis = self.axis % size - size  # from the end: batches have more axes in front
        low, high = (np.stack([getattr(box, end) for box in boxes], self._axis) for end in ("low", "high"))
        box = Box(low, high, dtype=low.dtype.type)
        return put_together(observation, self.keys, self.into, box), action

    def look(self, observation: Observation) -> Observation:
        return beside(observation, self.keys, self.into, piled([observation[key] for key in self.keys], self._axis))


def beside(observation: Observation, keys: Sequence[str], into: str | None, whole: Any) -> Any:
    """`whole` alone, or as the entry `into` beside those that are not `keys`."""
    if into is None:
        return whole
    return {**{key: value for key, value in observation.items() if key not in keys}, into: whole}


def put_together(observation: Space, keys: Sequence[str], into: str | None, whole: Box) -> Space:
    """The space of `beside`."""
    spaces = entries(observation)
    if into in spaces and into not in keys:
        raise Incompatible(f"the observation has an entry {into!r} already: give another name")
    new = beside(spaces, keys, into, whole)
    return new if into is None else Dict([*new.items()])


class ExpandAs(OfObservation):
    """The entry `key` [*a] of a Dict in the shape [*a, *b] of the entry `like`, each number of it repeated over [*b]. TorchRL: ExpandAs."""

    def __init__(self, key: str, like: str) -> None:
        super().__init__()
        self.key, self.like = key, like

    def spaces(self, observation: Space, action: Space) -> Spaces:
        small, large = entries(observation, [self.key, self.like]).values()
        shape = large.shape or ()
        if not isinstance(small, Box) or not isinstance(large, Box) or shape[: len(small.shape)] != small.shape:
            raise Incompatible(f"{self.key!r} {small} does not begin the shape of {self.like!r} {large}")
        self._small, self._more = small, shape[len(small.shape) :]
        self.register_buffer("ones", torch.ones(shape, dtype=torch.as_tensor(small.low).dtype), persistent=False)
        low, high = self._expanded(small.low), self._expanded(small.high)
        return replaced_space(observation, self.key, Box(low, high, dtype=low.dtype.type)), action

    def _expanded(self, x: Any) -> Any:
        return x.reshape((*lead(x, self._small), *self._small.shape, *[1] * len(self._more))) * self.constants(x)[0]

    def look(self, observation: Observation) -> Observation:
        return replaced(observation, self.key, self._expanded(observation[self.key]))


class Primer(OfObservation):
    """More entries, each of which is the number or array that `values` has for its name, as at every reset so at every step: {name: value}.

    What was no Dict becomes its entry "observation". TorchRL: TensorDictPrimer.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__()
        if not values or not all(np.isfinite(np.asarray(value, np.float32)).all() for value in values.values()):
            raise BadInput(f"Primer needs finite numbers or arrays by their names, got {values!r:.80}")
        self.values = {name: plain(value) for name, value in values.items()}
        for place, value in enumerate(self.values.values()):
            self.register_buffer(f"value{place}", torch.tensor(value, dtype=torch.float32), persistent=False)

    def spaces(self, observation: Space, action: Space) -> Spaces:
        self._inside = observation
        for name, value in zip(self.values, self.constants(np.zeros(0)), strict=True):
            observation = space_with_entry(observation, name, Box(value, value, dtype=np.float32))
        return observation, action

    def look(self, observation: Observation) -> Observation:
        space, array = self._inside, observation
        while isinstance(space, Dict):
            key, space = next(iter(space.spaces.items()))
            array = array[key]
        for name, value in zip(self.values, self.constants(array), strict=True):
            observation = with_entry(observation, name, repeated(value, lead(array, space)))
        return observation


class PreviousActionReward(Transform):
    """The observation beside the action and the reward that led to it, zeros where an episode begins: {observation, action, reward}.

    Both are as they are at this place of the chain. Duan et al. 2016, RL^2. A Dict gets two entries more.
    """

    def spaces(self, observation: Space, action: Space) -> Spaces:
        if isinstance(action, Tuple):
            raise Incompatible(f"it shows an action that is one array, and the action is {action}")
        self._kinds = {"action": action, "reward": Box(-np.inf, np.inf, (), np.float32)}
        for name, space in self._kinds.items():
            observation = space_with_entry(observation, name, space)
        return observation, action

    def begin(self, n: int, device: str) -> None:
        self.memory = {name: zeros((n, *(x.shape or ())), x.dtype, device) for name, x in self._kinds.items()}

    def action(self, action: Array) -> Array:
        self._taken = action  # not in memory yet: rows that stand keep theirs
        return action

    def step(self, result: Result) -> Result:
        self.memory = copied(self.memory)  # what was handed out lasts until the next step
        self.memory["action"][...], self.memory["reward"][...] = self._taken, result.reward
        return result._replace(observation=self._shown(result.observation))

    def reset(self, observation: Observation, rows: Array) -> Observation:
        self.memory = copied(self.memory)
        for x in self.memory.values():
            x[rows] = 0
        return self._shown(observation)

    def _shown(self, observation: Observation) -> Observation:
        for name, x in self.memory.items():
            observation = with_entry(observation, name, x)
        return observation
