"""Samplers of sequences [T, B] for recurrent agents: T consecutive rows of one lane, uniform or prioritized (R2D2)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from whorl.batch import Arrays, Numbers, State
from whorl.buffers.parts import Draw, Storage
from whorl.buffers.sample_prioritized import Priorities, Prioritized
from whorl.buffers.sample_uniform import Uniforms
from whorl.buffers.sum_tree import check
from whorl.errors import BadInput


class Windows:
    """Which sequences of burn_in + length consecutive rows there are: they begin at rows 0, s, 2 s, ... of a lane, s = length - overlap.

    A sequence may be drawn while all of its rows are live: it crosses neither the write cursor nor the oldest live row. So the newest
    rows of a lane, fewer than s of them, wait for more: of data that does not grow, overlap = length - 1 leaves out none (but where
    sequences do not go across ends, the rows of a last episode that is shorter than one).
    Sequence j of lane e has the number j * L + e and begins at row k = j * s of the lane, absolute index k * L + e.
    """

    def __init__(self, length: int, burn_in: int = 0, overlap: int = 0, across_ends: bool = True):
        if length < 1 or burn_in < 0:
            raise BadInput(f"sequences need length >= 1 and burn_in >= 0, got length={length}, burn_in={burn_in}")
        if not 0 <= overlap < length:
            raise BadInput(f"overlap must lie in [0, length), got overlap={overlap} for length={length}")
        self.length, self.burn_in, self.stride, self.across_ends = length, burn_in, length - overlap, across_ends
        self.rows = burn_in + length

    def live(self, storage: Storage) -> tuple[np.ndarray, np.ndarray]:
        """(low, high) int64 [L]: sequences low <= j < high of each lane lie wholly within the live rows.

        Raises BadInput if the storage is too small to be sure of one, whatever it holds.
        """
        needed = self.rows + self.stride - 1
        if storage.rows < needed:
            raise BadInput(
                f"sequences of {self.rows} rows (burn_in {self.burn_in} + length {self.length}) that begin every "
                f"{self.stride} rows need a buffer of {needed} rows a lane, this one has {storage.rows}: "
                f"raise its capacity to {needed * storage.lanes} ({storage.lanes} lanes), or use shorter sequences"
            )
        low, high = storage.live()
        first = -(-low // self.stride)
        return first, np.maximum((high - self.rows) // self.stride + 1, first)

    def none_yet(self, storage: Storage) -> BadInput:
        low, high = storage.live()
        return BadInput(
            f"no sequence can be drawn yet: it needs {self.rows} rows of one lane (burn_in {self.burn_in} + length "
            f"{self.length}, begun at a multiple of {self.stride}), the longest has {int((high - low).max())}. Add rows first"
        )

    def index(self, storage: Storage, number: Tensor) -> Tensor:
        """The absolute indexes [burn_in + length, B] of sequences `number` [B]."""
        lanes = storage.lanes
        first = number // lanes * self.stride * lanes + number % lanes
        return first + torch.arange(self.rows, device=number.device)[:, None] * lanes

    def number(self, storage: Storage, index: Tensor) -> Tensor:
        """The inverse of `index`. Raises BadInput for indexes that no sequence has."""
        k, lane = index[0] // storage.lanes, index[0] % storage.lanes
        if index.shape[0] != self.rows or (k % self.stride).any():
            raise BadInput(
                f"these are not indexes of this sampler: it gives [{self.rows}, B], begun at multiples of {self.stride} rows"
            )
        return k // self.stride * storage.lanes + lane

    def mask(self, storage: Storage, index: Tensor) -> Tensor:
        """bool [burn_in + length, B]: True up to and with the first row where the episode ends; all True with across_ends."""
        mask = torch.ones(index.shape, dtype=torch.bool, device=index.device)
        if not self.across_ends:
            slots = storage.slot(index)
            ended = storage.column("next.terminated")[slots] | storage.column("next.truncated")[slots]
            ended = ended[:-1]
            if "is_first" in storage.names():  # an episode may be given up without an end
                ended = ended | storage.column("is_first")[slots][1:]
            mask[1:] = ended.cumsum(0) == 0
        return mask

    def padded(self, storage: Storage, index: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(index, extras): without across_ends the rows after the first end repeat the ending row, and `mask` is False there."""
        if self.across_ends:
            return index, {}
        mask = self.mask(storage, index)
        last = mask.sum(0) - 1
        steps = torch.arange(self.rows, device=index.device)[:, None].minimum(last)
        return index[0] + steps * storage.lanes, {"mask": mask}


class Sequences:
    """Sequences with replacement, every one that there is with equal probability: `Windows` says which there are.

    Gives absolute indexes [burn_in + length, B]. With `across_ends` episodes may end inside: `is_first` is True in the
    row that begins the next one. Without, the rows after the first end are padding: they repeat the ending row and `mask`
    [burn_in + length, B] is False there (it is True in the burn-in, which the agent leaves out of its loss itself).
    A sequence may begin in mid-episode: its first row's `is_first` stays what it was, and a stored carry is read as any key.
    """

    def __init__(self, seed: int, length: int, burn_in: int = 0, overlap: int = 0, across_ends: bool = True):
        self.windows = Windows(length, burn_in, overlap, across_ends)
        self._uniforms = Uniforms(seed)

    def draw(self, storage: Storage, size: int) -> Draw:
        """(index int64 [burn_in + length, size], None, extras).

        Raises BadInput if no sequence is there yet, or the storage is too small for one.
        """
        low, high = self.windows.live(storage)
        ends = np.cumsum(high - low)
        if ends[-1] == 0:
            raise self.windows.none_yet(storage)
        chosen = (self._uniforms.take(size) * ends[-1]).astype(np.int64)
        lane = np.searchsorted(ends, chosen, side="right")
        number = torch.from_numpy((high[lane] - (ends[lane] - chosen)) * storage.lanes + lane)
        index, extras = self.windows.padded(storage, self.windows.index(storage, number.to(storage.device)))
        return index, None, extras

    def written(self, storage: Storage, index: Tensor) -> None:
        """Raises BadInput if the storage is too small for the sequences."""
        self.windows.live(storage)

    def feedback(self, storage: Storage, index: Tensor, priority: Tensor) -> None:
        raise BadInput(
            "uniform sampling of sequences has no priorities: use PrioritizedSequences, or leave feedback out"
        )

    def state(self) -> State:
        return self._uniforms.state()

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        return self._uniforms.load_state(arrays, numbers)


class PrioritizedSequences(Prioritized):
    """Sequences as `Sequences` gives them, drawn and weighted as `Prioritized` does rows: one leaf for each sequence.

    A sequence's priority is `sequence_priority` over its counted rows (not the burn-in, not the padding), both of what
    comes back as feedback and of rows that are stored with a key "priority"; both are raised to alpha, once.
    Its leaf is 0 from when its oldest row leaves until its last row is written again.
    """

    def __init__(
        self,
        seed: int,
        length: int,
        burn_in: int = 0,
        overlap: int = 0,
        across_ends: bool = True,
        alpha: float = 0.6,
        beta: float = 0.4,
        beta_steps: int = 0,
        initial: float | None = None,
        eta: float = 0.9,
        backend: str | None = None,
    ):
        super().__init__(seed, alpha, beta, beta_steps, initial, backend)
        if not 0 <= eta <= 1:
            raise BadInput(f"eta must lie in [0, 1], got {eta}")
        self.windows, self.eta = Windows(length, burn_in, overlap, across_ends), eta

    def draw(self, storage: Storage, size: int) -> Draw:
        """(index int64 [burn_in + length, size], weight float32 of the same shape, equal within a sequence, extras)."""
        number, weight = self._draw(storage, size)
        index, extras = self.windows.padded(storage, self.windows.index(storage, number))
        return index, weight.expand(index.shape), extras

    def feedback(self, storage: Storage, index: Tensor, priority: Tensor) -> None:
        """New priorities for `index` [burn_in + length, B]: [length, B] or [burn_in + length, B] of rows, or [B] of whole sequences.

        Sequences that are no longer live are ignored. Raises BadInput for a priority that is NaN, negative or infinite.
        """
        number = self.windows.number(storage, index.to(storage.device))
        if priority.ndim == 2:
            priority = self._of_rows(storage, number, priority.detach().to(storage.device))
        self._follow(storage).update(number, priority)

    def _of_rows(self, storage: Storage, number: Tensor, priority: Tensor) -> Tensor:
        windows = self.windows
        if len(priority) not in (windows.length, windows.rows) or priority.shape[1] != len(number):
            raise BadInput(
                f"priorities of rows must have shape [{windows.length}, {len(number)}] (or with the burn-in "
                f"[{windows.rows}, {len(number)}]), got {list(priority.shape)}"
            )
        priority = priority[-windows.length :]
        mask = windows.mask(storage, windows.index(storage, number))[-windows.length :]
        priority = torch.where(mask, priority, 0.0)
        check("priority", priority.flatten())
        return sequence_priority(priority, mask, self.eta)

    def _new(self, storage: Storage) -> Priorities:
        ring = storage.rows // self.windows.stride + 1
        return Priorities(storage.lanes, ring, self.alpha, storage.device, self.backend)

    def _window(self, storage: Storage) -> tuple[np.ndarray, np.ndarray]:
        return self.windows.live(storage)

    def _given(self, storage: Storage) -> Callable[[Tensor], Tensor] | None:
        of_row = super()._given(storage)
        if of_row is None:
            return None
        return lambda number: self._of_rows(storage, number, of_row(self.windows.index(storage, number)))

    def _nothing(self, storage: Storage) -> BadInput:
        return self.windows.none_yet(storage)


def sequence_priority(delta: Tensor, mask: Tensor | None = None, eta: float = 0.9) -> Tensor:
    """eta * max_t |delta_t| + (1 - eta) * mean_t |delta_t| over the rows where `mask` is True (all without; 0 where none is).

    delta: [T, B]; returns [B]. Kapturowski et al. 2019, section 2.3.
    """
    size = delta.abs()
    if mask is None:
        return eta * size.amax(0) + (1 - eta) * size.mean(0)
    size = torch.where(mask, size, 0.0)
    return eta * size.amax(0) + (1 - eta) * size.sum(0) / mask.sum(0).clamp(min=1)
