"""Every storage x sampler x writer against a plain list of transitions: 1,000 random operations each, 10,000 in `make learn`.

To put a new class under the test, add a line to STORAGES or SAMPLERS.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from whorl import batch
from whorl.buffers.buffer import ReplayBuffer
from whorl.buffers.sample_prioritized import Prioritized
from whorl.buffers.sample_sequence import PrioritizedSequences, Sequences
from whorl.buffers.sample_uniform import Uniform, WithoutReplacement
from whorl.buffers.storage_frames import Frames
from whorl.buffers.storage_memmap import Memmap
from whorl.buffers.storage_memory import Memory
from whorl.errors import BadInput

OPERATIONS = [1_000, pytest.param(10_000, marks=pytest.mark.learning)]
LANES, ROWS, SLACK, LONGEST = 3, 29, 64, 7
CAPACITY = ROWS * LANES


class Numbers:
    """Rollouts in which every row is unlike every other. An environment that only frame storages need can take its place."""

    def __init__(self, generator: torch.Generator):
        self.generator = generator

    def rollout(self, steps: int, mask: torch.Tensor | None) -> Any:
        shape, g = (steps, LANES), self.generator
        ends = torch.rand(2, *shape, generator=g) < 0.1
        return batch.make(
            {
                "observation": {"x": torch.randn(*shape, 5, generator=g), "y": torch.rand(shape, generator=g).double()},
                "is_first": torch.rand(shape, generator=g) < 0.1,
                "action": torch.randint(0, 100, shape, generator=g),
                "pixels": torch.randint(0, 256, (*shape, 3, 1), generator=g, dtype=torch.uint8),
                "next": {
                    "reward": torch.randn(shape, generator=g),
                    "terminated": ends[0],
                    "truncated": ends[1],
                },
            },
            shape,
        )

    def refused(self) -> None:
        pass

    def priority(self, shape: Any) -> torch.Tensor:
        return torch.rand(shape, generator=self.generator) * 3


class Pictures(Numbers):
    """Stacks of four frames, each in its own lane moved on by one where the row counts; episodes of 40 rows or more, so that the
    frames of every live row fit."""

    def __init__(self, generator: torch.Generator):
        super().__init__(generator)
        self.length = [0] * LANES
        self.now = torch.zeros(LANES, 4, 3, 2, dtype=torch.uint8)

    def rollout(self, steps: int, mask: torch.Tensor | None) -> Any:
        rows = super().rollout(steps, mask)
        rows["observation"] = torch.zeros(steps, LANES, 4, 3, 2, dtype=torch.uint8)
        rows["next"]["observation"] = rows["observation"].clone()
        for t, e in np.ndindex(steps, LANES):
            begins = self.length[e] == 0
            rows["is_first"][t, e] = begins
            if self.length[e] < 40:
                rows["next"]["terminated"][t, e] = rows["next"]["truncated"][t, e] = False
            if mask is not None and not mask[t, e]:
                continue
            if begins:
                self.now[e] = torch.randint(0, 256, (4, 3, 2), generator=self.generator, dtype=torch.uint8)
            rows["observation"][t, e] = self.now[e]
            self.now[e] = self.now[e].roll(-1, 0)
            self.now[e, 3] = torch.randint(0, 256, (3, 2), generator=self.generator, dtype=torch.uint8)
            rows["next"]["observation"][t, e] = self.now[e]
            self.length[e] = 0 if batch.ended(rows[t])[e] else self.length[e] + 1
        return rows

    def refused(self) -> None:
        """The rollout was not taken, so the story cannot go on."""
        self.length = [0] * LANES


@dataclass(frozen=True)
class Storage:
    make: Callable[[Path, str], Any]  # (a folder of its own, writer) -> storage
    source: Callable[[torch.Generator], Any] = Numbers
    saves: bool = False  # its rows come back by `save` and `load`, not by `state`


@dataclass(frozen=True)
class Sampler:
    make: Callable[[], Any]
    feedback: bool = False
    least: int = 1  # live rows of a lane before it can draw


class Torch(Memory):
    """The way of other devices, on the CPU."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self._compiled = False


STORAGES = {
    "memory": Storage(lambda folder, writer: Memory(CAPACITY, LANES, writer=writer), saves=True),
    "memory with a folder": Storage(
        lambda folder, writer: Memory(CAPACITY, LANES, SLACK, writer=writer, folder=folder)
    ),
    "torch": Storage(lambda folder, writer: Torch(CAPACITY, LANES, SLACK, writer=writer, folder=folder)),
    "memmap": Storage(lambda folder, writer: Memmap(folder, CAPACITY, LANES, SLACK, writer=writer)),
    "frames": Storage(
        lambda folder, writer: Frames(CAPACITY, LANES, 4, SLACK, writer=writer, folder=folder), source=Pictures
    ),
}
SAMPLERS = {
    "uniform": Sampler(lambda: Uniform(3)),
    "without replacement": Sampler(lambda: WithoutReplacement(3)),
    "prioritized": Sampler(lambda: Prioritized(3), feedback=True),
    "sequences": Sampler(lambda: Sequences(3, length=4), least=4),
    "prioritized sequences": Sampler(lambda: PrioritizedSequences(3, length=4), feedback=True, least=4),
}


def leaves(rows: Any) -> dict[str, torch.Tensor]:
    return {name: batch.get(rows, name) for name in batch.names(rows)}


class Model:
    """All transitions of each lane in a list (for each key an array that never wraps), and how many there are."""

    def __init__(self, operations: int) -> None:
        self.longest = operations * LONGEST
        self.count = [0] * LANES
        self.rows: dict[str, np.ndarray] = {}

    def add(self, rollout: Any) -> None:
        entries = {name: x.numpy() for name, x in leaves(rollout).items()}
        kept = entries.pop("mask", np.ones(rollout.batch_size, bool))
        for lane in range(LANES):
            new = int(kept[:, lane].sum())
            for name, x in entries.items():
                if name not in self.rows:
                    self.rows[name] = np.zeros((LANES, self.longest, *x.shape[2:]), x.dtype)
                self.rows[name][lane, self.count[lane] : self.count[lane] + new] = x[kept[:, lane], lane]
            self.count[lane] += new

    def low(self, lane: int) -> int:
        return max(self.count[lane] - ROWS, 0)

    def size(self) -> int:
        return sum(self.count[lane] - self.low(lane) for lane in range(LANES))

    def check(self, drawn: Any, index: torch.Tensor) -> None:
        """Every row drawn is live and equals, bit for bit, what was added."""
        k, lane = np.divmod(index.numpy(), LANES)
        low = np.array([self.low(e) for e in range(LANES)])
        assert ((low[lane] <= k) & (k < np.array(self.count)[lane])).all(), "a row that is not live was drawn"
        for name, rows in self.rows.items():
            x = batch.get(drawn, name).numpy()
            assert x.dtype == rows.dtype and np.array_equal(x, rows[lane, k]), name

    def check_ordered(self, ordered: Any) -> None:
        """Oldest first, lane by lane."""
        if not isinstance(ordered, list):
            ordered = [ordered[:, lane : lane + 1] for lane in range(LANES)]
        for lane, rows in enumerate(ordered):
            low, high = self.low(lane), self.count[lane]
            assert rows.batch_size == (high - low, 1)
            if high > low:
                self.check(rows[:, 0], torch.arange(low, high) * LANES + lane)


@pytest.mark.parametrize("operations", OPERATIONS)
@pytest.mark.parametrize("writer", ["ring", "once"])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("storage", STORAGES)
def test_against_a_list_of_transitions(storage, sampler, writer, operations, tmp_path):
    kind, way = STORAGES[storage], SAMPLERS[sampler]
    draw = random.Random(f"{storage} {sampler} {writer}")
    source = kind.source(torch.Generator().manual_seed(draw.getrandbits(32)))
    fresh = iter(range(10**6))

    def start() -> tuple[ReplayBuffer, Model]:
        folder = tmp_path / str(next(fresh))
        folder.mkdir()
        buffer = ReplayBuffer(kind.make(folder / "rows", writer), way.make(), batch_size=5)
        buffer.folder = folder  # type: ignore[attr-defined]
        return buffer, Model(operations)

    buffer, model = start()
    done = dict.fromkeys(("add", "sample", "feedback", "again", "ordered", "full"), 0)
    given = None
    for number in range(operations):
        masked = number >= operations // 2  # before, all lanes are equally long
        if number == operations // 2:
            assert writer == "once" or min(model.count) > 5 * ROWS, "it never wrapped"
            buffer, model = start()
            given = None
        assert len(buffer) == model.size()
        what = draw.choices(["add", "sample", "feedback", "again", "ordered"], [40, 50, 9, 1.5, 1.5])[0]
        if what == "add":
            steps, mask = draw.randint(1, LONGEST), None
            if masked and draw.random() < 0.7:
                mask = torch.tensor([draw.random() < 0.8 for _ in range(steps * LANES)]).view(steps, LANES)
            rollout = source.rollout(steps, mask)
            if mask is not None:
                rollout["mask"] = mask
            try:
                buffer.add(rollout)
                model.add(rollout)
            except BadInput as error:
                assert writer == "once" and "written once" in str(error)
                source.refused()
                done["full"] += 1
                if draw.random() < 0.05:
                    buffer, model = start()
                    given = None
        elif what == "sample":
            try:
                drawn = buffer.sample(draw.choice([1, 5, 16]))
            except BadInput:
                assert any(model.count[e] - model.low(e) < way.least for e in range(LANES))
                continue
            given = drawn["index"].clone()
            model.check(drawn, given)
        elif what == "feedback" and way.feedback and given is not None:
            buffer.feedback(given, source.priority(given.shape))
        elif what == "again":  # a new process: equal rows, and equal draws from then on
            buffer = again(buffer, kind, way, writer)
        elif what == "ordered" and model.size():
            model.check_ordered(buffer.storage.ordered())
        else:
            continue
        done[what] += 1
    assert all(done[what] > operations / 500 for what in ("add", "sample", "again", "ordered"))
    assert done["feedback"] > operations / 100 or not way.feedback
    assert done["full"] > operations / 100 or writer == "ring"
    assert writer == "once" or min(model.count) > 5 * ROWS, "it never wrapped"


def again(buffer: ReplayBuffer, kind: Storage, way: Sampler, writer: str) -> ReplayBuffer:
    folder = buffer.folder  # type: ignore[attr-defined]
    if kind.saves:
        buffer.save(folder / "saved")
        other = ReplayBuffer(kind.make(folder / "rows", writer), way.make(), batch_size=5)
        other.load(folder / "saved")
    else:
        state = buffer.state()
        other = ReplayBuffer(kind.make(folder / "rows", writer), way.make(), batch_size=5)
        assert other.load_state(*state)
    other.folder = folder  # type: ignore[attr-defined]
    try:
        mine = buffer.sample(8)
    except BadInput:
        return other
    theirs = other.sample(8)
    for name, value in leaves(mine).items():
        assert torch.equal(value, batch.get(theirs, name)), name
    return other
