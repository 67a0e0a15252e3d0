"""Replay of stacks that keeps every frame once: a fifth of the memory of plain rows for stacks of four images.

Two rings of `Memory`: `pixels`, one frame a row, and `transitions`, all other keys and the number of the observation's
newest frame. In each lane frames are numbered as they come:

    start of an episode   the C frames of the observation
    every row             the newest frame of the true next.observation

so row with number f has observation = frames f-C+1 ... f and next.observation = frames f-C+2 ... f+1, whatever the
environment pads with, and however an episode ends. An episode of n rows takes n + C frames. The ring of frames has a
tenth more room than rows; where episodes of fewer than 10 C rows need still more, the oldest rows are given up early.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from whorl import batch
from whorl.batch import Arrays, Batch, Numbers, State
from whorl.buffers.layout import Layout, check_room
from whorl.buffers.storage_memory import Memory
from whorl.errors import BadInput, BatchError

MARGIN = 0.1  # frames beyond one a row, for the stacks at the beginning of episodes
NUMBER, PIXELS = "frame", "pixels"  # keys in the two rings


class Frames:
    """A storage like `Memory` for observations [stack, H, W] or [stack, D] of any dtype: consecutive frames, oldest first, as from the
    transform `StackFrames` and Gymnasium's FrameStackObservation. What comes back equals what was written bit for bit; that it can be
    rebuilt is checked when it is written. `writer`: as in `Memory`.

    `observation` and `next.observation` of a batch read share memory: do not write into them.
    Raises BadInput for sizes that cannot be, BatchError for observations that are no stacks of frames.
    """

    def __init__(
        self,
        capacity: int,
        lanes: int,
        stack: int = 4,
        slack: int = 0,
        writer: str = "ring",
        folder: str | Path | None = None,
    ) -> None:
        if stack < 1:
            raise BadInput(f"a stack has at least 1 frame, got stack={stack}")
        folders = [Path(folder) / part for part in ("transitions", "frames")] if folder is not None else [None, None]
        self.transitions = Memory(capacity, lanes, slack, writer=writer, folder=folders[0], parts=2)
        frames = math.ceil(self.transitions.rows * (1 + MARGIN)) + stack + 1
        # all the rows in the slack may have begun episodes: the frames they wrote must not reach those of live rows
        self.pixels = Memory(frames * lanes, lanes, slack * (stack + 1), folder=folders[1], parts=2)
        self.stack = stack
        self.capacity, self.lanes, self.slack, self.writer = capacity, lanes, slack, writer
        self.rows, self.ring, self.device = self.transitions.rows, self.transitions.ring, self.transitions.device
        self.floor = np.zeros(lanes, np.int64)  # rows before these have lost a frame
        self._offsets = torch.arange(1 - stack, 2)

    @property
    def count(self) -> np.ndarray:
        return self.transitions.count

    def keep(self, batches: int) -> None:
        """As `Memory.keep`."""
        self.transitions.keep(batches)
        self.pixels.keep(batches)

    @property
    def nbytes(self) -> int:
        """Bytes of all slots of both rings; 0 before memory was taken."""
        return self.transitions.nbytes + self.pixels.nbytes

    def needs(self, shape: tuple[int, ...], dtype: torch.dtype, transition: Layout) -> int:
        """The bytes that `nbytes` will be, for frames of a shape and dtype, and a layout of all other keys."""
        frame = Layout.pack([(PIXELS, dtype, shape)])
        pixels, transitions = self.pixels.ring * frame.row_bytes, self.transitions.ring * transition.row_bytes
        return (pixels + transitions) * self.lanes

    # ------------------------------------------------------------------------------------------------ writing

    def write(self, rollout: Batch, first_lane: int = 0) -> Tensor:
        """As `Memory.write`. Raises BatchError also where a frame in the middle of an episode is not the one before it
        moved on by one: such an observation could not be rebuilt."""
        here, there = self._checked(rollout)
        steps, envs = rollout.batch_size
        lanes = np.arange(first_lane, first_lane + envs)
        if first_lane < 0 or lanes[-1] >= self.lanes:
            raise BatchError(f"lanes {first_lane} to {lanes[-1]} were to be written, there are {self.lanes}")
        kept = _numpy(batch.get(rollout, "mask", torch.ones(steps, envs, dtype=torch.bool)))
        first, before = self._starts(rollout, kept, lanes)
        frames = np.cumsum(kept + kept * first * self.stack, 0)
        if self.writer == "once":
            self._refuse_overflow(
                (self.count[lanes] + kept.sum(0)).max(), (self.pixels.count[lanes] + frames[-1]).max()
            )
        self._verify(here, there, kept, first, before, lanes)
        number = self.pixels.count[lanes] + frames - 2
        entries = {key: value for key, value in rollout.items() if key not in ("observation", "next")}
        following = {key: value for key, value in rollout["next"].items() if key != "observation"}
        rest = batch.make({**entries, NUMBER: torch.from_numpy(number), "next": following}, (steps, envs))
        if self.transitions.layout is None:
            check_room(self.needs(tuple(here.shape[3:]), here.dtype, Layout.of(rest)), self.device)
        index = self.transitions.write(rest, first_lane)
        self._write_frames(here, there, kept, first, first_lane)
        self._give_up()
        if self.floor.any():
            k, lane = np.divmod(index.numpy(), self.lanes)
            index = index[torch.from_numpy(k >= self.floor[lane])]
        return index

    def _refuse_overflow(self, rows: int, frames: int) -> None:
        if rows > self.rows or frames > self.pixels.rows:
            raise BadInput(
                f"this storage is written once and holds {self.rows} rows and {self.pixels.rows} frames a lane; {rows} rows "
                f"with {frames} frames came. Use a larger capacity, or writer='ring'"
            )

    def _checked(self, rollout: Batch) -> tuple[Tensor, Tensor]:
        """observation and next.observation [T, N, C, *frame]."""
        found = []
        for name in ("observation", "next.observation"):
            value = batch.get(rollout, name)
            if not isinstance(value, Tensor) or value.ndim < 4 or value.shape[2] != self.stack:
                what = f"{value.dtype} {list(value.shape[2:])}" if isinstance(value, Tensor) else type(value).__name__
                raise BatchError(
                    f"the frame storage keeps stacks [{self.stack}, height, width] or [{self.stack}, numbers], {self.stack} frames with "
                    f'the oldest first; {name!r} is {what}: use storage="memory", or stack frames along the first axis'
                )
            found.append(value.cpu())
        kinds = [(value.dtype, tuple(value.shape[3:])) for value in found]
        kinds += [(field.dtype, field.shape) for field in (self.pixels.layout.fields if self.pixels.layout else ())]
        if len(set(kinds)) > 1:
            raise BatchError(
                "observations, successors and frames of earlier rollouts must have one dtype and size, got "
                + ", ".join(f"{dtype} {list(shape)}" for dtype, shape in kinds)
            )
        return found[0], found[1]

    def _starts(self, rollout: Batch, kept: np.ndarray, lanes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(whether a row begins an episode [T, N], the time of the row stored before it [T, N], -1: an earlier rollout)."""
        steps, envs = kept.shape
        ended = _numpy(batch.ended(rollout))
        times = np.where(kept, np.arange(steps)[:, None], -1)
        before = np.full((steps, envs), -1)
        before[1:] = np.maximum.accumulate(times, 0)[:-1]
        earlier = np.ones(envs, bool)  # the newest row of an earlier rollout ended its episode, or there is none
        some = self.count[lanes] > 0
        if some.any():
            slot = torch.from_numpy((self.count[lanes] - 1)[some] % self.ring * self.lanes + lanes[some])
            column = self.transitions.column
            earlier[some] = _numpy(column("next.terminated")[slot] | column("next.truncated")[slot])
        first = np.where(before >= 0, np.take_along_axis(ended, np.maximum(before, 0), 0), earlier)
        is_first = batch.get(rollout, "is_first")
        return (first if is_first is None else first | _numpy(is_first)), before

    def _verify(
        self, here: Tensor, there: Tensor, kept: np.ndarray, first: np.ndarray, before: np.ndarray, lanes: np.ndarray
    ) -> None:
        """Raises BatchError unless each observation is the successor before it, and its own successor overlaps with it."""
        moved = _equal(there[:, :, :-1], here[:, :, 1:])
        if self.stack > 1 and not moved[kept].all():
            self._refuse("next.observation", "observation", kept & ~moved)
        goes_on, same = kept & ~first, np.ones_like(kept)
        if (goes_on & (before >= 0)).any():
            plain = kept.all()  # the row before is the one above
            columns = np.arange(len(lanes))
            same[1:] = _equal(here[1:], there[:-1] if plain else there[np.maximum(before[1:], 0), columns])
        if (goes_on & (before < 0)).any():  # the row before came with an earlier rollout
            newest = self.pixels.count[lanes][:, None] + np.arange(-self.stack, 0)
            stored = self.pixels.read(torch.from_numpy(newest * self.lanes + lanes[:, None]))[PIXELS]
            time, column = np.nonzero(goes_on & (before < 0))
            whole = len(time) == len(lanes) and not time.any()
            these = (here[0], stored) if whole else (here[time, column], stored[column])
            same[time, column] = _equal(these[0][None], these[1][None])[0]
        if not (same | ~goes_on).all():
            self._refuse("observation", "the next.observation before it", goes_on & ~same)

    def _refuse(self, name: str, other: str, where: np.ndarray) -> None:
        t, e = np.argwhere(where)[0]
        raise BatchError(
            f"{name!r} of environment {e} at step {t} of the rollout is not {other!r} moved on by one frame: "
            'this environment does not stack frames, use storage="memory"'
        )

    def _write_frames(self, here: Tensor, there: Tensor, kept: np.ndarray, first: np.ndarray, first_lane: int) -> None:
        """The stacks at episode starts, and the newest frame of every successor, in order of time."""
        starts = kept & first
        cuts = [0, *(np.flatnonzero(starts[1:].any(1)) + 1), len(kept)]
        for t, end in zip(cuts[:-1], cuts[1:], strict=True):
            if starts[t].any():
                mask = np.repeat(starts[t][None], self.stack, 0)
                self._append(here[t].transpose(0, 1), mask, first_lane)
            self._append(there[t:end, :, -1], kept[t:end], first_lane)

    def _append(self, frames: Tensor, mask: np.ndarray, first_lane: int) -> None:
        entries = {PIXELS: frames.contiguous()}
        if not mask.all():
            entries["mask"] = torch.from_numpy(np.ascontiguousarray(mask))
        self.pixels.write(batch.make(entries, tuple(mask.shape)), first_lane)

    def _give_up(self) -> None:
        """Raises the floor over rows whose oldest frame was written over."""
        low, high = self.transitions.live()
        oldest, _ = self.pixels.live()
        if not len(self) or not (oldest > 0).any():
            return
        number, lanes = self.transitions.column(NUMBER), np.arange(self.lanes)

        def whole(k: np.ndarray) -> np.ndarray:
            slot = torch.from_numpy((k % self.ring) * self.lanes + lanes)
            return (_numpy(number[slot]) - self.stack + 1 >= oldest) | (k >= high)

        low = np.maximum(low, self.floor)
        if whole(low).all():
            return
        above = high.copy()  # bisection: numbers grow with k
        while (low < above).any():
            middle = (low + above) // 2
            good = whole(middle)
            above, low = np.where(good, middle, above), np.where(good, low, np.minimum(middle + 1, above))
        self.floor[:] = low

    # ------------------------------------------------------------------------------------------------ reading

    def __len__(self) -> int:
        low, high = self.live()
        return int((high - low).sum())

    def live(self) -> tuple[np.ndarray, np.ndarray]:
        """(low, high), int64 [L] each: the rows low <= k < high of each lane may be sampled."""
        low, high = self.transitions.live()
        return np.maximum(low, self.floor), high

    def window(self) -> tuple[int, int] | None:
        """(low, high) as integers where all lanes agree, else None."""
        window = self.transitions.window()
        return window if window is None or (self.floor <= window[0]).all() else None

    def slot(self, index: Tensor) -> Tensor:
        """The slot in memory of each absolute index."""
        return self.transitions.slot(index)

    def looked_at(self, rows: int) -> None:
        self.transitions.looked_at(rows)

    def column(self, name: str) -> Tensor:
        """One field over all slots, as a view [ring * L, ...]. Raises BatchError when there is none: frames are no field."""
        return self.transitions.column(name)

    def names(self) -> list[str]:
        """All keys of a batch, the stacks last."""
        images = ["observation", "next.observation"] if self.transitions.layout else []
        return [name for name in self.transitions.names() if name != NUMBER] + images

    def read(self, index: Tensor) -> Batch:
        """The rows of absolute indexes as a batch of shape index.shape, as `Memory.read`."""
        rows = self.transitions.read(index)
        frame = rows[NUMBER].unsqueeze(-1) + self._offsets
        pixels = self.pixels.read(frame * self.lanes + (index % self.lanes).unsqueeze(-1))[
            PIXELS
        ]  # [..., C + 1, *frame]
        del rows[NUMBER]
        rows["observation"] = pixels.narrow(index.ndim, 0, self.stack)
        rows["next"]["observation"] = pixels.narrow(index.ndim, 1, self.stack)
        return rows

    def intact(self, index: Tensor) -> bool:
        """Whether no other process can have overwritten these rows by now."""
        return True

    def ordered(self) -> Batch | list[Batch]:
        """All live rows, oldest first, in memory of their own, as `Memory.ordered`."""
        low, high = self.live()
        lanes = np.arange(self.lanes)
        if (high - low == high[0] - low[0]).all():
            return self._fresh((low + np.arange(high[0] - low[0])[:, None]) * self.lanes + lanes)
        return [self._fresh((np.arange(low[e], high[e]) * self.lanes + e)[:, None]) for e in lanes]

    def _fresh(self, index: np.ndarray) -> Batch:
        rows = self.read(torch.from_numpy(index)).clone()
        del rows["index"]
        return rows

    # ------------------------------------------------------------------------------------------------ on disk

    def flush(self) -> None:
        """Brings the rows written since the last flush to the folder, if there is one; on return they are on disk."""
        self.transitions.flush()
        self.pixels.flush()

    def state(self) -> State:
        """What a checkpoint keeps: ({}, counters of both rings). The rows are in the folder, as the last `flush` left them."""
        return {}, {"transitions": self.transitions.state()[1], "pixels": self.pixels.state()[1]}

    def load_state(self, arrays: Arrays, numbers: Numbers) -> bool:
        """As `Memory.load_state`."""
        exact = self.transitions.load_state({}, numbers["transitions"])
        exact = self.pixels.load_state({}, numbers["pixels"]) and exact
        self._recount()
        return exact

    def dump(self, folder: Path) -> Numbers:
        """Writes all rows to files in `folder` and returns the counters, for `ReplayBuffer.save`."""
        return {
            "transitions": self.transitions.dump(folder),
            "pixels": self.pixels.dump(folder, "frames.bin"),
        }

    def restore(self, folder: Path, numbers: Numbers) -> None:
        """The inverse of `dump`."""
        self.transitions.restore(folder, numbers["transitions"])
        self.pixels.restore(folder, numbers["pixels"], "frames.bin")
        self._recount()

    def _recount(self) -> None:
        self.floor[:] = 0
        if self.transitions.layout:
            self._give_up()


def _numpy(flags: Tensor) -> np.ndarray:
    return flags.cpu().numpy()


def _equal(one: Tensor, other: Tensor) -> np.ndarray:
    """bool [T, N]: whether two stacks [T, N, C, *frame] have the same bits."""
    one, other = one.flatten(3).view(torch.uint8), other.flatten(3).view(torch.uint8)
    if one.shape[3] % 8 == 0:  # eight bytes at once
        one, other = one.view(torch.int64), other.view(torch.int64)
    return (one == other).flatten(2).all(-1).numpy()
