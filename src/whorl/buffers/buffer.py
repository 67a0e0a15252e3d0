"""The replay buffer: storage x sampler, with lookups and transforms at sample time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from whorl.batch import Arrays, Batch, Numbers, Part, State, load_states, states
from whorl.buffers import saved
from whorl.buffers.lookup.lookup import Lookup
from whorl.buffers.lookup.pure import in_order
from whorl.buffers.parts import Sampler, Storage
from whorl.buffers.transfer import Transfer
from whorl.errors import BadInput, Damaged
from whorl.options import CHANGED, MOST
from whorl.transforms.transform import Transform

TRIES = 100  # draws for one batch while other processes write over its rows


class ReplayBuffer:
    """Rows of a storage, chosen by a sampler, changed by lookups and then by transforms of single rows, in the order given.

    `replay_ratio`: batches due per row added after the first `warmup` rows (rows of all environments).
    `prefetch`: batches that a thread draws ahead, of one call of `batches`; the rows drawn do not depend on it, but
    priorities given back come `prefetch` batches later.
    `device`: where batches are handed out, if not where the storage has them.
    `within`: of columns that are indexed with, how many whole numbers from 0 their components may be: rows that come back are held to it.
    `recorded`: the storage holds data that somebody recorded. No rows are added, none are due, and none are in the state.
    Raises BadInput for sizes that cannot be, a transform that looks at more than one row, and a lookup after a transform.
    """

    def __init__(
        self,
        storage: Storage,
        sampler: Sampler,
        lookups: Sequence[Lookup | Transform] = (),
        batch_size: int = 256,
        replay_ratio: float = 1.0,
        warmup: int = 0,
        prefetch: int = 0,
        device: str | torch.device | None = None,
        recorded: bool = False,
        within: Mapping[str, Sequence[int]] | None = None,
    ):
        if batch_size < 1 or prefetch < 0 or warmup < 0:
            raise BadInput(
                "a replay buffer needs batch_size >= 1, warmup >= 0 and prefetch >= 0, "
                f"got {batch_size}, {warmup} and {prefetch}"
            )
        # 0.29 becomes 29/100, 0.333... becomes 1/3: no update is lost to a rounded product
        self.replay_ratio = Fraction(replay_ratio).limit_denominator(1_000_000)
        if self.replay_ratio <= 0:
            raise BadInput(f"replay_ratio must be at least 0.000001, got {replay_ratio}")
        self.storage, self.sampler, self.lookups = storage, sampler, in_order(lookups)
        # keys of rollouts that are not stored
        self.left_out = [key for lookup in self.lookups for key in lookup.rebuilds]
        self.batch_size, self.warmup, self.prefetch, self.recorded = batch_size, warmup, prefetch, recorded
        self._within = {name: sizes for name, sizes in (within or {}).items() if name not in self.left_out}
        self._sha256: str | None = None  # of recorded rows, which never change
        self.added = 0  # rows
        self.drawn = 0  # batches that were due
        storage.keep(prefetch + 1)
        moves = device is not None and torch.device(device) != torch.device(storage.device)
        self._transfer = Transfer(device, prefetch + 1) if moves and device is not None else None
        self._thread = ThreadPoolExecutor(1, "replay") if prefetch else None
        self._ahead: deque[Future[Batch]] = deque()

    def __len__(self) -> int:
        return len(self.storage)

    # ------------------------------------------------------------------------------------------------ rows in

    def add(self, rollout: Batch) -> None:
        """Stores the rows of a rollout [T, L] (those with `mask` True, where it has one)."""
        if self.recorded:
            raise BadInput("this buffer holds recorded data: no rows are added to it")
        shape = rollout.batch_size
        if len(shape) != 2 or shape[1] != self.storage.lanes:
            raise BadInput(
                f"the buffer keeps rollouts [T, {self.storage.lanes}], one lane for each environment; {list(shape)} came"
            )
        self._settle()
        if self.left_out:
            rollout = rollout.exclude(*(tuple(key.split(".")) for key in self.left_out))
        index = self.storage.write(rollout)
        self.added += index.numel()
        self.sampler.written(self.storage, index)

    # ------------------------------------------------------------------------------------------------ batches out

    def sample(self, size: int | None = None) -> Batch:
        """A batch of `size` rows (default: batch_size), valid until the next one is drawn. Raises BadInput when empty."""
        self._settle()
        for i, ahead in enumerate(self._ahead):  # this one would take their memory
            if not ahead.exception():
                self._ahead[i] = Future()
                self._ahead[i].set_result(ahead.result().clone())
        return self._draw(self.batch_size if size is None else size)

    def _draw(self, size: int) -> Batch:
        for _ in range(TRIES):
            index, weight, extras = self.sampler.draw(self.storage, size)
            batch = self.storage.read(index)
            if weight is not None:
                batch["weight"] = weight
            for key, value in extras.items():
                batch[key] = value
            for lookup in self.lookups:
                batch = lookup(self.storage, batch["index"], batch)  # a lookup may give fewer rows
            if all(map(self.storage.intact, [index, *(lookup.touched for lookup in self.lookups)])):
                return batch if self._transfer is None else self._transfer(batch)
        raise BadInput(
            f"other processes wrote over the rows of {TRIES} batches while they were read: "
            "give the storage more slack or a larger capacity"
        )

    def batches(self, count: int | None = None) -> Iterator[Batch]:
        """`count` batches, or (None) those due: floor(replay_ratio * (rows added - warmup)) less those that were due before.

        Each is valid until the next one is asked for. With `prefetch`, leaving the loop early throws drawn batches away.
        """
        due = count is None
        if count is None:
            count = self._due() - self.drawn if len(self) else 0
        try:
            for i in range(count):
                self.drawn += due
                yield self._next(count - i) if self._thread else self._draw(self.batch_size)
        finally:
            self._settle()
            self._ahead.clear()

    def _due(self) -> int:
        """Batches that were due so far, drawn or not."""
        ratio = self.replay_ratio  # in whole numbers: a Fraction's product looks for common factors each time
        return max(ratio.numerator * (self.added - self.warmup) // ratio.denominator, 0)

    def report(self) -> dict[str, float]:
        """For a run's log: the batches per row that there were."""
        rows = self.added - self.warmup
        return {"train/replay_ratio": self.drawn / rows} if rows > 0 and not self.recorded else {}

    def _next(self, left: int) -> Batch:
        """The oldest batch drawn ahead, while the thread goes on; `left` batches are still to come, with this one."""
        assert self._thread is not None
        while len(self._ahead) < min(self.prefetch, left):
            self._ahead.append(self._thread.submit(self._draw, self.batch_size))
        batch = self._ahead.popleft().result()
        if len(self._ahead) < left - 1:
            self._ahead.append(self._thread.submit(self._draw, self.batch_size))
        return batch

    def _settle(self) -> None:
        """Waits for the thread: what it draws never depends on how fast it is."""
        if self._ahead:
            wait(self._ahead)

    def feedback(self, index: Tensor, priority: Tensor) -> None:
        """New priorities [B] of the rows `index` [B] (absolute: those overwritten since are ignored); of sequences see their sampler."""
        self._settle()
        self.sampler.feedback(self.storage, index, priority)

    # ------------------------------------------------------------------------------------------------ keeping it

    def state(self) -> State:
        """(arrays, numbers) for a checkpoint, after the rows were brought to disk: they are not in it (see the storages)."""
        self._settle()
        if self.recorded:
            arrays, numbers = states(self.drawing())
            numbers |= {"rows": len(self), "sha256": self._digest()}
        else:
            self.storage.flush()
            arrays, numbers = states({"storage": self.storage, **self.drawing()})
        left = self._due() - self.drawn  # none between two rollouts, and no word of it in older states
        return arrays, numbers | {"added": self.added} | ({"left": left} if left else {})

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        """Whether the buffer is exactly as it was; else the oldest rows had been overwritten and it is shorter.

        What is due counts from here on: another replay ratio does not reach back. Raises BadInput where recorded data is other data than
        it was, Damaged for counts that cannot be.
        """
        self._settle()
        parts: dict[str, Part] = self.drawing()
        if not self.recorded:
            parts = {"storage": self.storage, **parts}
        elif numbers["rows"] != len(self):
            raise BadInput(
                f"the recorded data has {len(self):,} rows, it had {numbers['rows']:,} when this state was saved: use the same data"
            )
        elif numbers["sha256"] != self._digest():
            raise BadInput("the recorded data is not what it was when this state was saved: use the same data")
        exact = load_states(parts, arrays, numbers)
        self.added = numbers["added"]
        left = numbers.get("left", 0)
        self.drawn = self._due() - left
        if not ((self.recorded or len(self) <= self.added < MOST) and 0 <= self.drawn <= self._due()):
            raise Damaged(f"{left:,} batches of {self.added:,} added rows cannot be left to draw: {CHANGED}")
        self._check_within()
        return exact

    def _check_within(self) -> None:
        if not self._within or not len(self):
            return
        slots = self._live()
        for name, sizes in self._within.items():
            numbers = self.storage.column(name)[slots].reshape(len(slots), -1)
            wrong = (numbers < 0) | (numbers >= torch.tensor(sizes, device=numbers.device))
            if wrong.any():
                raise Damaged(f"{name} of a row holds {int(numbers[wrong][0])}, of {max(sizes)} choices: {CHANGED}")

    def _live(self) -> Tensor:
        """The slots of all rows that can be drawn, lane after lane, oldest first."""
        lanes, (low, high) = self.storage.lanes, self.storage.live()
        index = torch.cat([torch.arange(low[e], high[e]) * lanes + e for e in range(lanes)])
        return self.storage.slot(index.to(self.storage.device))

    def _digest(self) -> str:
        """SHA-256 of recorded rows, with their names and the number of lanes."""
        if self._sha256 is None:
            low, high = self.storage.live()
            digest = sha256(f"{low.tolist()} {high.tolist()}".encode())
            slots = self._live()
            for name in self.storage.names():
                column = self.storage.column(name)[slots]
                digest.update(f"{name} {column.dtype} {list(column.shape)}".encode())
                digest.update(column.contiguous().cpu().numpy().tobytes())
            self._sha256 = digest.hexdigest()
        return self._sha256

    def drawing(self) -> dict[str, Part]:
        """The parts that have a state, by name: the sampler, and those lookups that draw or learn."""
        some = {f"lookup{i}": lookup for i, lookup in enumerate(self.lookups) if any(lookup.state())}
        return {"sampler": self.sampler, **some}

    def save(self, folder: str | Path) -> Path:
        """Everything, rows included, as a folder that `load` reads (see saved.py)."""
        self._settle()
        return saved.save(self, folder)

    def load(self, folder: str | Path) -> None:
        """The inverse, into a buffer of the same parts and sizes."""
        self._settle()
        saved.load(self, folder)
