"""The rollout buffer: every row once an epoch, shuffles from their own stream."""

import pytest
import torch

from whorl import batch
from whorl.buffers.rollout import RolloutBuffer
from whorl.errors import BadInput
from whorl.feeds import Rollouts


def rollout(T=8, N=4):
    return batch.make(
        {"row": torch.arange(T * N).view(T, N), "nested": {"x": torch.arange(T * N).view(T, N) * 2}}, (T, N)
    )


@pytest.mark.parametrize("minibatches", [1, 2, 4, 5, 32])
def test_every_row_once_an_epoch(minibatches):
    buffer = RolloutBuffer(Rollouts(steps=8, epochs=3, minibatches=minibatches))
    buffer.add(rollout())
    batches = list(buffer.batches())
    assert len(batches) == 3 * minibatches
    for epoch in range(3):
        piece = batches[epoch * minibatches : (epoch + 1) * minibatches]
        rows = torch.cat([b["row"] for b in piece])
        assert sorted(rows.tolist()) == list(range(32))
        assert max(map(len, piece)) - min(map(len, piece)) <= 1
        assert all(torch.equal(b["nested", "x"], b["row"] * 2) for b in piece)


def test_shuffles_differ_and_are_reproducible_from_the_state():
    def rows(buffer):
        buffer.add(rollout())
        return torch.cat([b["row"] for b in buffer.batches()])

    feed = Rollouts(steps=8, epochs=2, minibatches=2)
    a, b = RolloutBuffer(feed, seed=3), RolloutBuffer(feed, seed=3)
    first, second = rows(a), rows(a)
    assert not torch.equal(first[:32], first[32:]) and not torch.equal(first, second)
    assert torch.equal(first, rows(b))
    c = RolloutBuffer(feed, seed=3)
    c.load_state(*b.state())
    assert torch.equal(second, rows(c))
    assert not torch.equal(first, rows(RolloutBuffer(feed, seed=4)))


def test_count_limits_the_batches():
    buffer = RolloutBuffer(Rollouts(steps=8, epochs=3, minibatches=4))
    buffer.add(rollout())
    assert len(list(buffer.batches(5))) == 5


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        (Rollouts(steps=0), "feed.steps must be at least 1, got 0"),
        (Rollouts(epochs=0), "feed.epochs must be at least 1"),
        (
            Rollouts(steps=4, minibatches=9),
            r"feed.minibatches = 9 is more than the rollout's 8 rows \(4 steps x 2 environments\)",
        ),
    ],
)
def test_impossible_sizes(feed, message):
    with pytest.raises(BadInput, match=message):
        feed.check(2)
