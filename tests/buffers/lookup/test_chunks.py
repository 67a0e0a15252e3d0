"""Chunks of actions against a walk over the rows."""

import pytest
import torch

import whorl
from tests.buffers.lookup.known import LANES, live, played
from whorl.buffers.buffer import ReplayBuffer
from whorl.buffers.lookup.chunks import Chunks
from whorl.buffers.lookup.n_step import NStep
from whorl.buffers.sample_uniform import Uniform
from whorl.buffers.storage_memory import Memory
from whorl.errors import BadInput


@pytest.mark.parametrize("steps", [1, 3, 40])
def test_they_are_the_actions_that_follow(steps):
    storage = Memory(60 * LANES, LANES)
    for rollout in played(140, 70):
        storage.write(rollout)
    index = live(storage)
    rows = storage.read(index).clone()
    made = Chunks(steps)(storage, index, storage.read(index))
    assert made["action"].shape == (len(index), steps) and made["chunk_mask"].dtype == torch.bool
    ended = rows["next"]["terminated"] | rows["next"]["truncated"]
    place = {int(i): j for j, i in enumerate(index)}
    for j, i in enumerate(index.tolist()):
        expected = [rows["action"][j]]
        while len(expected) < steps and not ended[place[i]] and i + LANES in place:
            i += LANES
            expected.append(rows["action"][place[i]])
        k = len(expected)
        assert made["chunk_mask"][j].tolist() == [True] * k + [False] * (steps - k)
        assert made["action"][j].tolist() == expected + [expected[-1]] * (steps - k)


def test_with_n_step_returns_and_vectors_of_actions():
    buffer = ReplayBuffer(Memory(80, LANES), Uniform(0), [NStep(5, 0.9), Chunks(5)], batch_size=6)
    rollout = next(played(20, 20))
    rollout["action"] = torch.rand(20, LANES, 3)
    buffer.add(rollout)
    rows = buffer.sample()
    assert rows["action"].shape == (6, 5, 3) and rows["next"]["discount"].shape == (6,)
    powers = 0.9 ** rows["chunk_mask"].sum(-1).double()
    torch.testing.assert_close(rows["next"]["discount"].double(), powers, rtol=1e-6, atol=0)


def test_the_contract_and_what_is_refused():
    buffer = lambda folder: ReplayBuffer(Memory(90, 3), Uniform(3), [Chunks(4)], batch_size=8)  # noqa: E731
    assert "lookups" in whorl.check_buffer(buffer, changes=("action",))
    with pytest.raises(BadInput, match="a chunk has at least 1 action, got 0"):
        Chunks(0)
