"""The base of all transforms, and the two of its kinds that most of them are.

A step has two phases, because then no transform handles "which observation is which". Phase 1, `step`: the old episode goes on, or
ends, on the true successor, in all rows; flags are settled. Phase 2, `reset`: fresh episodes, in the rows that ended, wherever the end
came from. On the CPU a transform computes in numpy, on a device and on a buffer's batches in torch, from one formula.
"""

from __future__ import annotations

import inspect
import re
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Dict
from torch import Tensor, nn

from whorl.batch import Batch
from whorl.errors import BadInput, Incompatible
from whorl.spaces import restored, tree_map

Array = np.ndarray | Tensor
Observation = Any  # an array [N, *obs], or nested dicts of such arrays
Spaces = tuple[Space, Space]


class Result(NamedTuple):
    """What a step did to the episodes under way, all rows; fresh episodes come later."""

    observation: Observation  # [N, *obs] true successor
    reward: Array  # [N] float32
    terminated: Array  # [N] bool
    truncated: Array  # [N] bool
    valid: Array | None = None  # [N] bool, as in `Step`
    discount: Array | None = None  # [N] float32, as in `Step`
    info: Any = {}


class Transform(nn.Module):
    """Changes what an agent sees, does and gets. Subclasses override what they change; what they do not override costs nothing.

    Arguments of the constructor are kept as attributes of the same names, so that `spec` can write them down. Constants are buffers with
    `persistent=False`; what is learned from data is a buffer with `persistent=True`: always in the checkpoint, moved in train mode only.
    """

    training_only: ClassVar[bool] = False  # evaluation, film and play leave it out
    needs: ClassVar[frozenset[str]] = frozenset()  # of `Env.partial`: "restart" of whom it ends, "rows" that step alone
    rewards: bool = False  # whether it changes rewards: returns are counted from those before it
    discounts: bool = False  # whether its results have a discount
    draws: ClassVar[bool] = False  # whether it is shown what the environments look like, by `drawn`
    several: ClassVar[bool] = False  # whether it makes several steps of one action
    linearizes: ClassVar[bool] = (
        False  # whether it makes one number of `info["reward_vector"]` [N, K]; then it does so in `play`
    )

    def __init__(self) -> None:
        super().__init__()
        self.rows_before = 0  # environments before those around which it is, in a whole of which they are a part
        self.moves_to: str | None = None  # device of all arrays outside of it; None: where they are inside
        self.memory: dict[str, Any] = {}  # of the episodes under way, arrays [N, ...]
        self.paid: dict[str, Array] = {}  # what `play` added up: raw_reward, reward_vector, cost, as of an `Env`
        self._numpy: tuple[np.ndarray, ...] | None = None

    # -- what it changes ------------------------------------------------------------------------------------------------

    def spaces(self, observation: Space, action: Space) -> Spaces:
        """The spaces of ONE environment outside of it, from those inside. Raises Incompatible(reason) where it does not fit."""
        return observation, action

    def begin(self, n: int, device: str) -> None:
        """Take memory for n environments whose arrays are numpy ("cpu") or torch."""

    def seed(self, seed: int) -> None:
        """Start its random streams anew."""

    def action(self, action: Array) -> Array:
        """The action [N, ...] inside from the one outside; the outermost transform comes first."""
        return action

    def allowed(self, mask: Array | None) -> Array | None:
        """The action mask [N, A] outside from the one inside; asked after each phase."""
        return mask

    def trajectory(self, inside: Array | None) -> Array | None:
        """`Env.trajectory` [N] outside from that inside; asked after each phase."""
        return inside

    def play(self, world: Any, action: Array, rows: np.ndarray | None) -> Any:
        """Play one action of these rows (None: all) as any number of steps of `world`, the environment with the transforms inside of
        this one; returns one `Step`. Only for those that need "rows" or act while an agent waits."""
        return world.step(action) if rows is None else world.step(action, rows)

    def drawn(self, pictures: np.ndarray) -> None:
        """See, before each phase, what its observation looks like, uint8 [N, height, width, 3]."""

    def step(self, result: Result) -> Result:
        """Phase 1, all rows: the step as it is outside. Arrays that it is given are not its own to write."""
        return result

    def reset(self, observation: Observation, rows: Array) -> Observation:
        """Phase 2: episodes begin in `rows` (bool [N]) at `observation` [N, ...]; the others' is not looked at. Returns all rows; what
        `step` gave before stays as it was."""
        return observation

    def forward(self, batch: Batch) -> Batch:
        """The same on a batch of a buffer, [B], [T, B] or [T, N], whose rows it does not mix."""
        raise BadInput(
            f"{type(self).__name__} looks at more than one row, so it works on environments and not on batches"
        )

    def episode_steps(self, most: int | None) -> int | None:
        """Most steps of an episode outside, from those inside; None: any number."""
        return most

    # -- what it keeps --------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Array]:
        """Its memory of the episodes under way, live arrays [N, ...] by name."""
        return self.memory

    def load_state(self, arrays: dict[str, Any]) -> None:
        """Restore `state()`, in place. Raises BadInput for what it does not give."""
        mine = self.state()
        if arrays.keys() != mine.keys():
            raise BadInput(f"a state of {type(self).__name__} has {_names(mine)}, got {_names(arrays)}")
        for name, array in mine.items():
            array[...] = restored({name: torch.as_tensor(arrays[name])}, name, array)

    def load_learned(self, arrays: dict[str, np.ndarray]) -> None:
        """Restore the persistent buffers, in place. Raises BadInput for other shapes, dtypes, and what is not finite."""
        for name, buffer in self.state_dict(keep_vars=True).items():
            buffer.copy_(restored({name: torch.as_tensor(arrays[name])}, name, buffer))

    def share(self, other: Transform) -> None:
        """Have the persistent buffers of `other`, one like it, as its own."""
        for name, buffer in other.state_dict(keep_vars=True).items():
            self.register_buffer(name, buffer)

    def constants(self, x: Any) -> tuple[Any, ...]:
        """Its buffers, in the order in which they were registered, as arrays of the kind of x."""
        if not isinstance(x, np.ndarray):
            return tuple(self.buffers())
        if self._numpy is None:  # views, so that what is learned in place is seen
            self._numpy = tuple(buffer.cpu().numpy() for buffer in self.buffers())
        return self._numpy

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        self._numpy = None
        super().register_buffer(name, tensor, persistent)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._numpy = None
        return super()._apply(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_numpy": None}  # a copy has buffers of its own

    def arguments(self) -> dict[str, object]:
        """What its constructor was called with, as plain values, without the defaults."""
        found = {}
        for name, parameter in inspect.signature(type(self)).parameters.items():
            value = plain(getattr(self, name))
            if value != plain(parameter.default):
                found[name] = value
        return found

    def __repr__(self) -> str:
        try:
            given = self.arguments()
        except AttributeError:  # one that is not kept; `check_transform` says so
            given = {}
        words = ", ".join(f"{name}={value!r:.60}" for name, value in given.items())
        return f"{type(self).__name__}({words})" if words else type(self).__name__


class OfObservation(Transform):
    """A pure function of the observation."""

    def look(self, observation: Observation) -> Observation:
        """Outside from inside, [..., *obs], numpy or torch."""
        raise NotImplementedError

    def step(self, result: Result) -> Result:
        return result._replace(observation=self.look(result.observation))

    def reset(self, observation: Observation, rows: Array) -> Observation:
        return self.look(observation)

    def forward(self, batch: Batch) -> Batch:
        """`observation` and `next.observation`."""
        return observed(batch, self.look)


class OfReward(Transform):
    """A pure function of the reward."""

    rewards = True

    def judge(self, reward: Array) -> Array:
        """Outside from inside, float32 [...], numpy or torch."""
        raise NotImplementedError

    def step(self, result: Result) -> Result:
        return result._replace(reward=self.judge(result.reward))

    def forward(self, batch: Batch) -> Batch:
        """`next.reward`."""
        batch["next"]["reward"] = self.judge(batch["next"]["reward"])
        return batch


class OfAction(Transform):
    """A pure function of the action. A buffer holds actions as the agent chose them, so batches stay as they are."""

    def forward(self, batch: Batch) -> Batch:
        return batch


class OfMoments(Transform):
    """Has learned a "mean", a "variance" and a "count", float64 buffers."""

    def load_learned(self, arrays: dict[str, np.ndarray]) -> None:
        """As `Transform.load_learned`, and BadInput for what no data can have been."""
        if (arrays["variance"] < 0).any() or (arrays["count"] <= 0).any():
            raise BadInput(f"{type(self).__name__} was to load statistics with a variance below 0, or a count of none")
        super().load_learned(arrays)


def observed(batch: Batch, look: Any) -> Batch:
    """The batch with `look` of its observations, where there are any, nested ones as dicts."""
    for part in (batch, batch["next"]):
        if "observation" in part.keys():  # noqa: SIM118  a TensorDict iterates over rows
            part["observation"] = look(_dicts(part["observation"]))
    return batch


def _dicts(tree: Any) -> Any:
    return {key: _dicts(value) for key, value in tree.items()} if hasattr(tree, "items") else tree


def plain(value: Any) -> Any:
    """Arrays and tuples as lists, for JSON."""
    if isinstance(value, np.ndarray | Tensor | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return {key: plain(each) for key, each in value.items()} if isinstance(value, dict) else value


def copied(tree: Observation) -> Observation:
    """A copy of an array, or of nested dicts of them."""
    return tree_map(lambda x: x.copy() if isinstance(x, np.ndarray) else x.clone(), tree)


def merged(tree: Observation, rows: Any, source: Observation) -> Observation:
    """A copy of `tree` whose `rows` (bool [N]) are those of `source`."""
    if isinstance(tree, dict):
        return {key: merged(value, rows, source[key]) for key, value in tree.items()}
    if isinstance(tree, np.ndarray):
        copy = tree.copy()
        copy[rows] = source[rows]
        return copy
    return torch.where(rows.reshape(-1, *[1] * (tree.ndim - 1)), source, tree)


def with_entry(tree: Observation, name: str, array: Array) -> Observation:
    """The observation as a dict with one more entry. One that was no dict is its entry "observation"."""
    return {**(tree if isinstance(tree, dict) else {"observation": tree}), name: array}


def space_with_entry(space: Space, name: str, entry: Space) -> Dict:
    """The space of `with_entry`. Raises Incompatible where there is an entry of that name."""
    parts = space.spaces if isinstance(space, Dict) else {"observation": space}
    if not re.fullmatch(
        r"[\w +-]+", name
    ):  # others stand for nesting in a batch, or could name a file in a run's folder
        raise Incompatible(f"an entry's name is made of letters, digits, _ and -, got {name!r:.60}")
    if name in parts:
        raise Incompatible(f"the observation has an entry {name!r} already: give another name")
    return Dict([*parts.items(), (name, entry)])


def float32(x: Any) -> Any:
    """The array, numpy or torch, in that precision."""
    return x.astype(np.float32) if isinstance(x, np.ndarray | np.generic) else x.float()


def flags(n: int, device: str, value: bool) -> Array:
    """bool [N]."""
    return np.full(n, value) if device == "cpu" else torch.full((n,), value, device=device)


def zeros(shape: tuple[int, ...], dtype: Any, device: str) -> Any:
    """Zeros of a numpy dtype: numpy on the CPU, else torch."""
    array = np.zeros(shape, dtype)
    return array if device == "cpu" else torch.as_tensor(array, device=device)


def _names(arrays: dict[str, Any]) -> str:
    return ", ".join(arrays) or "nothing"
