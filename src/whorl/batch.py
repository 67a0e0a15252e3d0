"""The batch: a TensorDict with a fixed, written vocabulary.

Root = what was known and decided at t. `next` = all that `env.step` gave back. [T, N] from a collector, [B] or [T, B] from a
buffer; no trailing 1. Unknown keys are carried untouched. This is the only file that imports tensordict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from whorl.dynamo import marks_later
from whorl.errors import BatchError

with marks_later():
    from tensordict import TensorDict
    from tensordict.nn import InteractionType, set_interaction_type

Batch = TensorDict  # [T, N] from a collector, [B] or [T, B] from a buffer
Tree = Tensor | Mapping[str, "Tree"]  # an observation: a tensor, or nested dicts of them
Metrics = dict[str, Tensor]
Arrays = dict[str, Tensor]
Numbers = dict[str, Any]  # plain JSON: whole numbers of any size, finite floats, strings, lists, dicts
State = tuple[Arrays, Numbers]


class Part(Protocol):
    """Whatever a run must bring back: collector, buffer, sampler, lookup, hook, logger, window, policy, agent."""

    def state(self) -> State:
        """(arrays, numbers) from which `load_state` goes on."""

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        """Go on from `state()`. False: it goes on, but not to the same bits. What is held is written in place where others
        have views of it."""


class Buffer(Part, Protocol):
    """Where prepared rollouts go in and batches come out."""

    def add(self, rollout: Batch) -> None:
        """Take the rows of a prepared rollout [T, N]."""

    def batches(self, count: int | None = None) -> Iterator[Batch]:
        """`count` batches, or (None) those that are due. Each is valid until the next one is asked for."""

    def feedback(self, index: Tensor, priority: Tensor) -> None:
        """New priorities of rows that were drawn. Raises BadInput where rows have none."""


def states(parts: Mapping[str, Part]) -> State:
    """The state of several parts as one: arrays under `name.key`, numbers under `name`."""
    arrays: Arrays = {}
    numbers: Numbers = {}
    for name, part in parts.items():
        own, numbers[name] = part.state()
        arrays |= {f"{name}.{key}": value for key, value in own.items()}
    return arrays, numbers


def load_states(parts: Mapping[str, Part], arrays: Arrays, numbers: Numbers) -> bool:
    """The inverse of `states`, into the same parts. Whether all of them are exactly as they were."""
    exact = True
    for name, part in parts.items():
        own = {key.removeprefix(f"{name}."): value for key, value in arrays.items() if key.startswith(f"{name}.")}
        exact &= part.load_state(own, numbers[name])
    return exact


class Entry(NamedTuple):
    writer: str  # who should have written it
    dtype: torch.dtype | None  # None: whatever the space or the policy gives
    scalar: bool  # exactly the batch's shape


VOCABULARY: dict[str, Entry] = {
    "observation": Entry("the collector", None, False),
    "is_first": Entry("the collector", torch.bool, True),
    "action": Entry("the policy's `act`", None, False),
    "recurrent_state": Entry("the policy's `act`, where it has a memory", torch.float32, False),
    "log_prob": Entry("the policy's `act`", torch.float32, True),
    "action_mask": Entry("the environment", torch.bool, False),
    "version": Entry("the collector", torch.int64, True),
    "mask": Entry("whoever invented the row (environment adapter, collector)", torch.bool, True),
    "advantage": Entry("`agent.prepare`", torch.float32, True),
    "return": Entry("`agent.prepare`", torch.float32, True),
    "value": Entry("`agent.prepare`", torch.float32, True),
    "index": Entry("the buffer", torch.int64, True),
    "weight": Entry("a prioritized buffer", torch.float32, True),
    "relabelled": Entry("the hindsight lookup", torch.bool, True),
    "trajectory": Entry("the transform trajectory_id", torch.int64, True),
    "noise": Entry("the agent's `update`", None, False),
    "next.observation": Entry("the collector", None, False),
    "next.reward": Entry("the environment", torch.float32, True),
    "next.terminated": Entry("the environment", torch.bool, True),
    "next.truncated": Entry("the environment", torch.bool, True),
    "next.action": Entry("the collector, for agents that read it", None, False),
    "next.action_mask": Entry("the collector, where the environment has masks", torch.bool, False),
    "next.discount": Entry("n-step returns or a macro action", torch.float32, True),
    "next.reward_vector": Entry("an environment that pays several rewards at once", torch.float32, False),
    "next.cost": Entry("an environment that counts harm apart from the reward", torch.float32, True),
    "next.index": Entry("n-step returns", torch.int64, True),
}


def make(entries: Mapping[str, Any], shape: tuple[int, ...], device: str | torch.device | None = None) -> TensorDict:
    """A batch of tensors (nested dicts allowed) that all start with `shape`. Tensors are shared, not copied."""
    return TensorDict(dict(entries), batch_size=shape, device=device)


def interaction(drawn: bool) -> AbstractContextManager[None]:
    """Inside the block modules of `tensordict.nn` draw from their distributions, or else take the likeliest."""
    return set_interaction_type(InteractionType.RANDOM if drawn else InteractionType.DETERMINISTIC)


def get(batch: Any, key: str, default: Any = None) -> Any:
    """`batch["next"]["reward"]` by its written name `next.reward`; `default` when it is not there."""
    for part in key.split("."):
        if part not in batch.keys():  # noqa: SIM118  `in` a TensorDict means something else
            return default
        batch = batch[part]
    return batch


def check(batch: Any, *keys: str, team: int | None = None) -> None:
    """That `keys` (written as in the vocabulary: `next.reward`) are there with the right shape and dtype.

    `team`: number of agents; per-agent scalars then have shape [*batch, team].
    Raises BatchError naming the key, what was expected, what came and who should have written it.
    """
    shape = tuple(batch.batch_size)
    scalar = shape if team is None else (*shape, team)
    for key in keys:
        entry = VOCABULARY.get(key)
        writer = f"; {entry.writer} writes it" if entry else ""
        value = get(batch, key)
        if value is None:
            raise BatchError(f"the batch has no {key!r}{writer}. It has {', '.join(names(batch))}")
        if entry is None:
            continue
        if entry.dtype is not None and value.dtype != entry.dtype:
            raise BatchError(f"{key!r} has dtype {value.dtype}, expected {entry.dtype}{writer}")
        came = tuple(value.shape)
        if entry.scalar and came != scalar:
            hint = " (no trailing 1: squeeze it)" if came == (*scalar, 1) else ""
            raise BatchError(f"{key!r} has shape {list(came)}, expected {list(scalar)}{hint}{writer}")


def names(batch: Any, prefix: str = "") -> list[str]:
    """All keys of a batch as written names: `observation`, `next.reward`, ..."""
    found: list[str] = []
    for key in batch.keys():  # noqa: SIM118  iterating a TensorDict goes over its rows
        value = batch[key]
        found += names(value, f"{prefix}{key}.") if hasattr(value, "keys") else [prefix + key]
    return found


def ended(batch: Any) -> Tensor:
    """bool [T, N]: the episode ended here, either way."""
    return batch["next"]["terminated"] | batch["next"]["truncated"]


def discounts(rollout: Any, discount: float) -> float | Tensor:
    """The rollout's own `next.discount`, else `discount`; 1 in rows that do not count, as they took no time: what was worth V before an
    episode was lost stays worth V."""
    own, mask = get(rollout, "next.discount", discount), get(rollout, "mask")
    return own if mask is None else torch.where(mask, torch.as_tensor(own, dtype=torch.float32), 1.0)


@torch.no_grad()
def values(
    f: Callable[[Any], Tensor], rollout: TensorDict, later: Callable[[Any], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """(value, next_value), each [T, N]: f at `observation`, and at `next.observation`.

    The successor of a row is the next row's observation unless the row ended, is masked or is the last: f is evaluated again on those rows
    only. Of a critic that shares a torso or a memory with the policy `value` was recorded; later: its values of the successors of rows [B].
    """
    successor = rollout["next"]["observation"]
    value = f(rollout["observation"]) if later is None else rollout["value"]
    again = ended(rollout)
    again[-1] = True
    mask = get(rollout, "mask")
    if mask is not None:
        again |= ~mask
    next_value = torch.cat([value[1:], value[-1:]])
    next_value[again] = f(successor[again]) if later is None else later(rollout[again])
    return value, next_value


def rename(batch: TensorDict, mapping: Mapping[str, str]) -> TensorDict:
    """A new batch with keys renamed, written names on both sides: `rename(batch, {"obs": "observation", "r": "next.reward"})`.

    Raises BatchError when a key to rename is missing or a new name is taken.
    """
    values = {old: get(batch, old) for old in mapping}
    result = batch.copy()
    for old, value in values.items():
        if value is None:
            raise BatchError(f"cannot rename {old!r}: the batch has {', '.join(names(batch))}")
        result = result.exclude(tuple(old.split(".")))
    for old, new in mapping.items():
        if get(result, new) is not None:
            raise BatchError(f"cannot rename {old!r} to {new!r}: that name is taken")
        result[tuple(new.split("."))] = values[old]
    return result


_TORCHRL = {  # ours -> theirs. Theirs are [N, T] with a trailing 1 on the scalars
    "observation": "observation",
    "is_first": "is_init",
    "action": "action",
    "log_prob": "action_log_prob",
    "action_mask": "action_mask",
    "mask": "collector.mask",
    "advantage": "advantage",
    "return": "value_target",
    "value": "state_value",
    "next.observation": "next.observation",
    "next.reward": "next.reward",
    "next.terminated": "next.terminated",
    "next.truncated": "next.truncated",
}
_NO_TRAILING_ONE = {"log_prob", "mask"}  # TorchRL keeps these without


def to_torchrl(batch: TensorDict) -> TensorDict:
    """Our batch in TorchRL's layout: time second, trailing 1 on scalars, `done` flags at the root and in `next`, their key names.

    Keys outside the vocabulary keep their names. The tensors are views where a view can express the change.
    """
    batch = batch.transpose(0, 1) if len(batch.batch_size) == 2 else batch
    entries: dict[tuple[str, ...], Tensor] = {}
    for key in names(batch):
        value, entry = get(batch, key), VOCABULARY.get(key)
        if entry and entry.scalar and key not in _NO_TRAILING_ONE:
            value = value.unsqueeze(-1)
        entries[tuple(_TORCHRL.get(key, key).split("."))] = value
    if get(batch, "next.terminated") is not None:
        entries["next", "done"] = ended(batch).unsqueeze(-1)
        for flag in ("done", "terminated", "truncated"):  # no episode has ended where a step begins
            entries[flag,] = torch.zeros_like(entries["next", "done"])
    result = TensorDict({}, batch_size=batch.batch_size)
    for path, value in entries.items():
        result[path] = value
    if len(batch.batch_size) == 2:
        result.names = [None, "time"]
    return result


def from_torchrl(batch: TensorDict) -> TensorDict:
    """The inverse of `to_torchrl`; `done` flags are dropped, since `terminated` and `truncated` say more."""
    ours = {theirs: key for key, theirs in _TORCHRL.items()}
    shape = batch.batch_size
    result = TensorDict({}, batch_size=shape)
    for key in names(batch):
        if key in ("done", "terminated", "truncated", "next.done"):
            continue
        new = ours.get(key, key)
        value, entry = get(batch, key), VOCABULARY.get(new)
        if entry and entry.scalar and value.ndim == len(shape) + 1 and value.shape[-1] == 1:
            value = value.squeeze(-1)
        result[tuple(new.split("."))] = value
    return result.transpose(0, 1) if len(shape) == 2 else result
