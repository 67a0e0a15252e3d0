"""Stacks at sample time, around the environment and of the frame storage are the same bits."""

import numpy as np
import pytest
import torch

import whorl
from tests.buffers.lookup.known import LANES, live, played
from whorl import batch
from whorl.buffers.buffer import ReplayBuffer
from whorl.buffers.lookup.n_step import NStep
from whorl.buffers.lookup.stack import FrameStack
from whorl.buffers.lookup.successor import NextReconstruct
from whorl.buffers.sample_sequence import Sequences
from whorl.buffers.sample_uniform import Uniform
from whorl.buffers.storage_frames import Frames
from whorl.buffers.storage_memory import Memory
from whorl.errors import BadInput, BatchError
from whorl.transforms.make import make_env

COUNT = 4
STACKED = {"name": "stack_frames", "count": COUNT}


def newest(rollout):
    """The same rows as the environment gives them without a stack."""
    single = rollout.clone()
    for part in (single, single["next"]):
        part["observation"] = part["observation"][:, :, -1].clone()
    return single


def assert_same(one, other, rows):
    for name in ("observation", "next.observation"):
        mine, theirs = batch.get(one, name)[rows], batch.get(other, name)[rows]
        assert mine.dtype == theirs.dtype and torch.equal(mine.view(torch.int32), theirs.contiguous().view(torch.int32))


@pytest.mark.parametrize("is_first", [True, False])
def test_three_ways_to_stack_are_the_same_bits_over_10_000_rows(is_first):
    capacity = 300 * LANES
    single, stacked, frames = Memory(capacity, LANES), Memory(capacity, LANES), Frames(capacity, LANES, COUNT)
    seen, lost, lookup = 0, 0, FrameStack(COUNT)
    for number, rollout in enumerate(played(2_800, 70, STACKED)):
        if not is_first:
            del rollout["is_first"]
        for storage, rows in ((single, newest(rollout)), (stacked, rollout), (frames, rollout)):
            storage.write(rows)
        seen += int(rollout["mask"].sum())
        if number % 5 == 0 or number > 36:
            index = live(single)
            made, right = lookup(single, index, single.read(index)), stacked.read(index)
            assert_same(made, right, made["mask"])
            lost = int((~made["mask"]).sum())
            assert lost <= (COUNT - 1) * LANES
            index = live(frames)
            assert_same(frames.read(index), stacked.read(index), slice(None))
    assert seen > 10_000 and single.count.min() > 7 * single.ring and len(set(single.count)) > 1
    low = torch.from_numpy(single.live()[0])
    begins = stacked.column("is_first")[stacked.slot(low * LANES + torch.arange(LANES))] if is_first else False
    assert lost > 0 or torch.as_tensor(begins).all()  # frames of the oldest rows are gone


def test_by_hand():
    """One lane: episodes a b c | d e, then one given up after f, then g h. Three rows are gone."""
    storage = Memory(6, 1)
    count = torch.arange(8.0)[:, None, None]
    flag = lambda *where: torch.tensor([[t in where] for t in range(8)])  # noqa: E731
    after = {"observation": count + 0.5, "reward": torch.zeros(8, 1), "terminated": flag(2), "truncated": flag(4)}
    storage.write(batch.make({"observation": count, "is_first": flag(0, 3, 5, 6), "next": after}, (8, 1)))
    index = torch.arange(2, 8)
    rows = FrameStack(3)(storage, index, storage.read(index))
    assert rows["observation"][..., 0].tolist() == [[2, 2, 2], [3, 3, 3], [3, 3, 4], [5, 5, 5], [6, 6, 6], [6, 6, 7]]
    assert rows["next"]["observation"][..., 0].tolist()[1:3] == [[3, 3, 3.5], [3, 4, 4.5]]
    assert rows["mask"].tolist() == [False, True, True, True, True, True]


def test_after_n_steps_the_successor_is_a_stack_of_its_own_time():
    single, stacked = Memory(400 * LANES, LANES), Memory(400 * LANES, LANES)
    for rollout in played(300, 100, STACKED):
        single.write(newest(rollout))
        stacked.write(rollout)
    index, n_step = live(single), NStep(3, 0.9)
    made = FrameStack(COUNT)(single, index, n_step(single, index, single.read(index)))
    right = n_step(stacked, index, stacked.read(index))
    assert made["mask"].all()
    assert_same(made, right, slice(None))
    assert torch.equal(made["next"]["reward"], right["next"]["reward"])
    with pytest.raises(BadInput, match=r"next.observation came from a lookup: put NStep before it"):
        NStep(3, 0.9)(single, index, FrameStack(COUNT)(single, index, single.read(index)))


def test_an_entry_of_a_dict():
    single = next(played(20, 20))
    nested = single.clone()
    for part in (nested, nested["next"]):
        part["observation"] = {"x": part["observation"], "other": part["observation"] + 1}
    buffers = [
        ReplayBuffer(Memory(80, LANES), Uniform(0), [NextReconstruct(), FrameStack(3, key)], batch_size=8)
        for key in (None, "x")
    ]
    for buffer, rollout in zip(buffers, (single, nested), strict=True):
        buffer.add(rollout)
    for _ in range(3):
        one, other = (buffer.sample() for buffer in buffers)
        for here, there in ((one, other), (one["next"], other["next"])):
            assert torch.equal(here["observation"], there["observation"]["x"])
            assert torch.equal(here["observation"][:, -1] + 1, there["observation"]["other"])
        assert torch.equal(one["mask"], other["mask"])


def test_sequences_get_a_stack_for_each_row():
    single, stacked = Memory(400 * LANES, LANES), Memory(400 * LANES, LANES)
    for rollout in played(200, 100, STACKED):
        single.write(newest(rollout))
        stacked.write(rollout)
    index, _, _ = Sequences(0, length=6).draw(single, 5)
    made = FrameStack(COUNT)(single, index, single.read(index))
    assert made["observation"].shape == (6, 5, COUNT, 4)
    assert_same(made, stacked.read(index), slice(None))


def test_a_memory_map_is_told_what_else_was_looked_at():
    single = Memory(50, 1)
    for rollout in played(20, 20, lanes=1, stand=0.0):
        single.write(rollout)
    lookup = FrameStack(3)
    lookup(single, torch.tensor([8, 1]), single.read(torch.tensor([8, 1])))
    assert lookup.touched.tolist() == [6, 0]


def test_what_cannot_be_stacked_is_named():
    with pytest.raises(BadInput, match="FrameStack needs a count of at least 1, got 0"):
        FrameStack(0)
    rollout = next(played(20, 20))
    buffer = ReplayBuffer(Memory(80, LANES), Uniform(0), [FrameStack(2), NextReconstruct()], batch_size=4)
    buffer.add(rollout)
    with pytest.raises(BatchError, match="there is none: put NextReconstruct before it"):
        buffer.sample()


@pytest.mark.parametrize("kind", ["lookup", "storage"])
def test_it_holds_to_the_contract(kind):
    space = make_env("CartPole-v1", transforms=[STACKED]).observation_space
    changes = ("observation", "next.observation")
    if kind == "lookup":
        checked = whorl.check_buffer(
            lambda folder: ReplayBuffer(Memory(90, 3), Uniform(3), [FrameStack(COUNT)], batch_size=8), changes=changes
        )
        assert "lookups" in checked
    else:
        whorl.check_buffer(
            lambda folder: ReplayBuffer(Frames(90, 3, COUNT, 40, folder=folder), Uniform(3), batch_size=8),
            observation_space=space,
        )
    assert np.prod(space.shape) == COUNT * 4
