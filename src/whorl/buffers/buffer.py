"""The replay buffer: storage x sampler, with transforms at sample time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from whorl.buffers import saved
from whorl.buffers.transfer import Transfer
from whorl.errors import BadInput

Transform = Callable[[Any, Tensor, Any], Any]
TRIES = 100  # draws for one batch while other processes write over its rows


class ReplayBuffer:
    """Rows of a storage, chosen by a sampler, changed by transforms `(storage, index, batch) -> batch`.

    `replay_ratio`: batches due per row added after the first `warmup` rows (rows of all environments).
    `prefetch`: batches that a thread draws ahead, of one call of `batches`; the rows drawn do not depend on it, but
    priorities given back come `prefetch` batches later.
    `device`: where batches are handed out, if not where the storage has them.
    """

    def __init__(
        self,
        storage: Any,
        sampler: Any,
        transforms: Sequence[Transform] = (),
        batch_size: int = 256,
        replay_ratio: float = 1.0,
        warmup: int = 0,
        prefetch: int = 0,
        device: str | torch.device | None = None,
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
        self.storage, self.sampler, self.transforms = storage, sampler, tuple(transforms)
        self.batch_size, self.warmup, self.prefetch = batch_size, warmup, prefetch
        self.added = 0  # rows
        self.drawn = 0  # batches that were due
        storage.memories = prefetch + 1
        moves = device is not None and torch.device(device) != torch.device(storage.device)
        self._transfer = Transfer(device, prefetch + 1) if moves and device is not None else None
        self._thread = ThreadPoolExecutor(1, "replay") if prefetch else None
        self._ahead: deque[Future] = deque()

    def __len__(self) -> int:
        return len(self.storage)

    # ------------------------------------------------------------------------------------------------ rows in

    def add(self, rollout: Any) -> None:
        """Stores the rows of a rollout [T, L] (those with `mask` True, where it has one)."""
        shape = rollout.batch_size
        if len(shape) != 2 or shape[1] != self.storage.lanes:
            raise BadInput(
                f"the buffer keeps rollouts [T, {self.storage.lanes}], one lane for each environment; {list(shape)} came"
            )
        self._settle()
        index = self.storage.write(rollout)
        self.added += len(index)
        self.sampler.written(self.storage, index)

    # ------------------------------------------------------------------------------------------------ batches out

    def sample(self, size: int | None = None) -> Any:
        """A batch of `size` rows (default: batch_size), valid until the next one is drawn. Raises BadInput when empty."""
        self._settle()
        return self._draw(self.batch_size if size is None else size)

    def _draw(self, size: int) -> Any:
        for _ in range(TRIES):
            index, weight, extras = self.sampler.draw(self.storage, size)
            batch = self.storage.read(index)
            if weight is not None:
                batch["weight"] = weight
            for key, value in extras.items():
                batch[key] = value
            for transform in self.transforms:
                batch = transform(self.storage, index, batch)
            read = [index, *(part.touched for part in self.transforms if hasattr(part, "touched"))]
            if all(map(self.storage.intact, read)):
                return batch if self._transfer is None else self._transfer(batch)
        raise BadInput(
            f"other processes wrote over the rows of {TRIES} batches while they were read: "
            "give the storage more slack or a larger capacity"
        )

    def batches(self, count: int | None = None) -> Iterator[Any]:
        """`count` batches, or (None) those due: floor(replay_ratio * (rows added - warmup)) less those that were due before.

        Each is valid until the next one is asked for. With `prefetch`, leaving the loop early throws drawn batches away.
        """
        due = count is None
        if count is None:
            ratio = self.replay_ratio  # in whole numbers: a Fraction's product looks for common factors each time
            count = ratio.numerator * (self.added - self.warmup) // ratio.denominator - self.drawn if len(self) else 0
        try:
            for i in range(count):
                self.drawn += due
                yield self._next(count - i) if self._thread else self._draw(self.batch_size)
        finally:
            self._settle()
            self._ahead.clear()

    def _next(self, left: int) -> Any:
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
        """New priorities [B] of the rows `index` [B] (absolute: those overwritten since are ignored)."""
        self._settle()
        self.sampler.feedback(self.storage, index, priority)

    # ------------------------------------------------------------------------------------------------ keeping it

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """(tensors, numbers) for a checkpoint, after the rows were brought to disk: they are not in it (see the storages)."""
        self._settle()
        self.storage.flush()
        numbers: dict[str, Any] = {"added": self.added, "drawn": self.drawn}
        arrays: dict[str, Tensor] = {}
        for name, part in (("storage", self.storage), *self.drawing()):
            tensors, numbers[name] = part.state()
            arrays |= {f"{name}.{key}": value for key, value in tensors.items()}
        return arrays, numbers

    def load_state(self, arrays: dict[str, Tensor], numbers: dict[str, Any]) -> bool:
        """Whether the buffer is exactly as it was; else the oldest rows had been overwritten and it is shorter."""
        self._settle()
        part = lambda name: {key.removeprefix(f"{name}."): x for key, x in arrays.items() if key.startswith(f"{name}.")}  # noqa: E731
        exact = self.storage.load_state(part("storage"), numbers["storage"])
        for name, drawing in self.drawing():
            drawing.load_state(part(name), numbers[name])
        self.added, self.drawn = numbers["added"], numbers["drawn"]
        return exact

    def drawing(self) -> list[tuple[str, Any]]:
        """The parts that draw random numbers, and so have a state, by name: the sampler, and some transforms."""
        some = [(f"transform{i}", part) for i, part in enumerate(self.transforms) if hasattr(part, "state")]
        return [("sampler", self.sampler), *some]

    def save(self, folder: str | Path) -> Path:
        """Everything, rows included, as a folder that `load` reads (see saved.py)."""
        self._settle()
        return saved.save(self, folder)

    def load(self, folder: str | Path) -> None:
        """The inverse, into a buffer of the same parts and sizes."""
        self._settle()
        saved.load(self, folder)
