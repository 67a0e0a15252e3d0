"""Uniform sampling: only live rows, each as likely as any other, and the same ones after resuming."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from whorl import batch
from whorl.buffers.sample_uniform import BLOCK, Uniform, Uniforms, WithoutReplacement
from whorl.buffers.storage_memory import Memory
from whorl.errors import BadInput


def storage(steps, lanes=3, capacity=30, mask=None):
    result = Memory(capacity, lanes)
    rows = batch.make({"x": torch.zeros(steps, lanes)}, (steps, lanes))
    if mask is not None:
        rows["mask"] = mask
    result.write(rows)
    return result


def uneven():
    """5, 10 (wrapped) and 2 live rows."""
    mask = torch.zeros(13, 3, dtype=torch.bool)
    mask[:5, 0] = mask[:, 1] = mask[-2:, 2] = True
    return storage(13, mask=mask)


@pytest.mark.parametrize("rows", [storage(4), storage(13), uneven()], ids=["filling", "wrapped", "uneven"])
def test_every_live_row_is_equally_likely(rows):
    sampler, draws = Uniform(1), 400
    low, high = rows.live()
    live = [k * 3 + lane for lane in range(3) for k in range(low[lane], high[lane])]
    drawn = torch.cat([sampler.draw(rows, 100)[0] for _ in range(draws)])
    assert drawn.dtype == torch.int64
    index, counts = np.unique(drawn.numpy(), return_counts=True)
    assert index.tolist() == sorted(live)
    expected = draws * 100 / len(live)
    freedom = len(live) - 1
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert abs(chi_square - freedom) < 5 * (2 * freedom) ** 0.5


def test_numbers_come_in_blocks_and_the_state_is_where_one_stands():
    whole = Uniforms(5).take(3 * BLOCK + 17)
    assert whole.shape == (3 * BLOCK + 17,) and whole.min() >= 0 and whole.max() < 1
    pieces = Uniforms(5)
    sizes = [1, BLOCK - 5, 100, BLOCK, BLOCK - 96, 17]
    taken = []
    for size in sizes:
        again = Uniforms(5)
        assert again.load_state({}, json.loads(json.dumps(pieces.state()[1]))) is True
        piece = pieces.take(size)
        assert np.array_equal(piece, again.take(size))
        taken.append(piece)
    assert np.array_equal(np.concatenate(taken), whole)
    assert not np.array_equal(Uniforms(6).take(9), whole[:9])


def test_nothing_to_draw_from():
    for sampler in (Uniform(), WithoutReplacement()):
        for rows in (Memory(4, 2), storage(2, mask=torch.zeros(2, 3, dtype=torch.bool))):
            with pytest.raises(BadInput, match="the replay buffer is empty: add rollouts before sampling"):
                sampler.draw(rows, 3)
        with pytest.raises(BadInput, match="no priorities"):
            sampler.feedback(rows, torch.zeros(1), torch.zeros(1))


@pytest.mark.parametrize("rows", [storage(13), uneven()], ids=["even", "uneven"])
def test_without_replacement_every_row_once_an_epoch(rows):
    sampler = WithoutReplacement(2)
    low, high = rows.live()
    live = sorted(k * 3 + lane for lane in range(3) for k in range(low[lane], high[lane]))
    epochs = []
    for _ in range(3):
        batches = [sampler.draw(rows, 7)[0].tolist() for _ in range(-(-len(live) // 7))]
        assert {len(b) for b in batches[:-1]} == {7} and len(batches[-1]) == len(live) % 7
        epochs.append(sum(batches, []))
        assert sorted(epochs[-1]) == live
    assert epochs[0] != epochs[1] != epochs[2]
    dropping = WithoutReplacement(2, drop_last=True)
    full = [dropping.draw(rows, 7)[0].tolist() for _ in range(2 * (len(live) // 7))]
    assert all(len(b) == 7 for b in full) and sum(full[: len(full) // 2], []) == epochs[0][: len(live) // 7 * 7]
    with pytest.raises(BadInput, match=f"{len(live)} rows are fewer than a batch of 100, and drop_last drops them"):
        dropping.draw(rows, 100)


def test_without_replacement_keeps_to_the_rows_of_its_epoch():
    rows, sampler = storage(10), WithoutReplacement(0)
    first = sampler.draw(rows, 10)[0].tolist()
    rows.write(batch.make({"x": torch.zeros(4, 3)}, (4, 3)))  # overwrites rows 0 to 3 of each lane
    state = json.loads(json.dumps(sampler.state()))
    rest = sampler.draw(rows, 30)[0].tolist()
    assert sorted(rest) == sorted(set(range(12, 30)) - set(first))
    again = WithoutReplacement(0)
    again.load_state(*state)
    assert again.draw(rows, 30)[0].tolist() == rest
    assert sorted(sampler.draw(rows, 30)[0].tolist()) == list(range(12, 42))  # the next epoch has them
