"""What `check_buffer` asks of a storage by itself."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch

from whorl import batch
from whorl.batch import Batch
from whorl.buffers.known_rows import KnownRows, demand, overwrite
from whorl.buffers.parts import Storage
from whorl.errors import BufferFault, WhorlError


def check_storage(storage: Storage, story: KnownRows, seed: int) -> None:
    """Write all rows, and look after each rollout at what is there. Raises BufferFault."""
    count = np.zeros(story.lanes, np.int64)
    for number, (rollout, index) in enumerate(story.rollouts(seed)):
        came = storage.write(rollout)
        demand(
            "storage",
            came.dtype is torch.int64 and np.array_equal(came.numpy(), index),
            f"wrote rows and returned the indexes {came.tolist()}, expected {index.tolist()}: the k-th row of lane e has the "
            "absolute index k * lanes + e, oldest first, and rows with mask False have none",
        )
        overwrite(rollout)  # the collector uses its memory again
        count += np.bincount(index % story.lanes, minlength=story.lanes)
        check_contents(storage, story, count)
        if number == 3:
            _refusals(storage, story, seed)
            check_contents(storage, story, count)


def check_contents(storage: Storage, story: KnownRows, count: np.ndarray, left_out: Collection[str] = ()) -> None:
    """That every live row is there, and only those, where `count` [L] rows were written without the keys `left_out`. Raises
    BufferFault."""
    low, high = storage.live()
    least = np.maximum(count - storage.rows, 0)
    demand(
        "storage",
        np.array_equal(storage.count, count) and np.array_equal(high, count) and (low >= least).all(),
        f"says that rows {low.tolist()} to {high.tolist()} of each lane are live and {np.asarray(storage.count).tolist()} were "
        f"written; {count.tolist()} were written, so {least.tolist()} to {count.tolist()} can be",
    )
    demand(
        "storage",
        len(storage) == (high - low).sum()
        and storage.window() in (None, (int(low[0]), int(high[0])))
        and (storage.window() is None or (len(set(low.tolist())) == len(set(high.tolist())) == 1)),
        f"has len() = {len(storage)} and window() = {storage.window()}, live() = {low.tolist()}, {high.tolist()}: they must agree",
    )
    live = torch.cat([torch.arange(low[e], high[e]) * story.lanes + e for e in range(story.lanes)])
    storage.keep(2)
    rows = storage.read(live)
    kept = rows.clone()
    storage.read(live.flip(0))
    demand(
        "storage",
        bool((rows == kept).all()),
        "was told keep(2), and reading a second batch changed the first: give each batch memory of its own",
    )
    demand("storage", torch.equal(kept["row"], live), "gave back other rows by read(index) than those of these indexes")
    story.check(kept, "storage", left_out)
    demand("storage", storage.intact(live), "says of rows that nobody else writes that they are not intact")
    slots = storage.slot(live)
    demand("storage", len(slots.unique()) == len(live), "gives two live rows one slot")
    for name in ("is_first", "next.reward", "next.terminated", "next.truncated"):
        column = storage.column(name)[slots]
        demand(
            "storage",
            torch.equal(column, batch.get(kept, name)) and name in storage.names(),
            f"gives other values by column({name!r})[slot(index)] than by read(index), or does not list it in names()",
        )


def _refusals(storage: Storage, story: KnownRows, seed: int) -> None:
    """Rollouts unlike the first one. None may leave a row behind."""
    good = next(story.rollouts(seed))[0]
    wide: Batch = torch.cat([good, good], 1)  # type: ignore[assignment]
    less, more = good.clone(), good.clone()
    dtype, shape = good.clone(), good.clone()
    del less["action"]
    more["surprise"] = good["action"].clone()
    dtype["action"] = good["action"].double()
    shape["action"] = good["action"][..., :1].clone()
    bad = {"more lanes than there are": wide, "a key missing": less, "a new key": more, "another dtype": dtype,
           "another shape": shape}  # fmt: skip
    for what, rollout in bad.items():
        try:
            storage.write(rollout)
        except WhorlError:
            continue
        raise BufferFault(f"the storage took a rollout with {what}: raise BatchError before anything is written")


def check_lanes(storage: Storage, story: KnownRows, seed: int) -> None:
    """Write each lane by itself, the last one first. Raises BufferFault."""
    rollout = next(story.rollouts(seed))[0]
    for lane in reversed(range(story.lanes)):
        index = storage.write(rollout[:, lane : lane + 1].clone(), first_lane=lane)
        demand(
            "storage",
            (index % story.lanes == lane).all(),
            f"was told first_lane={lane} and wrote the indexes {index.tolist()} of other lanes",
        )
    check_contents(storage, story, np.full(story.lanes, len(rollout)))
