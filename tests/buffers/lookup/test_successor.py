"""A replay without successors: half of the memory, and each successor bit for bit, or a row that does not count."""

import pytest
import torch

import whorl
from tests.buffers.lookup.known import LANES, live, played
from whorl import batch
from whorl.buffers.buffer import ReplayBuffer
from whorl.buffers.lookup.n_step import NStep
from whorl.buffers.lookup.neighbours import ahead
from whorl.buffers.lookup.successor import NextReconstruct
from whorl.buffers.sample_uniform import Uniform
from whorl.buffers.storage_memory import Memory
from whorl.errors import BatchError, BufferFault


def stored(*lookups, capacity=200 * LANES, steps=700):
    """A buffer with lookups and one that stores successors, with the same rows."""
    one, two = (ReplayBuffer(Memory(capacity, LANES), Uniform(0), some) for some in (lookups, ()))
    for rollout in played(steps, 70):
        for buffer in (one, two):
            buffer.add(rollout)
            assert batch.get(rollout, "next.observation") is not None  # the rollout stays as it was
    return one, two


@pytest.mark.parametrize("keep", [False, True])
def test_every_successor_comes_back_or_does_not_count(keep):
    compact, whole = stored(lookup := NextReconstruct(keep_terminated=keep))
    assert "next.observation" not in compact.storage.names() and "next.observation" in whole.storage.names()
    index = live(whole.storage)
    made, right = lookup(compact.storage, index, compact.storage.read(index)), whole.storage.read(index)
    there, terminated = made["mask"], right["next"]["terminated"]
    ended = terminated | right["next"]["truncated"]
    newest = index // LANES == torch.from_numpy(whole.storage.count)[index % LANES] - 1
    assert torch.equal(there, ~(ended | newest) | (terminated & keep)) and ended.any() and terminated.any()
    same = there & ~terminated
    bits = [x["next"]["observation"][same].view(torch.int32) for x in (made, right)]
    assert torch.equal(*bits) and same.sum() > 700
    assert torch.equal(made["next"]["observation"][~same], right["observation"][~same])  # and finite
    assert torch.equal(made["next"]["reward"], right["next"]["reward"])


def test_it_takes_little_more_than_half_of_the_memory():
    """Rows of MuJoCo's Ant: 105 numbers, 8 of an action, and what off-policy agents keep beside them."""
    rollout = next(played(2, 2))
    seen, action = torch.zeros(2, LANES, 105), torch.zeros(2, LANES, 8)
    rollout["observation"], rollout["action"], rollout["next"]["observation"] = seen, action, seen.clone()
    del rollout["mask"], rollout["version"]
    buffers = [ReplayBuffer(Memory(100 * LANES, LANES), Uniform(0), some) for some in ([NextReconstruct()], [])]
    for buffer in buffers:
        buffer.add(rollout)
    assert 0.5 < buffers[0].storage.nbytes / buffers[1].storage.nbytes < 0.6


def test_it_gives_what_follows_an_n_step_return():
    compact, whole = stored(steps=140)
    compact = stored(NextReconstruct(), steps=140)[0]
    index, n_step = live(whole.storage), NStep(3, 0.9)
    made = NextReconstruct()(compact.storage, index, n_step(compact.storage, index, compact.storage.read(index)))
    right = n_step(whole.storage, index, whole.storage.read(index))
    assert torch.equal(made["next"]["reward"], right["next"]["reward"])
    there = made["mask"]
    assert torch.equal(made["next"]["observation"][there], right["next"]["observation"][there])
    ended = right["next"]["terminated"] | right["next"]["truncated"]
    assert not there[ended].any() and there.sum() > len(there) / 2


def test_another_trajectory_is_another_episode():
    """Where nothing else says that an episode was given up."""
    storage = Memory(6, 1)
    count, no = torch.arange(6.0)[:, None], torch.zeros(6, 1, dtype=torch.bool)
    after = {"reward": count, "terminated": no, "truncated": no}
    trajectory = torch.tensor([3, 3, 7, 7, 7, 9])[:, None]
    storage.write(batch.make({"observation": {"x": count}, "trajectory": trajectory, "next": after}, (6, 1)))
    index = torch.arange(6)
    made = NextReconstruct()(storage, index, storage.read(index))
    assert made["mask"].tolist() == [True, False, True, True, False, False]
    assert made["next"]["observation"]["x"].tolist() == [1, 1, 3, 4, 4, 5]


class Blind(NextReconstruct):
    """Takes the next row, of whatever episode it is."""

    def __call__(self, storage, index, batch):
        slot, _ = ahead(storage, index, 2)
        batch["next"]["observation"] = storage.column("observation")[slot[..., 1]]
        return batch


def test_it_holds_to_the_contract():
    def make(lookup):
        return lambda folder: ReplayBuffer(Memory(90, 3, 40, folder=folder), Uniform(3), [lookup], batch_size=8)

    assert "lookups" in whorl.check_buffer(make(NextReconstruct()))
    with pytest.raises(BufferFault, match=r"another 'next.observation' than was written"):
        whorl.check_buffer(make(Blind()))


def test_a_storage_of_frames_needs_successors():
    from whorl.buffers.storage_frames import Frames

    buffer = ReplayBuffer(Frames(80, LANES, 4), Uniform(0), [NextReconstruct()])
    with pytest.raises(BatchError, match="'next.observation' is NoneType"):
        buffer.add(next(played(10, 10, {"name": "stack_frames", "count": 4})))
