"""`check_buffer`: does a buffer give back what it was given, and nothing else? Says in one sentence what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from whorl import batch
from whorl.batch import Batch, Buffer, State
from whorl.buffers.buffer import ReplayBuffer
from whorl.buffers.check_answers import watch
from whorl.buffers.check_storage import check_contents, check_lanes, check_storage
from whorl.buffers.known_rows import KnownRows, demand, overwrite
from whorl.errors import BadInput, BufferFault, WhorlError

DRAWS = 8  # batches that are drawn between two rollouts, at most
OTHERS = 4  # times that rows which must not be seen are exchanged for others
HUGE = 1e6  # a priority beside which those of other rows are nothing
Within = Literal["episode", "lane", "buffer"]


def check_buffer(
    make: Callable[[Path], Buffer],
    lanes: int = 3,
    observation_space: spaces.Space | None = None,
    changes: Collection[str] = (),
    within: Within = "episode",
    steps: int = 96,
    seed: int = 0,
) -> dict[str, str]:
    """Write known rows to buffers of one kind, read them back and raise BufferFault at the first breach; returns what was
    checked of each part. A storage, a sampler or a lookup of your own is checked inside a `ReplayBuffer`.

    Checked: rows come back equal to the bit; absolute indexes, lanes and the order of the ring; only live rows are drawn;
    sequences are consecutive rows of one lane; rows depend on nothing that lies beyond the cursor or beyond what must not
    be crossed; priorities and weights; rollouts that do not fit are refused and change nothing; equal seeds give equal
    batches; `state` and `load_state` (or `save` and `load`, where rows are not kept on disk) go on to the same bits.

    make(folder): a fresh and empty buffer with room for at most steps / 3 rows of each of `lanes` lanes. Whatever it keeps on
    disk lies in `folder`; the same folder comes again after a restart.
    observation_space: of the rows (default: 5 numbers). Those of two axes and more come as stacks that move on by one frame.
    changes: keys that the lookups change on purpose, such as "next" for n-step returns; keys that they add are free.
    within: how far a lookup may look, starting from its row: its episode, its lane, or everywhere.
    Raises BadInput for a buffer that is too large for `steps`.
    """
    space = observation_space or spaces.Box(-np.inf, np.inf, (5,))
    with TemporaryDirectory(prefix="whorl-check-") as folder:
        return _Check(make, lanes, space, tuple(changes), within, steps, seed, Path(folder)).run()


@dataclass
class _Check:
    make: Callable[[Path], Buffer]
    lanes: int
    space: spaces.Space
    changes: tuple[str, ...]
    within: Within
    steps: int
    seed: int
    folder: Path
    checked: dict[str, str] = field(default_factory=dict)
    made: int = 0

    def run(self) -> dict[str, str]:
        self.story = KnownRows(self.lanes, self.steps, self.space, self.seed)
        first = self.fresh()
        self.keeps = isinstance(first, ReplayBuffer) or self.remembers(first)
        if isinstance(first, ReplayBuffer):
            check_storage(self.replay().storage, self.story, self.seed)
            check_lanes(self.replay().storage, self.story, self.seed)
            self.checked["storage"] = "rows, ring order, absolute indexes, lanes, refusals"
            self.empty(self.replay())
        self.drawn()
        if self.within != "buffer" and getattr(first, "lookups", True):  # a whole buffer of another kind may have some
            self.crossing()
        self.feedback()
        self.restart()
        return self.checked

    def fresh(self) -> Buffer:
        self.made += 1
        return self.make_in(self.folder / str(self.made))

    def make_in(self, folder: Path) -> Buffer:
        """Watched, so that what goes wrong in a part is said of that part."""
        try:
            buffer = self.make(folder)
        except WhorlError:
            raise
        except Exception as error:
            raise BufferFault(
                f"make(folder) must give a fresh buffer; it raised {type(error).__name__}: {error}"
            ) from error
        return watch(buffer)

    def replay(self) -> ReplayBuffer:
        buffer = self.fresh()
        assert isinstance(buffer, ReplayBuffer)
        storage = buffer.storage
        if storage.lanes != self.lanes or 3 * storage.rows > self.steps:
            raise BadInput(
                f"check_buffer writes {self.steps} rows to each of {self.lanes} lanes, so that the ring goes round: make a storage of "
                f"{self.lanes} lanes and at most {self.steps // 3} rows each; it has {storage.lanes} of {storage.rows}"
            )
        return buffer

    def remembers(self, buffer: Buffer) -> bool:
        """Whether rows of one rollout are still there after the next one."""
        rollouts = self.story.rollouts(self.seed)
        (one, index), (two, _) = next(rollouts), next(rollouts)
        buffer.add(one)
        buffer.add(two)
        return any(np.isin(rows["row"].numpy(), index).any() for rows in buffer.batches(4 * DRAWS))

    # ------------------------------------------------------------------------------------------------ parts by themselves

    def empty(self, buffer: ReplayBuffer) -> None:
        try:
            buffer.sample()
        except BadInput:
            return
        raise BufferFault("the sampler drew from an empty storage: raise BadInput there")

    # ------------------------------------------------------------------------------------------------ the whole

    def fill(self, buffer: Buffer, story: KnownRows) -> Iterator[list[Batch]]:
        """The batches drawn after each rollout."""
        for number, (rollout, _) in enumerate(story.rollouts(self.seed)):
            mine = rollout.clone()
            buffer.add(mine)
            if self.keeps:
                overwrite(mine)
            yield self.draw(buffer, 1 + number % DRAWS)

    def draw(self, buffer: Buffer, count: int = DRAWS) -> list[Batch]:
        """Copies of batches; none where a sampler has too few rows yet."""
        try:
            return [rows.clone() for rows in buffer.batches(count)]
        except BadInput:
            return []

    def drawn(self) -> None:
        """Batches hold live rows as they were written, and equal buffers give equal ones."""
        one, two = self.fresh(), self.fresh()
        total, sequences = 0, False
        for some, again in zip(self.fill(one, self.story), self.fill(two, self.story), strict=True):
            for rows, same in zip(some, again, strict=True):
                self.story.check(rows, "buffer", self.changes)
                self.live(one, rows)
                self.sensible(rows)
                self.same(
                    rows, same, "buffer", "made and filled in the same way twice gives other batches: draw from seeds"
                )
                total, sequences = total + 1, sequences or len(rows.batch_size) == 2
        demand("buffer", total, f"gave no batch after {self.steps} rows of each lane")
        if isinstance(one, ReplayBuffer):  # what lookups do to batches must not reach the storage
            check_contents(one.storage, self.story, np.asarray(one.storage.count).copy(), one.left_out)
        self.checked["batches"] = f"{total} of live rows, equal for equal seeds" + (
            ", consecutive" if sequences else ""
        )

    def live(self, buffer: Buffer, rows: Batch) -> None:
        if not isinstance(buffer, ReplayBuffer):
            return
        low, high = buffer.storage.live()
        k, lane = np.divmod(rows["row"].numpy(), self.lanes)
        demand(
            "sampler",
            ((low[lane] <= k) & (k < high[lane])).all(),
            f"drew a row that is not live: storage.live() is {low.tolist()} to {high.tolist()} of each lane",
        )

    def sensible(self, rows: Batch) -> None:
        """Shapes, dtypes and finite numbers, sequences without gaps."""
        batch.check(rows, *[name for name in batch.names(rows) if name in batch.VOCABULARY])
        for name in batch.names(rows):
            value = batch.get(rows, name)
            part, whose = ("sampler", "draw") if name == "weight" else ("buffer", "lookups, if the storage passed")
            demand(
                part,
                not value.is_floating_point() or value.isfinite().all(),
                f"gave {name!r} with NaN or infinity, and only finite numbers and priorities were given to it: look at its {whose}",
            )
        weight = batch.get(rows, "weight")
        demand("sampler", weight is None or (weight > 0).all(), "gave a weight that is not above 0")
        if len(rows.batch_size) == 2:
            number, counts = rows["row"], batch.get(rows, "mask")
            both = torch.ones_like(number[1:], dtype=torch.bool) if counts is None else counts[1:] & counts[:-1]
            demand(
                "sampler",
                (number[1:] - number[:-1] == self.lanes)[both].all(),
                "drew a sequence [T, B] with a gap or across lanes: its columns are consecutive rows of one lane",
            )

    def same(self, rows: Batch, other: Batch, part: str, message: str) -> None:
        names = batch.names(rows)
        equal = names == batch.names(other) and all(torch.equal(batch.get(rows, n), batch.get(other, n)) for n in names)
        demand(part, equal, message)

    def crossing(self) -> None:
        """What a row is must not change when rows that it must not see are others."""
        compared = 0
        for number in range(OTHERS):
            coin = np.random.default_rng((self.seed, 2, number)).random((self.lanes, self.steps)) < 0.5
            coin = coin[:, :1].repeat(self.steps, 1) if self.within == "lane" else coin
            story = KnownRows(self.lanes, self.steps, self.space, self.seed, coin)
            for some, others in zip(self.fill(self.fresh(), self.story), self.fill(self.fresh(), story), strict=True):
                for rows, other in zip(some, others, strict=True):
                    k, lane = np.divmod(rows["row"].numpy().clip(0), self.lanes)
                    alike = torch.from_numpy(story.kept[k, lane]) & (rows["row"] == other["row"]) & (rows["row"] >= 0)
                    compared += int(alike.sum())
                    for name in batch.names(rows):
                        demand(
                            "buffer",
                            torch.equal(batch.get(rows, name)[alike], batch.get(other, name)[alike]),
                            f"gives a row another {name!r} when rows outside of its {self.within} are others: a lookup went across an "
                            "episode's end, the write cursor or into another lane (or give `within`)",
                        )
        demand("buffer", compared, "drew no row that could be compared")
        self.checked["lookups"] = f"no row depends on what is outside of its {self.within}"

    def feedback(self) -> None:
        """Rows with high priority are drawn more often; where rows have none, that is said."""
        buffer, untouched = self.filled(), self.filled()
        rows, size = untouched[1], 0
        of = buffer[0].sampler if isinstance(buffer[0], ReplayBuffer) else buffer[0]
        name = f"the {'sampler' if isinstance(buffer[0], ReplayBuffer) else 'buffer'} {type(of).__name__}.feedback"
        index = batch.get(rows, "index")
        if index is None:
            index = rows["row"]
        priority = torch.full(index.shape, 1e-3)
        try:
            buffer[0].feedback(index, priority)
        except BadInput:
            self.checked["feedback"] = "refused: rows have no priorities"
            return
        before, _ = _state(buffer[0]), priority[..., 0].fill_(float("nan"))
        try:
            buffer[0].feedback(index, priority)
        except BadInput:
            pass
        else:
            raise BufferFault(f"{name} took NaN as the priority of a row: expected was BadInput, and nothing changed")
        demand(
            "sampler", _alike(before, _state(buffer[0])), f"refused NaN as a priority and changed all the same ({name})"
        )
        priority.fill_(1e-3)[..., 0] = HUGE
        buffer[0].feedback(index, priority)
        chosen = rows["row"].reshape(-1, rows.batch_size[-1])[0, 0]
        shares = []
        for each in (untouched[0], buffer[0]):
            first = torch.cat([r["row"].reshape(-1, r.batch_size[-1])[0] for r in self.draw(each, 20)])
            size = len(first)
            shares.append(int((first == chosen).sum()) / size)
        demand(
            "sampler",
            shares[1] > max(2 * shares[0], 3 / size),
            f"draws the row {int(chosen)} in {shares[1]:.1%} of the draws after it got the priority {HUGE:g} and others 0.001, "
            f"and in {shares[0]:.1%} before",
        )
        self.overwritten()
        self.checked["feedback"] = f"a high priority is drawn {shares[1]:.0%}, refusals, rows that were overwritten"

    def overwritten(self) -> None:
        """Feedback for rows that are gone changes nothing."""
        one, two = self.fresh(), self.fresh()
        gone: Tensor | None = None
        for some, _ in zip(self.fill(one, self.story), self.fill(two, self.story), strict=True):
            gone = some[0]["index"] if gone is None and some and "index" in batch.names(some[0]) else gone
        if gone is not None:
            one.feedback(gone, torch.full(gone.shape, HUGE))
            for rows, same in zip(self.draw(one), self.draw(two), strict=True):
                self.same(rows, same, "sampler", "took the priority of rows that were overwritten for that of others")

    def filled(self) -> tuple[Buffer, Batch]:
        """A full buffer, and the last batch drawn from it."""
        buffer = self.fresh()
        last = [rows for some in self.fill(buffer, self.story) for rows in some[-1:]][-1]
        return buffer, last

    def restart(self) -> None:
        """A new process goes on from a state to the same bits."""
        old, last = self.filled()
        if "index" in batch.names(last) and "refused" not in self.checked["feedback"]:
            old.feedback(
                last["index"], torch.rand(last["index"].shape, generator=torch.Generator().manual_seed(self.seed))
            )
        arrays, numbers = _state(old)
        mine = self.folder / str(self.made)
        self.made += 1
        theirs = self.folder / str(self.made)
        if mine.exists():
            shutil.copytree(mine, theirs)
        new, way = self.make_in(theirs), "state and load_state"
        try:
            exact = new.load_state(arrays, numbers)
        except BadInput:
            if not isinstance(old, ReplayBuffer) or not isinstance(new, ReplayBuffer):
                raise
            new, way, exact = self.replay(), "save and load", True  # its rows are not on disk
            old.save(self.folder / "saved")
            new.load(self.folder / "saved")
        demand("buffer", exact, "gave its state, and load_state says at once that it cannot go on exactly")
        message = f"gives other batches after {way}: keep counters, priorities and random streams in the state"
        more = list(self.story.rollouts(self.seed))[:3]  # on top of what is there: only equality counts now
        for rollout, _ in [(None, None), *more]:
            if rollout is not None:
                old.add(rollout.clone())
                new.add(rollout.clone())
            elif not self.keeps:
                continue
            for rows, same in zip(self.draw(old), self.draw(new), strict=True):
                self.same(rows, same, "buffer", message)
        self.checked["restart"] = f"the same bits by {way}"


def _state(buffer: Buffer) -> State:
    """A copy that has been through a file. Raises BufferFault for what no file takes."""
    arrays, numbers = buffer.state()
    try:
        return {name: value.clone() for name, value in arrays.items()}, json.loads(json.dumps(numbers, allow_nan=False))
    except (TypeError, ValueError, AttributeError) as error:
        raise BufferFault(f"the state() of the buffer must be tensors and plain JSON: {error}") from error


def _alike(one: State, other: State) -> bool:
    return (
        one[1] == other[1]
        and one[0].keys() == other[0].keys()
        and all(torch.equal(x, other[0][n]) for n, x in one[0].items())
    )
