"""Which neighbours of a row in its lane are of its episode: where lookups look."""

from __future__ import annotations

import torch
from torch import Tensor

from whorl.batch import Batch, Tree, get
from whorl.buffers.parts import Storage


def goes_on(storage: Storage, slot: Tensor) -> Tensor:
    """bool [..., n - 1]: whether each of the rows in the slots [..., n], one after another in a lane, has the next one in its episode.

    An episode is over where it terminated or was truncated, where the next row begins one (`is_first`, where it is stored: an episode may
    be given up) or has another `trajectory` (where it is stored).
    """
    over = (storage.column("next.terminated")[slot] | storage.column("next.truncated")[slot])[..., :-1]
    names = storage.names()
    if "is_first" in names:
        over |= storage.column("is_first")[slot][..., 1:]
    if "trajectory" in names:
        trajectory = storage.column("trajectory")[slot]
        over |= trajectory[..., :-1] != trajectory[..., 1:]
    storage.looked_at(slot.numel())
    return ~over


def ahead(storage: Storage, index: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """(slots [..., n], bool [..., n]) of the rows t ... t + n - 1, and which of them are stored and of the episode of row t.

    index: absolute, on the storage's device. The slots of others are of some row that is stored.
    """
    lane, newest = index % storage.lanes, torch.as_tensor(storage.count, device=index.device) - 1
    left = (newest[lane] - index // storage.lanes).unsqueeze(-1)  # rows of the lane that come after
    steps = torch.arange(n, device=index.device)
    slot = storage.slot(index.unsqueeze(-1) + torch.minimum(steps, left) * storage.lanes)
    same = steps <= left
    if n > 1:
        same[..., 1:] &= goes_on(storage, slot)
        same = same.cumprod(-1).bool()
    return slot, same


def behind(storage: Storage, index: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """(absolute indexes [..., n], bool [...]) of the rows t - n + 1 ... t, the oldest first, and whether these are what the environment
    gave.

    Before an episode's first row, that row stands again. They are not what was given where so many rows belong to the episode and
    the oldest were overwritten since.
    """
    lanes, low = storage.lanes, torch.as_tensor(storage.live()[0], device=index.device)[index % storage.lanes]
    room = (index // lanes - low).unsqueeze(-1)  # rows of the lane before it that are live
    back = torch.arange(n - 1, -1, -1, device=index.device)
    slot = storage.slot(index.unsqueeze(-1) - torch.minimum(back, room) * lanes)
    same = back <= room
    same[..., :-1] &= goes_on(storage, slot)
    steps = same.flip(-1).cumprod(-1).sum(-1) - 1  # so far back its episode is there
    first = index - steps * lanes
    lost = (steps < n - 1) & (steps == room[..., 0]) & (low > 0)
    if "is_first" in storage.names():
        lost &= ~storage.column("is_first")[storage.slot(first)]
    return index.unsqueeze(-1) - torch.minimum(back, steps.unsqueeze(-1)) * lanes, ~lost


def gathered(storage: Storage, name: str, slot: Tensor) -> Tree:
    """The column `name` in these slots, in memory of its own; nested dicts of columns where it stands for several.

    Raises BatchError when there is none.
    """
    names, prefix = storage.names(), f"{name}."
    inner = dict.fromkeys(key.removeprefix(prefix).split(".")[0] for key in names if key.startswith(prefix))
    if inner and name not in names:
        return {key: gathered(storage, prefix + key, slot) for key in inner}
    storage.looked_at(slot.numel())
    return storage.column(name)[slot]


def counted(batch: Batch, rows: Tensor) -> Batch:
    """The batch with `mask` False also where `rows` (bool, of its shape) are False."""
    mask = get(batch, "mask")
    batch["mask"] = rows if mask is None else mask & rows
    return batch
