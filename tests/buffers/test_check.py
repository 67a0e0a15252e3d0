"""`check_buffer`: whorl's own parts pass it, and it finds what was broken on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

import whorl
from whorl.buffers.buffer import ReplayBuffer
from whorl.buffers.lookup.lookup import Lookup
from whorl.buffers.lookup.n_step import NStep
from whorl.buffers.lookup.relabel import Hindsight
from whorl.buffers.rollout import RolloutBuffer
from whorl.buffers.sample_prioritized import Prioritized
from whorl.buffers.sample_sequence import PrioritizedSequences, Sequences
from whorl.buffers.sample_uniform import Uniform, WithoutReplacement
from whorl.buffers.storage_frames import Frames
from whorl.buffers.storage_memmap import Memmap
from whorl.buffers.storage_memory import Memory
from whorl.buffers.stream import StreamBuffer
from whorl.errors import BadInput, BufferFault
from whorl.feeds import Rollouts

LANES, CAPACITY, SLACK = 3, 90, 40
GOALS = spaces.Dict({key: spaces.Box(-9, 9, (2,)) for key in ("observation", "achieved_goal", "desired_goal")})
RELABELLED = ("observation.desired_goal", "next.observation.desired_goal", "next.reward")


def replay(storage: Any = None, sampler: Any = None, *lookups: Any) -> ReplayBuffer:
    storage = Memory(CAPACITY, LANES) if storage is None else storage  # an empty one is False
    return ReplayBuffer(storage, sampler or Uniform(3), lookups, batch_size=8)


def hindsight(strategy: str) -> Hindsight:
    return Hindsight(lambda achieved, desired: (achieved - desired).norm(dim=-1), strategy)


PARTS: dict[str, tuple[Callable, dict[str, Any]]] = {
    "memory": (lambda folder: replay(), {}),
    "memory in a folder, without replacement": (
        lambda folder: replay(Memory(CAPACITY, LANES, SLACK, folder=folder), WithoutReplacement(3)),
        {},
    ),
    "memmap, prioritized": (lambda folder: replay(Memmap(folder, CAPACITY, LANES, SLACK), Prioritized(3)), {}),
    "frames": (
        lambda folder: replay(Frames(CAPACITY, LANES, 4, SLACK, folder=folder)),
        {"observation_space": spaces.Box(0, 255, (4, 3, 2), np.uint8)},
    ),
    "sequences": (lambda folder: replay(None, Sequences(3, length=4, burn_in=2, overlap=1, across_ends=False)), {}),
    "prioritized sequences": (lambda folder: replay(None, PrioritizedSequences(3, length=4)), {}),
    "n-step": (lambda folder: replay(None, Prioritized(3), NStep(3, 0.9)), {"changes": ("next",)}),
    "hindsight, future": (
        lambda folder: replay(None, None, hindsight("future")),
        {"observation_space": GOALS, "changes": RELABELLED},
    ),
    "hindsight, random": (
        lambda folder: replay(None, None, hindsight("random")),
        {"observation_space": GOALS, "changes": RELABELLED, "within": "buffer"},
    ),
    "rollout": (lambda folder: RolloutBuffer(Rollouts(epochs=2, minibatches=3), seed=3), {}),
    "stream": (lambda folder: StreamBuffer(), {}),
}


@pytest.mark.parametrize("name", PARTS)
def test_every_part_of_ours_passes(name):
    make, options = PARTS[name]
    checked = whorl.check_buffer(make, **options)
    kept = name not in ("rollout", "stream")
    assert ("storage" in checked) is kept and {"batches", "feedback", "restart"} <= checked.keys()
    assert ("lookups" in checked) is (name in ("n-step", "hindsight, future", "rollout", "stream"))
    assert checked["feedback"].startswith("refused") is ("prioritized" not in name and name != "n-step")


# ------------------------------------------------------------------------------------------------ broken on purpose


class Shifted(Memory):
    def read(self, index):
        return super().read(torch.where(index >= self.lanes, index - self.lanes, index))


class LaneMajor(Memory):
    def write(self, rollout, first_lane=0):
        return super().write(rollout, first_lane).sort().values.flip(0)


class NeverForgets(Memory):
    def live(self):
        high = self.count.copy()
        return np.maximum(high - self.rows - 1, 0), high

    def window(self):
        return None


class Obliging(Memory):
    def write(self, rollout, first_lane=0):
        if "action" in rollout.keys():  # noqa: SIM118
            rollout["action"] = rollout["action"].float()
        return super().write(rollout, first_lane)


class FirstLaneOnly(Memory):
    def write(self, rollout, first_lane=0):
        return super().write(rollout)


class OneMemory(Memory):
    def keep(self, batches):
        pass


class PastTheCursor(Uniform):
    def draw(self, storage, size):
        index, weight, extras = super().draw(storage, size)
        return index + storage.lanes, weight, extras


class Gaps(Sequences):
    def draw(self, storage, size):
        index, weight, extras = super().draw(storage, size)
        index = index.clone()
        index[-1] = index[0]
        return index, weight, extras


class Unseeded(Uniform):
    def __init__(self):
        super().__init__(int(np.random.SeedSequence().entropy) % 2**32)  # type: ignore[arg-type]


class Forgetful(Uniform):
    def state(self):
        return {}, {"block": 0, "position": 0}


class Deaf(Prioritized):
    def feedback(self, storage, index, priority):
        pass


class Inverse(Prioritized):
    def feedback(self, storage, index, priority):
        super().feedback(storage, index, 1 / (priority + 1e-9))


class SlotsForIndexes(Prioritized):
    """Takes a slot for a row: what was overwritten gives its priority to who came after."""

    def feedback(self, storage, index, priority):
        low, _ = storage.live()
        oldest = torch.from_numpy(low)[index % storage.lanes]
        behind = (oldest - index // storage.lanes).clamp(min=0)
        laps = -(-behind // storage.ring)
        super().feedback(storage, index + laps * storage.ring * storage.lanes, priority)


class Blind(NStep):
    """Looks one row ahead, whatever is there."""

    def __call__(self, storage, index, rows):
        ahead = storage.column("next.reward")[storage.slot(index + storage.lanes)]
        rows["next"]["reward"] = rows["next"]["reward"] + ahead
        return rows


class Careless(Lookup):
    """Stops at ends, but not at the write cursor."""

    def __call__(self, storage, index, rows):
        slot = storage.slot(index + storage.lanes)
        here = ~(rows["next"]["terminated"] | rows["next"]["truncated"] | storage.column("is_first")[slot])
        rows["next"]["reward"] = rows["next"]["reward"] + storage.column("next.reward")[slot] * here
        return rows


class IntoTheStorage(Lookup):
    def __call__(self, storage, index, rows):
        storage.column("next.reward")[storage.slot(index)] *= 2
        return rows


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: replay(Shifted(CAPACITY, LANES)), "storage gave back other rows by read"),
        (lambda folder: replay(LaneMajor(CAPACITY, LANES)), "storage wrote rows and returned the indexes .* oldest first"),
        (lambda folder: replay(NeverForgets(CAPACITY, LANES)), "storage says that rows .* of each lane are live"),
        (lambda folder: replay(Obliging(CAPACITY, LANES)), "storage took a rollout with another dtype"),
        (lambda folder: replay(FirstLaneOnly(CAPACITY, LANES)), "storage was told first_lane=2 and wrote the indexes"),
        (lambda folder: replay(OneMemory(CAPACITY, LANES)), "storage was told keep\\(2\\), and reading a second batch"),
        # rows past the cursor hold whatever memory held
        (lambda folder: replay(None, PastTheCursor(3)), "not live|not theirs|another '|mask False"),
        (lambda folder: replay(None, Gaps(3, length=4)), "sampler drew a sequence .* with a gap"),
        (lambda folder: replay(None, Unseeded()), "twice gives other batches: draw from seeds"),
        (lambda folder: replay(None, Forgetful(3)), "gives other batches after save and load"),
        (lambda folder: replay(None, Deaf(3)), "sampler Deaf.feedback took NaN as the priority of a row: expected was BadInput"),
        (lambda folder: replay(None, Inverse(3)), "sampler draws the row .* after it got the priority"),
        (lambda folder: replay(None, SlotsForIndexes(3)), "priority of rows that were overwritten for that of others"),
        (lambda folder: replay(None, None, Blind(2, 0.9)), "'next.reward' when rows outside of its episode|other batches"),
        (lambda folder: replay(None, None, Careless()), "'next.reward' when rows outside of its episode|other batches"),
        (lambda folder: replay(None, None, IntoTheStorage()), "gave back another 'next.reward'"),
    ],
)  # fmt: skip
def test_what_is_broken_is_found(make, said):
    looks = bool(make(None).lookups) and not isinstance(make(None).lookups[0], IntoTheStorage)
    with pytest.raises(BufferFault, match=said):
        whorl.check_buffer(make, changes=("next.reward",) if looks else ())


class Raw(Memory):
    """Each method gives what it is told to, or raises it."""

    def __init__(self, **given):
        super().__init__(CAPACITY, LANES)
        self.given = given

    def live(self):
        return answered(self, "live", super().live())

    def write(self, rollout, first_lane=0):
        return answered(self, "write", super().write(rollout, first_lane))

    def read(self, index):
        return answered(self, "read", super().read(index))


class RawDraw(Prioritized):
    def __init__(self, **given):
        super().__init__(3)
        self.given = given

    def draw(self, storage, size):
        return answered(self, "draw", super().draw(storage, size))

    def feedback(self, storage, index, priority):
        if priority.isnan().any():
            answered(self, "feedback", None)
        super().feedback(storage, index, priority)

    def state(self):
        return answered(self, "state", super().state())


class RawLookup(Lookup):
    def __init__(self, what):
        self.given = {"call": what}

    def __call__(self, storage, index, rows):
        return answered(self, "call", rows)


class NoWindow:
    lanes, rows, ring, device, count = LANES, 30, 30, torch.device("cpu"), 0

    def keep(self, batches):
        pass


class Half(StreamBuffer):
    def batches(self, count=None):
        yield from super().batches(count)
        raise KeyError("observation")


def answered(part, name, right):
    what = part.given.get(name, lambda right: right)(right)
    if isinstance(what, Exception):
        raise what
    return what


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: replay(Raw(write=lambda index: None)), r"storage Raw.write gave None, expected was the absolute index of each row"),
        (lambda folder: replay(Raw(write=lambda index: index.int())), r"Raw.write gave int32 \[.*int64 \[rows\]"),
        (lambda folder: replay(Raw(live=lambda live: [0, 5])), r"storage Raw.live gave \(0, 5\), expected was \(low, high\), numpy int64"),
        (lambda folder: replay(Raw(read=lambda rows: rows.to_dict())), "storage Raw.read gave a dict, expected was a batch"),
        (lambda folder: replay(Raw(read=lambda rows: IndexError("far"))), "storage Raw.read raised IndexError: far; expected was a batch"),
        (lambda folder: replay(NoWindow()), "storage NoWindow lacks state, load_state, write, read, live, window"),
        (lambda folder: replay(None, RawDraw(draw=lambda draw: draw[:2])), r"sampler RawDraw.draw gave \(int64 \[8\], float32 \[8\]\)"),
        (lambda folder: replay(None, RawDraw(draw=lambda draw: TypeError("odd"))), "sampler RawDraw.draw raised TypeError: odd; expected"),
        (lambda folder: replay(None, RawDraw(feedback=lambda _: ValueError("bad"))), "feedback raised ValueError: bad; .* BadInput where"),
        (lambda folder: replay(None, RawDraw(state=lambda state: ({}, {"x": float("nan")}))), "sampler RawDraw.state gave .* plain JSON"),
        (
            lambda folder: replay(None, RawDraw(draw=lambda draw: (draw[0], draw[1] * torch.nan, draw[2]))),
            "sampler gave 'weight' with NaN or infinity, .* look at its draw",
        ),
        (lambda folder: replay(None, None, RawLookup(lambda rows: None)), "lookup RawLookup.__call__ gave None, expected was the batch"),
        (lambda folder: replay(None, None, RawLookup(lambda rows: KeyError("x"))), "lookup RawLookup.__call__ raised KeyError: 'x'"),
        (lambda folder: Half(), "buffer Half.batches raised KeyError: 'observation'; expected was batches"),
        (lambda folder: None, "buffer NoneType lacks state, load_state, add, batches, feedback"),
        (lambda: None, "make.folder. must give a fresh buffer; it raised TypeError"),
    ],
)  # fmt: skip
def test_a_part_that_raises_or_gives_another_kind_of_thing_is_named(make, said):
    with pytest.raises(BufferFault, match=said):
        whorl.check_buffer(make)


def test_what_a_lookup_changes_must_be_named():
    with pytest.raises(BufferFault, match="another 'next.observation' than was written .* name what lookups change"):
        whorl.check_buffer(lambda folder: replay(None, None, NStep(3, 0.9)))


def test_a_buffer_that_is_too_large_is_refused():
    with pytest.raises(BadInput, match="at most 32 rows each; it has 3 of 1000"):
        whorl.check_buffer(lambda folder: replay(Memory(3000, LANES)))
