"""Lookups and transforms of sequences, and rows by their age."""

import pytest
import torch

import whorl
from tests.buffers.lookup.known import LANES, played
from whorl import batch
from whorl.buffers.buffer import ReplayBuffer
from whorl.buffers.lookup.age import DropOld
from whorl.buffers.lookup.crop import RandomCrop
from whorl.buffers.lookup.stack import FrameStack
from whorl.buffers.sample_sequence import Sequences
from whorl.buffers.sample_uniform import Uniform
from whorl.buffers.storage_memory import Memory
from whorl.errors import BadInput, BatchError
from whorl.transforms.reward import RewardToGo


def filled(*lookups, sampler=None, steps=60, **options):
    buffer = ReplayBuffer(Memory(60 * LANES, LANES), sampler or Sequences(0, length=8), lookups, **options)
    for rollout in played(steps, 20):
        buffer.add(rollout)
    return buffer


def test_a_crop_is_any_window_of_its_sequence_and_lookups_after_it_see_that():
    buffer, whole = filled(RandomCrop(3, seed=1), FrameStack(2), batch_size=64), filled(batch_size=64)
    begun = []
    for _ in range(8):
        rows, long = buffer.sample(), whole.sample()
        assert rows.batch_size == (3, 64) and rows["observation"].shape == (3, 64, 2, 4)
        start = (rows["index"][0] - long["index"][0]) // LANES
        begun += start.tolist()
        for t in range(3):
            assert torch.equal(rows["index"][t], long["index"].gather(0, start[None] + t)[0])
            same = rows["action"][t] == long["action"].gather(0, start[None] + t)[0]
            assert same.all()
    share = torch.bincount(torch.tensor(begun), minlength=6) / len(begun)
    assert len(share) == 6 and ((share - 1 / 6).abs() < 0.07).all()  # 512 draws: more than four standard deviations


def test_a_crop_goes_on_from_its_state():
    one = filled(RandomCrop(3, seed=1), batch_size=8)
    one.sample()
    two = filled(RandomCrop(3, seed=1), batch_size=8)
    arrays, numbers = one.drawing()["lookup0"].state()
    two.drawing()["lookup0"].load_state(arrays, numbers)
    two.drawing()["sampler"].load_state(*one.drawing()["sampler"].state())
    assert torch.equal(one.sample()["index"], two.sample()["index"])


def test_rewards_to_go_by_hand():
    no = torch.zeros(6, 1, dtype=torch.bool)
    first = torch.tensor([1, 0, 0, 1, 0, 0], dtype=torch.bool)[
        :, None
    ]  # the first episode was given up after three rows
    after = {"observation": torch.zeros(6, 1, 2), "reward": torch.tensor([1.0, 2, 4, 8, 16, 32])[:, None]}
    after |= {"terminated": no.clone(), "truncated": no}
    after["terminated"][4] = True
    buffer = ReplayBuffer(Memory(16, 1), Sequences(0, length=6), [RewardToGo(0.5)], batch_size=2)
    rollout = batch.make({"observation": torch.zeros(6, 1, 2), "is_first": first, "next": after}, (6, 1))
    buffer.add(rollout)
    assert buffer.sample()["reward_to_go"].T.tolist() == [[3.0, 4.0, 4.0, 16.0, 16.0, 32.0]] * 2
    after["discount"] = torch.full((6, 1), 0.25)
    other = ReplayBuffer(Memory(16, 1), Sequences(0, length=6), [RewardToGo(0.5)], batch_size=1)
    other.add(batch.make({**dict(rollout.items()), "next": after}, (6, 1)))
    assert other.sample()["reward_to_go"][:, 0].tolist() == [1.75, 3.0, 4.0, 12.0, 16.0, 32.0]


def test_old_rows_do_not_count():
    buffer = ReplayBuffer(Memory(60 * LANES, LANES), Uniform(0), [DropOld(2)], batch_size=400)
    for version, rollout in zip((0, 3, 4, 6), played(80, 20), strict=True):
        rollout["version"][:] = version
        buffer.add(rollout)
    rows = buffer.sample()
    assert rows["version"].unique().tolist() == [0, 3, 4, 6]  # the ring went round, some of the oldest are there
    assert torch.equal(rows["mask"], rows["version"] >= 4)
    plain = ReplayBuffer(Memory(80, LANES), Uniform(0), [DropOld(1)])
    rollout = next(played(20, 20))
    del rollout["version"]
    plain.add(rollout)
    with pytest.raises(BatchError, match="the buffer has no 'version'"):
        plain.sample()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomCrop(0), "RandomCrop needs a length of at least 1, got 0"),
        (lambda: RewardToGo(1.5), r"RewardToGo needs a discount in \[0, 1\], got 1.5"),
        (lambda: DropOld(-1), "DropOld needs at least 0 versions, got -1"),
        (lambda: filled(RandomCrop(9)).sample(), "RandomCrop takes 9 rows of a sequence, and these have 8"),
        (lambda: filled(RandomCrop(2), sampler=Uniform(0)).sample(4), r"RandomCrop takes sequences .* got rows \[4\]"),
        (
            lambda: filled(RewardToGo(0.9), sampler=Uniform(0)).sample(4),
            r"RewardToGo takes rows that follow one another, .* got \[4\]",
        ),
    ],
)
def test_what_cannot_be_is_named(make, message):
    with pytest.raises(BadInput, match=message):
        make()


def test_they_hold_to_the_contract():
    def make(folder):
        sampler, lookups = Sequences(3, length=6, across_ends=False), [RandomCrop(3, seed=1), RewardToGo(0.9)]
        return ReplayBuffer(Memory(90, 3), sampler, lookups, batch_size=8)

    checked = whorl.check_buffer(make)
    assert checked["batches"].endswith("consecutive") and "lookups" in checked
