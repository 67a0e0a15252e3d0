"""n-step returns in the buffer against a walk in plain Python over the rows as they were written."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from whorl import batch
from whorl.buffers.buffer import ReplayBuffer
from whorl.buffers.lookup.n_step import NStep
from whorl.buffers.sample_uniform import Uniform
from whorl.buffers.storage_memory import Memory
from whorl.errors import BadInput

DISCOUNT = 0.9


class Played:
    """Random rows written to a storage, and the same rows as lists, one per lane."""

    def __init__(self, storage, seed=0, mask=False, discounts=False, ends=0.3):
        self.storage, self.rng = storage, np.random.default_rng(seed)
        self.mask, self.discounts, self.ends = mask, discounts, ends
        self.lanes = [[] for _ in range(storage.lanes)]
        self.first = np.ones(storage.lanes, bool)

    def write(self, steps: int) -> None:
        rng, n = self.rng, self.storage.lanes
        shape = (steps, n)
        terminated, truncated = rng.random(shape) < self.ends / 2, rng.random(shape) < self.ends / 2
        mask = rng.random(shape) < 0.8 if self.mask else np.ones(shape, bool)
        reward, here = rng.normal(size=shape).astype(np.float32), rng.normal(size=(*shape, 2)).astype(np.float32)
        there, discount = rng.normal(size=(*shape, 2)).astype(np.float32), rng.random(shape).astype(np.float32)
        allowed, first = rng.random((*shape, 3)) < 0.5, np.zeros(shape, bool)
        for t in range(steps):
            for e in range(n):
                if not mask[t, e]:
                    continue
                first[t, e], self.first[e] = self.first[e], terminated[t, e] | truncated[t, e]
                self.lanes[e].append(
                    {"reward": reward[t, e], "terminated": terminated[t, e], "truncated": truncated[t, e]}
                    | {"observation": there[t, e], "discount": discount[t, e], "action_mask": allowed[t, e]}
                    | {"here": here[t, e]}
                )
        following = {"observation": {"x": there}, "reward": reward, "terminated": terminated, "truncated": truncated}
        following["action_mask"] = allowed
        if self.discounts:
            following["discount"] = discount
        rollout = {"observation": {"x": here}, "is_first": first, "next": following}
        if self.mask:
            rollout["mask"] = mask
        self.storage.write(batch.make(tensors(rollout), shape))

    def expected(self, index: int, n: int) -> dict:
        """What NStep should make of a row, worked step by step."""
        k, lane = divmod(index, self.storage.lanes)
        rows, total, discount = self.lanes[lane], 0.0, 1.0
        for row in rows[k : k + n]:
            total += discount * row["reward"]
            discount *= row["discount"] if self.discounts else DISCOUNT
            last = row
            if row["terminated"] or row["truncated"]:
                break
        return {**last, "reward": total, "discount": discount, "here": rows[k]["here"]}

    def live(self) -> torch.Tensor:
        """Every row that can be sampled, by its absolute index."""
        low, high = self.storage.live()
        index = [k * self.storage.lanes + e for e in range(self.storage.lanes) for k in range(low[e], high[e])]
        return torch.tensor(index)

    def check(self, n: int, index: torch.Tensor) -> None:
        got = NStep(n, DISCOUNT)(self.storage, index, self.storage.read(index))
        for position in np.ndindex(*index.shape):
            expected = self.expected(int(index[position]), n)
            for key in ("reward", "discount"):
                assert got["next"][key].dtype == torch.float32
                assert float(got["next"][key][position]) == pytest.approx(expected[key], rel=1e-6, abs=1e-6)
            for key in ("terminated", "truncated"):
                assert bool(got["next"][key][position]) == expected[key]
            np.testing.assert_array_equal(got["next"]["observation"]["x"][position], expected["observation"])
            np.testing.assert_array_equal(got["next"]["action_mask"][position], expected["action_mask"])
            np.testing.assert_array_equal(got["observation"]["x"][position], expected["here"])
            assert int(got["index"][position]) == int(index[position])


def tensors(tree):
    return {key: tensors(value) if isinstance(value, dict) else torch.from_numpy(value) for key, value in tree.items()}


@pytest.mark.parametrize("n", [1, 2, 3, 5, 40])
@pytest.mark.parametrize("lanes, mask, discounts", [(1, False, False), (3, False, True), (3, True, False)])
def test_it_equals_a_walk_over_the_rows_while_the_ring_wraps(n, lanes, mask, discounts):
    played = Played(Memory(20 * lanes, lanes, slack=3), seed=n, mask=mask, discounts=discounts)
    for _ in range(24):
        played.write(int(played.rng.integers(1, 9)))
        live = played.live()
        played.check(n, live[torch.from_numpy(played.rng.permutation(len(live))[:15])])
    played.check(n, played.live())
    assert played.storage.count.min() > 2 * played.storage.ring and (len(set(played.storage.count)) > 1) == mask


def test_sequences_get_a_return_for_each_of_their_rows():
    played = Played(Memory(90, 3), ends=0.1)
    played.write(50)
    low, _ = played.storage.live()
    start = torch.tensor([low[0] * 3, (low[1] + 5) * 3 + 1, (low[2] + 11) * 3 + 2])
    played.check(4, start + 3 * torch.arange(6)[:, None])


def play(rewards, terminated=(), truncated=(), capacity=100, first=(0,)):
    """One lane with these rewards and ends; observation t -> t + 1."""
    t = len(rewards)
    flag = lambda where: torch.tensor([[i in where] for i in range(t)])  # noqa: E731
    count = torch.arange(t, dtype=torch.float32)[:, None]
    following = {"observation": count + 1, "reward": torch.tensor(rewards, dtype=torch.float32)[:, None]}
    following |= {"terminated": flag(terminated), "truncated": flag(truncated)}
    storage = Memory(capacity, 1)
    storage.write(batch.make({"observation": count, "is_first": flag(first), "next": following}, (t, 1)))
    return storage


def n_step(storage, index, n):
    index = torch.tensor(index)
    return NStep(n, 0.5)(storage, index, storage.read(index))["next"]


def test_numbers_worked_by_hand():
    got = n_step(play([1, 2, 4, 8, 16], terminated=[3]), [0, 1, 2, 3, 4], 3)
    assert got["reward"].tolist() == [1 + 1 + 1, 2 + 2 + 2, 4 + 4, 8, 16]
    assert got["discount"].tolist() == [0.125, 0.125, 0.25, 0.5, 0.5]
    assert got["terminated"].tolist() == [False, True, True, True, False]
    assert got["observation"].tolist() == [3, 4, 4, 4, 5]


def test_rlpyt_bug_a_time_limit_anywhere_in_the_window_is_seen():
    # rlpyt passed on only a time limit exactly at step n - 1 of the window
    for end in range(4):
        got = n_step(play([1, 1, 1, 1, 1, 1], truncated=[end]), [0], 4)
        assert got["truncated"].item() and not got["terminated"].item()
        assert got["observation"].item() == end + 1 and got["discount"].item() == 0.5 ** (end + 1)


def test_rlpyt_bug_windows_across_the_wrap_of_the_ring():
    # rlpyt took indexes past the end modulo the wrong number
    storage = play([1, 2, 4, 8, 16, 32, 64], capacity=5)  # slots hold rows 5, 6, 2, 3, 4
    got = n_step(storage, [2, 3, 4], 3)
    assert got["reward"].tolist() == [4 + 4 + 4, 8 + 8 + 8, 16 + 16 + 16] and got["observation"].tolist() == [5, 6, 7]


def test_the_newest_row_bounds_the_window_and_older_rows_behind_the_cursor_are_not_used():
    got = n_step(play([1, 2, 4, 8, 16, 32, 64], capacity=5), [4, 5, 6], 5)
    assert got["reward"].tolist() == [16 + 16 + 16, 32 + 32, 64]
    assert got["discount"].tolist() == [0.125, 0.25, 0.5] and got["observation"].tolist() == [7, 7, 7]


def test_an_episode_given_up_without_a_flag_ends_where_the_next_one_starts():
    got = n_step(play([1, 2, 4, 8], first=[0, 2]), [0, 1, 2], 3)
    assert got["reward"].tolist() == [2, 2, 8] and got["observation"].tolist() == [2, 2, 4]
    assert got["discount"].tolist() == [0.25, 0.5, 0.25] and not got["truncated"].any()


def test_the_buffer_uses_it_and_a_batch_is_not_written_over():
    buffer = ReplayBuffer(play([1] * 50), Uniform(seed=0), [NStep(3, 0.5)], batch_size=16)
    for _ in range(3):
        got = buffer.sample()
        index = got["index"].float()
        assert torch.equal(got["observation"], index)
        assert torch.equal(got["next"]["observation"], (index + 3).clamp(max=50))


def test_bad_input_is_named():
    with pytest.raises(BadInput, match="n-step returns need n of at least 1, got 0"):
        NStep(0, 0.9)
    with pytest.raises(BadInput, match=r"discount must lie in \[0, 1\], got 1.5"):
        NStep(3, 1.5)
    with pytest.raises(BadInput, match="n-step longer than the sequence: n = 5, the sequences have 4 rows"):
        n_step(play([1] * 10), [[0, 1], [1, 2], [2, 3], [3, 4]], 5)
