"""Samplers of sequences: which there are (by brute force), ends, padding, priorities."""

import json

import numpy as np
import pytest
import torch

from whorl import batch
from whorl.agents.dqn import DQNConfig
from whorl.buffers.buffer import ReplayBuffer
from whorl.buffers.lookup.n_step import NStep
from whorl.buffers.sample_prioritized import EPS
from whorl.buffers.sample_sequence import PrioritizedSequences, Sequences, sequence_priority
from whorl.buffers.storage_memory import Memory
from whorl.errors import BadInput
from whorl.feeds import Replay
from whorl.training.build import build

SAMPLERS = [Sequences, PrioritizedSequences]


def rollout(T, N=1, mask=None, ends=(), first=0, **entries):
    """x counts the rows from `first`; the rows `ends` of all lanes are terminated, every second of them truncated."""
    k = first + torch.arange(T)[:, None].expand(T, N)
    ended = torch.isin(k, torch.tensor(list(ends), dtype=torch.int64))
    entries = {"x": k.clone(), "is_first": torch.isin(k - 1, torch.tensor(list(ends), dtype=torch.int64)), **entries}
    entries["next"] = batch.make({"terminated": ended & (k % 2 == 0), "truncated": ended & (k % 2 == 1)}, (T, N))
    return batch.make(entries if mask is None else {**entries, "mask": mask}, (T, N))


def add(storage, sampler, T, **arguments):
    index = storage.write(rollout(T, storage.lanes, first=int(storage.count[0]), **arguments))
    sampler.written(storage, index)
    return index


def starts(storage, span, stride):
    """By brute force: (row, lane) of all sequences of `span` live rows that begin at a multiple of `stride`."""
    low, high = storage.live()
    return {
        (k, e)
        for e in range(storage.lanes)
        for k in range(int(low[e]), int(high[e]))
        if k % stride == 0 and all(low[e] <= k + i < high[e] for i in range(span))
    }


def of_index(storage, index):
    """{(row, lane)} of the beginnings; that all columns are consecutive rows of one lane is asserted."""
    row, lane = index // storage.lanes, index % storage.lanes
    assert (lane == lane[0]).all() and (row == row[0] + torch.arange(len(row))[:, None]).all()
    return set(zip(row[0].tolist(), lane[0].tolist(), strict=True))


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("slack", [0, 3])
@pytest.mark.parametrize("length,burn_in,overlap", [(1, 0, 0), (4, 0, 0), (4, 2, 2), (3, 3, 2), (5, 0, 1), (2, 7, 0)])
def test_every_sequence_that_is_there_and_no_other(length, burn_in, overlap, slack, kind):
    """Random writes with masked rows, past many ends of the ring. Sequences cross neither the cursor nor the oldest row."""
    storage, sampler = Memory(39, 3, slack), kind(0, length, burn_in, overlap)
    random = np.random.default_rng(0)
    for _ in range(40):
        T = int(random.choice([1, 2, 9]))
        add(storage, sampler, T, mask=torch.from_numpy(random.random((T, 3)) < 0.8))
        expected = starts(storage, burn_in + length, length - overlap)
        if not expected:
            with pytest.raises(BadInput, match="no sequence can be drawn yet"):
                sampler.draw(storage, 1)
            continue
        index, weight, extras = sampler.draw(storage, 200)
        assert index.shape == (burn_in + length, 200) and index.dtype == torch.int64 and extras == {}
        found = of_index(storage, index)
        assert found <= expected
        if kind is PrioritizedSequences:
            assert found == expected  # equal priorities, stratified
            assert (sampler.priorities.tree.leaves > 0).sum() == len(expected)
            assert torch.equal(weight, torch.ones(burn_in + length, 200))
        else:
            assert weight is None


def test_uniform_over_all_sequences():
    """Lanes of 10, 5 and 2 live rows hold 8, 3 and 0 sequences of 3: each of the 11 comes equally often."""
    storage, sampler = Memory(30, 3), Sequences(0, length=3, overlap=2)
    mask = torch.arange(10)[:, None] < torch.tensor([10, 5, 2])
    add(storage, sampler, 10, mask=mask)
    drawn = sampler.draw(storage, 100_000)[0][0]
    values, counts = drawn.unique(return_counts=True)
    assert {(i // 3, i % 3) for i in values.tolist()} == starts(storage, 3, 1) and len(values) == 11
    distance = ((counts - 100_000 / 11) ** 2 / (100_000 / 11)).sum()
    assert torch.special.gammaincc(torch.tensor(5.0), distance / 2) > 1e-4


def test_rlpyt_floored_starts_land_behind_the_cursor():
    """rlpyt drew any valid row and floored it to a multiple of the interval: after the ring's cursor that is a row that is gone.

    Live rows 7 ... 16, starts at multiples of 4: row 7 floors to 4, which was overwritten. Only 8 and 12 begin sequences of 4.
    """
    for kind in SAMPLERS:
        storage, sampler = Memory(10, 1), kind(0, length=4)
        add(storage, sampler, 17)
        assert storage.live()[0] == [7]
        assert of_index(storage, sampler.draw(storage, 200)[0]) == {(8, 0), (12, 0)}
        assert (storage.read(sampler.draw(storage, 200)[0])["x"][0] % 4 == 0).all()


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_batch_holds_consecutive_rows_and_the_marks_of_episodes(kind):
    carry = torch.arange(20.0)[:, None, None].repeat(1, 2, 3)
    buffer = ReplayBuffer(Memory(24, 2), kind(0, length=4, burn_in=2, overlap=3), batch_size=50)
    for part in range(2):
        rows = slice(10 * part, 10 * part + 10)
        buffer.add(rollout(10, 2, first=10 * part, ends=[4, 13], recurrent_state=carry[rows]))
    rows = buffer.sample()
    assert rows.batch_size == (6, 50)
    assert torch.equal(rows["x"], rows["x"][0] + torch.arange(6)[:, None])
    assert torch.equal(rows["is_first"], (rows["x"] == 5) | (rows["x"] == 14))
    assert rows["is_first"].any() and not rows["is_first"].all(0).any()
    assert torch.equal(rows["recurrent_state"], rows["x"].float()[..., None].expand(6, 50, 3))
    middle = rows["x"][0] == 8  # begins in the midst of an episode, and does not look as if it were its beginning
    assert middle.any() and not rows["is_first"][0, middle].any()
    assert batch.get(rows, "mask") is None


@pytest.mark.parametrize("kind", SAMPLERS)
def test_padding_after_an_end(kind):
    """By brute force: up to and with the first end the rows as they are, after it the ending row again and mask False."""
    buffer = ReplayBuffer(Memory(40, 2), kind(0, length=5, burn_in=1, overlap=4, across_ends=False), batch_size=100)
    ends = [3, 4, 12, 30]
    buffer.add(rollout(35, 2, ends=ends))
    rows = buffer.sample()
    for b in range(100):
        first = int(rows["x"][0, b])
        end = min([k for k in ends if k >= first], default=99)
        expected = [min(first + t, end) for t in range(6)]
        assert rows["x"][:, b].tolist() == expected
        assert rows["mask"][:, b].tolist() == [first + t <= end for t in range(6)]
        assert (rows["index"][:, b] % 2 == rows["index"][0, b] % 2).all()
    assert not rows["mask"].all() and rows["mask"].all(0).any()


def test_padding_never_reads_behind_the_cursor():
    """The padded rows of the newest sequence would lie beyond it if they were not clamped: they are all live."""
    storage, sampler = Memory(12, 1), Sequences(0, length=6, across_ends=False)
    add(storage, sampler, 19, ends=[13])
    index, _, extras = sampler.draw(storage, 5)
    assert index[:, 0].tolist() == [12, 13, 13, 13, 13, 13]
    assert extras["mask"][:, 0].tolist() == [True, True, False, False, False, False]


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("across_ends", [True, False])
def test_data_that_does_not_grow_is_drawn_to_its_end(across_ends, kind):
    """With overlap = length - 1 every row is drawn. Without across_ends a row counts only behind a start in its own episode, so the
    rows of a last episode that is shorter than a sequence never do."""
    never = {  # 23 rows, episodes of 9, 11 and 3: without overlap four sequences of 5, and 3 rows that wait for more
        (4, True): set(),
        (0, True): {20, 21, 22},
        (4, False): {20, 21, 22},
        (0, False): {9, 20, 21, 22},
    }
    for overlap in (4, 0):
        storage, sampler = Memory(23, 1), kind(0, length=5, overlap=overlap, across_ends=across_ends)
        add(storage, sampler, 23, ends=[8, 19])
        index, _, extras = sampler.draw(storage, 500)
        counted = index[extras["mask"]] if "mask" in extras else index
        assert set(counted.flatten().tolist()) == set(range(23)) - never[overlap, across_ends]


@pytest.mark.parametrize("kind", SAMPLERS)
def test_prefetching_and_n_step_returns_work_on_sequences(kind):
    def make(prefetch):
        sampler = kind(0, length=4, burn_in=1, overlap=2)
        buffer = ReplayBuffer(Memory(80, 2), sampler, [NStep(3, 0.5)], batch_size=6, prefetch=prefetch)
        reward = torch.arange(40.0)[:, None].expand(40, 2)
        rows = rollout(40, 2, ends=[9, 20])
        rows["next"]["reward"] = reward.contiguous()
        buffer.add(rows)
        return buffer

    plain, early, one = make(0), make(3), make(0)
    one.lookups = ()
    for a, b in zip(plain.batches(20), early.batches(20), strict=True):
        assert a.batch_size == (5, 6) and bool((a == b).all())
        single = NStep(3, 0.5)(one.storage, a["index"].flatten(), one.storage.read(a["index"].flatten()))
        for key in ("reward", "discount", "terminated", "truncated"):
            assert torch.equal(a["next"][key].flatten(), single["next"][key])


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("across_ends", [True, False])
def test_a_resumed_buffer_of_sequences_goes_on_with_the_same_bits(across_ends, kind, tmp_path):
    def make():
        sampler = kind(0, length=3, burn_in=2, overlap=1, across_ends=across_ends)
        return ReplayBuffer(Memory(60, 2, 20, folder=tmp_path), sampler, batch_size=4, replay_ratio=0.5, warmup=20)

    def run(buffer, begin, end):
        drawn = []
        for k in range(begin, end):
            buffer.add(rollout(2, 2, first=2 * k, ends=range(0, 200, 7)))
            for rows in buffer.batches():
                drawn.append(rows.clone())
                if kind is PrioritizedSequences:
                    buffer.feedback(rows["index"], (rows["x"] % 5).float())
        return drawn

    buffer = make()
    run(buffer, 0, 50)
    arrays, numbers = buffer.state()
    arrays, numbers = {name: x.clone() for name, x in arrays.items()}, json.loads(json.dumps(numbers))
    expected = run(buffer, 50, 58)
    other = make()
    assert other.load_state(arrays, numbers) is True
    found = run(other, 50, 58)
    assert len(found) == len(expected) > 5 and all(bool((a == b).all()) for a, b in zip(found, expected, strict=True))


def test_a_q_agent_learns_from_sequences_and_gives_each_row_its_priority():
    config = DQNConfig(hidden=(8,), feed=Replay(prioritized=True))
    parts = build("dqn", "CartPole-v1", config=config, num_envs=2, seed=0, buffer=False)
    sampler = PrioritizedSequences(0, length=4, burn_in=2, overlap=3)
    buffer = ReplayBuffer(Memory(200, 2), sampler, [NStep(2, 0.99)], batch_size=8)
    for _ in range(40):
        buffer.add(parts.agent.prepare(parts.collector.collect()))
    given = []
    feedback, buffer.feedback = buffer.feedback, lambda *both: (given.append([x.shape for x in both]), feedback(*both))
    before = sampler.priorities.tree.total
    parts.agent.learn(buffer)
    assert given and all(shapes == [(6, 8), (6, 8)] for shapes in given)
    assert sampler.priorities.tree.total != before


def test_sequence_priority_by_hand():
    delta = torch.tensor([[1.0, -4.0, 7.0], [-3.0, 0.0, 7.0], [2.0, 2.0, 7.0]])
    assert torch.allclose(sequence_priority(delta), torch.tensor([0.9 * 3 + 0.1 * 2, 0.9 * 4 + 0.1 * 2, 7.0]))
    mask = torch.tensor([[True, False, False], [False, True, False], [True, True, False]])
    assert torch.allclose(
        sequence_priority(delta, mask, eta=0.5), torch.tensor([0.5 * 2 + 0.5 * 1.5, 0.5 * 2 + 0.5 * 1, 0.0])
    )
    nan = torch.where(mask, delta, torch.nan)
    assert torch.equal(sequence_priority(nan, mask), sequence_priority(delta, mask))


def leaf(sampler, storage, start):
    number = sampler.windows.number(storage, sampler.windows.index(storage, torch.tensor([start]))[:, :1])
    return sampler.priorities.tree.get(number % sampler.priorities.tree.size).item()


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_feedback_of_rows_and_of_sequences(backend):
    """rlpyt raised updates to alpha but not the priorities that came with the rows: here the same rows give the same leaf."""
    priority = torch.tensor(
        [9.0, 9.0, 1.0, 3.0, 2.0, 9.0]
    )  # burn-in 2, counted 1, 3, 2, then a row that ends no sequence
    expected = (0.9 * 3 + 0.1 * 2 + EPS) ** 0.5
    arguments = {"length": 3, "burn_in": 2, "alpha": 0.5, "backend": backend}
    storage, sampler = Memory(10, 1), PrioritizedSequences(0, **arguments)
    add(storage, sampler, 6, priority=priority[:, None])
    assert sampler.priorities.tree.leaves[0].item() == pytest.approx(expected, rel=1e-6)  # input
    for came in (priority[2:5, None], priority[:5, None], torch.tensor([2.9])):
        storage, sampler = Memory(10, 1), PrioritizedSequences(0, **arguments)
        add(storage, sampler, 6)
        assert sampler.priorities.tree.leaves[0].item() == pytest.approx((1 + EPS) ** 0.5)
        index, _, _ = sampler.draw(storage, 1)
        sampler.feedback(storage, index, came)
        assert sampler.priorities.tree.leaves[0].item() == pytest.approx(expected, rel=1e-6)  # update
        assert sampler.priorities.tree.total == sampler.priorities.tree.leaves[0].item()


def test_padding_does_not_count_in_the_priority():
    storage, sampler = Memory(10, 1), PrioritizedSequences(0, length=4, alpha=1.0, across_ends=False)
    add(storage, sampler, 6, ends=[1])
    index, _, extras = sampler.draw(storage, 1)
    assert extras["mask"].squeeze(1).tolist() == [True, True, False, False]
    sampler.feedback(storage, index, torch.tensor([[1.0], [3.0], [50.0], [float("nan")]]))
    assert sampler.priorities.tree.total == pytest.approx(0.9 * 3 + 0.1 * 2, rel=1e-5)


def test_an_episode_that_ends_in_the_burn_in_counts_for_nothing():
    storage, sampler = Memory(10, 1), PrioritizedSequences(0, length=2, burn_in=3, alpha=1.0, across_ends=False)
    add(storage, sampler, 5, ends=[1])
    index, _, extras = sampler.draw(storage, 1)
    assert not extras["mask"][3:].any()
    sampler.feedback(storage, index, torch.tensor([[7.0], [8.0]]))
    assert sampler.priorities.tree.total == pytest.approx(EPS, rel=1e-3)


def test_prioritized_sequences_against_a_list_of_starts():
    """Random writes, draws and late feedback: leaves, weights and stale sequences as a dict of sequences says."""
    storage = Memory(20 * 2, 2, slack=3)
    sampler = PrioritizedSequences(0, length=4, burn_in=1, overlap=2, alpha=0.7, beta=0.5)
    random, model, largest, drawn = np.random.default_rng(0), {}, 1.0, []
    for _ in range(300):
        T = int(random.choice([1, 2, 5, 50], p=[0.6, 0.2, 0.15, 0.05]))
        add(storage, sampler, T, mask=torch.from_numpy(random.random((T, 2)) < 0.8))
        model = {start: model.get(start, largest) for start in starts(storage, 5, 2)}
        values = {start: (p + EPS) ** 0.7 for start, p in model.items()}
        assert sampler.priorities.tree.total == pytest.approx(sum(values.values()), rel=1e-12)
        assert (sampler.priorities.tree.leaves > 0).sum() == len(model)
        if not model:
            continue
        index, weight, _ = sampler.draw(storage, 6)
        chosen = list(zip((index[0] // 2).tolist(), (index[0] % 2).tolist(), strict=True))
        paper = torch.tensor([(len(model) * values[start] / sum(values.values())) ** -0.5 for start in chosen])
        assert torch.allclose(weight, (paper / paper.max()).expand(5, 6), rtol=1e-5)
        drawn.append((index, chosen))
        late, late_starts = drawn[int(random.integers(max(0, len(drawn) - 6), len(drawn)))]
        delta = torch.from_numpy(random.random((4, 6)) * 3)
        sampler.feedback(storage, late, delta)
        for start, p in zip(late_starts, sequence_priority(delta).tolist(), strict=True):
            if start in model:
                model[start], largest = p, max(largest, p)
    assert sampler.priorities.largest == pytest.approx(largest) != 1


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_state_goes_on_with_equal_bits(kind):
    def steps(storage, sampler, count):
        result = []
        for i in range(count):
            add(storage, sampler, 5)
            index, weight, _ = sampler.draw(storage, 7)
            result.append(index)
            if weight is not None:
                result.append(weight)
                sampler.feedback(storage, index, torch.arange(7.0) * (i + 1) % 5)
        return result

    storage, sampler = Memory(60, 2, slack=50), kind(5, length=3, burn_in=2, overlap=1)
    steps(storage, sampler, 9)
    arrays, numbers = sampler.state()
    arrays = {key: value.clone() for key, value in arrays.items()}
    twin, other, throwaway = Memory(60, 2, slack=50), kind(5, 3, 2, 1), kind(0, 3, 2, 1)
    steps(twin, throwaway, 9)
    other.load_state(arrays, numbers)
    for a, b in zip(steps(storage, sampler, 9), steps(twin, other, 9), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_sequences_longer_than_the_buffer_can_hold(kind):
    """Said at the first write, before anything is learned. 12 rows and starts at every 3rd: 14 rows are sure to hold one."""
    buffer = ReplayBuffer(Memory(26, 2), kind(0, length=8, burn_in=4, overlap=5))
    message = (
        r"sequences of 12 rows \(burn_in 4 \+ length 8\) that begin every 3 rows need a buffer of 14 rows a lane, "
        r"this one has 13: raise its capacity to 28 \(2 lanes\), or use shorter sequences"
    )
    with pytest.raises(BadInput, match=message):
        buffer.add(rollout(1, 2))
    buffer = ReplayBuffer(Memory(28, 2), kind(0, length=8, burn_in=4, overlap=5), batch_size=3)
    for first in range(60):
        buffer.add(rollout(1, 2, first=first))
        if first >= 11:
            buffer.sample()  # there is always one


@pytest.mark.parametrize("kind", SAMPLERS)
def test_sequences_longer_than_what_is_there_yet(kind):
    storage, sampler = Memory(40, 2), kind(0, length=8, burn_in=4)
    for T in (5, 6):
        add(storage, sampler, T)
    message = r"needs 12 rows of one lane \(burn_in 4 \+ length 8, begun at a multiple of 8\), the longest has 11. Add rows first"
    with pytest.raises(BadInput, match=message):
        sampler.draw(storage, 1)
    add(storage, sampler, 1)
    assert of_index(storage, sampler.draw(storage, 9)[0]) == {(0, 0), (0, 1)}


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"length": 0}, "length >= 1 and burn_in >= 0, got length=0, burn_in=0"),
        ({"length": 2, "burn_in": -1}, "got length=2, burn_in=-1"),
        ({"length": 2, "overlap": 2}, r"overlap must lie in \[0, length\), got overlap=2 for length=2"),
        ({"length": 2, "overlap": -1}, "got overlap=-1"),
    ],
)
def test_bad_arguments(kind, arguments, message):
    with pytest.raises(BadInput, match=message):
        kind(0, **arguments)


@pytest.mark.parametrize("name", ["alpha", "beta", "eta"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_exponents_outside_0_to_1(name, value):
    with pytest.raises(BadInput, match=rf"{name} .*\[0, 1\], got {value}"):
        PrioritizedSequences(0, length=2, **{name: value})


def test_bad_feedback():
    storage, sampler = Memory(40, 1), PrioritizedSequences(0, length=4, burn_in=2)
    add(storage, sampler, 20)
    index, _, _ = sampler.draw(storage, 3)
    before = sampler.priorities.tree.nodes.clone()
    for bad in (float("nan"), -1.0, float("inf")):
        rows = torch.ones(4, 3)
        rows[2, 1] = bad
        for priority in (rows, torch.tensor([1.0, bad, 1.0])):
            with pytest.raises(BadInput, match="a priority must be a finite number of at least 0, got .* at position"):
                sampler.feedback(storage, index, priority)
    for shape in ((5, 3), (4, 2)):
        with pytest.raises(
            BadInput, match=r"priorities of rows must have shape \[4, 3\] \(or with the burn-in \[6, 3\]\)"
        ):
            sampler.feedback(storage, index, torch.ones(shape))
    with pytest.raises(BadInput, match="one priority for each index"):
        sampler.feedback(storage, index, torch.ones(2))
    for other in (index + 1, index[1:]):
        with pytest.raises(
            BadInput, match=r"not indexes of this sampler: it gives \[6, B\], begun at multiples of 4 rows"
        ):
            sampler.feedback(storage, other, torch.ones(3))
    assert torch.equal(sampler.priorities.tree.nodes, before)
    with pytest.raises(BadInput, match="uniform sampling of sequences has no priorities"):
        Sequences(0, length=4).feedback(storage, index, torch.ones(3))
