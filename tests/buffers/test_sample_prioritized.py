"""Prioritized sampling: frequencies, weights, annealing, the moving window, stale feedback, states."""

import numpy as np
import pytest
import torch

from whorl import batch
from whorl.buffers.sample_prioritized import EPS, Priorities, Prioritized
from whorl.buffers.storage_memory import Memory
from whorl.errors import BadInput
from whorl.functional.streams import stream

BACKENDS = ["numba", "torch"]


def rollout(T, N=1, mask=None, **entries):
    values = {"x": torch.arange(T * N, dtype=torch.float32).view(T, N), **entries}
    return batch.make(values if mask is None else {**values, "mask": mask}, (T, N))


def add(storage, sampler, T, mask=None, **entries):
    index = storage.write(rollout(T, storage.lanes, mask, **entries))
    sampler.written(storage, index)
    return index


def leaves(sampler, storage):
    """{absolute index: leaf} of the live rows; all other leaves must be 0."""
    low, high = storage.live()
    index = torch.cat([torch.arange(int(low[e]), int(high[e])) * storage.lanes + e for e in range(storage.lanes)])
    values = sampler.priorities.tree.leaves.clone()
    result = dict(zip(index.tolist(), values[storage.slot(index)].tolist(), strict=True))
    values[storage.slot(index)] = 0
    assert not values.any()
    return result


def chi_square(drawn, probability):
    """The probability that counts drawn from `probability` lie at least as far from what was expected."""
    counts, expected = torch.bincount(drawn, minlength=len(probability)), probability * len(drawn)
    distance = ((counts - expected) ** 2 / expected).sum()
    return torch.special.gammaincc(torch.tensor((len(probability) - 1) / 2.0).double(), distance / 2).item()


def test_the_chi_square_test_itself():
    """The 5 % point of 9 degrees of freedom is 16.919: ten counts of 1000 +- d with d**2 = 1691.9."""
    counts = 1_000 + torch.tensor([1, -1] * 5) * 41
    assert chi_square(torch.arange(10).repeat_interleave(counts), torch.full((10,), 0.1).double()) == pytest.approx(
        0.0514, abs=1e-3
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_sampled_frequencies_pass_a_chi_square_test(alpha, backend):
    storage, sampler = Memory(40, lanes=2, slack=3), Prioritized(0, alpha=alpha, backend=backend)
    add(storage, sampler, 33)
    live = torch.arange(13 * 2, 33 * 2)
    priority = torch.rand(40, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 5
    sampler.feedback(storage, live, priority)
    # one row a draw: strata of a larger batch spread the rows more evenly than independent draws, and would always pass
    drawn = torch.cat([sampler.draw(storage, 1)[0] for _ in range(20_000 if backend == "numba" else 2_000)])
    expected = (priority + EPS) ** alpha / ((priority + EPS) ** alpha).sum()
    assert chi_square(drawn - 26, expected) > 1e-4
    drawn = torch.cat([sampler.draw(storage, 250)[0] for _ in range(400)])
    assert chi_square(drawn - 26, expected) > 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
def test_draws_are_stratified(backend):
    """Draw i of B lies in the i-th of B equal parts of the mass: with equal priorities every row comes exactly once."""
    storage, sampler = Memory(64, lanes=1), Prioritized(0, backend=backend)
    add(storage, sampler, 64)
    for _ in range(20):
        assert sampler.draw(storage, 64)[0].tolist() == list(range(64))
        assert (sampler.draw(storage, 16)[0] // 4).tolist() == list(range(16))


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_by_hand(backend):
    """Priorities 1, 3, 4 with alpha 1: P = 1/8, 3/8, 1/2; beta 1/2 gives (3 P)**-1/2 over its largest, (3/8)**-1/2."""
    storage, sampler = Memory(3, lanes=1), Prioritized(0, alpha=1.0, beta=0.5, backend=backend)
    add(storage, sampler, 3)
    sampler.feedback(storage, torch.arange(3), torch.tensor([1.0, 3.0, 4.0], dtype=torch.float64) - EPS)
    index, weight, extras = sampler.draw(storage, 8)
    assert weight.dtype == torch.float32 and extras == {}
    assert index.tolist() == [0, 1, 1, 1, 2, 2, 2, 2]
    by_hand = torch.tensor([1.0, 1 / 3**0.5, 1 / 2])
    assert torch.allclose(weight, by_hand[index], rtol=1e-6)
    probability = torch.tensor([1 / 8, 3 / 8, 1 / 2])
    paper = (3 * probability) ** -0.5
    assert torch.allclose(weight, (paper / paper.max())[index], rtol=1e-6)
    sampler.feedback(storage, torch.tensor([0]), torch.tensor([0.0]))
    index, weight, _ = sampler.draw(storage, 7)
    assert 0 not in index and weight.max() == 1  # normalized by the largest of the batch, not of the buffer


@pytest.mark.parametrize("backend", BACKENDS)
def test_alpha_is_applied_once(backend):
    """TorchRL #3925 raised to alpha twice on one of the ways in; rlpyt left it out for priorities that came with the rows."""
    expected = (2.0 + EPS) ** 0.5
    storage, sampler = Memory(2, lanes=1), Prioritized(0, alpha=0.5, initial=2.0, backend=backend)
    add(storage, sampler, 1)
    assert leaves(sampler, storage)[0] == pytest.approx(expected, rel=1e-12)  # initial
    sampler.feedback(storage, torch.tensor([0]), torch.tensor([2.0], dtype=torch.float64))
    assert leaves(sampler, storage)[0] == pytest.approx(expected, rel=1e-12)  # feedback
    storage, sampler = Memory(2, lanes=1), Prioritized(0, alpha=0.5, backend=backend)
    add(storage, sampler, 1, priority=torch.full((1, 1), 2.0, dtype=torch.float64))
    assert leaves(sampler, storage)[0] == pytest.approx(expected, rel=1e-12)  # stored with the row
    storage, sampler = Memory(2, lanes=1), Prioritized(0, alpha=0.5, backend=backend)
    add(storage, sampler, 1)
    sampler.feedback(storage, torch.tensor([0]), torch.tensor([2.0], dtype=torch.float64))
    add(storage, sampler, 1)
    assert leaves(sampler, storage)[1] == pytest.approx(expected, rel=1e-12)  # the largest so far


@pytest.mark.parametrize("backend", BACKENDS)
def test_new_rows_get_the_largest_priority_so_far(backend):
    storage, sampler = Memory(10, lanes=1), Prioritized(0, alpha=1.0, backend=backend)
    add(storage, sampler, 1)
    sampler.feedback(storage, torch.tensor([0]), torch.tensor([0.25]))
    add(storage, sampler, 1)  # 1 at the start
    sampler.feedback(storage, torch.tensor([1]), torch.tensor([3.0]))
    sampler.feedback(storage, torch.tensor([1]), torch.tensor([0.5]))
    add(storage, sampler, 1)
    assert leaves(sampler, storage) == pytest.approx({0: 0.25 + EPS, 1: 0.5 + EPS, 2: 3 + EPS}, rel=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_stored_priorities_also_raise_the_largest(backend):
    storage, sampler = Memory(10, lanes=2), Prioritized(0, alpha=1.0, initial=7.0, backend=backend)
    add(storage, sampler, 2, priority=torch.tensor([[4.0, 0.5], [2.0, 0.0]]))
    assert leaves(sampler, storage) == pytest.approx({0: 4 + EPS, 1: 0.5 + EPS, 2: 2 + EPS, 3: EPS}, rel=1e-6)
    assert sampler.priorities.largest == 4


def test_beta_by_hand():
    storage, sampler = Memory(10, lanes=2), Prioritized(0, beta=0.4, beta_steps=12)
    betas = []
    for _ in range(8):
        add(storage, sampler, 1)
        betas.append(sampler.beta_now(storage))
    assert betas == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0, 1.0])
    assert Prioritized(0, beta=0.4).beta_now(storage) == 0.4
    sampler.feedback(storage, torch.arange(8, 16), torch.tensor([0.5, 1, 2, 3, 4, 5, 6, 7]))
    index, weight, _ = sampler.draw(storage, 64)
    leaf = sampler.priorities.tree.get(storage.slot(index))
    assert torch.allclose(weight, (leaf.min() / leaf).float(), rtol=1e-5)  # beta is 1 where it is used, too


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lanes,slack", [(1, 0), (1, 5), (3, 0), (3, 4)])
def test_against_a_list_of_rows(lanes, slack, backend):
    """Random writes (masked rows, more than a ring at once), draws and late feedback, beside a dict of live rows."""
    storage, sampler = Memory(7 * lanes, lanes, slack), Prioritized(0, alpha=0.5, backend=backend)
    random, model, largest, drawn = np.random.default_rng(lanes + slack), {}, 1.0, []
    for _ in range(300):
        T = int(random.choice([1, 2, 5, 30], p=[0.6, 0.2, 0.15, 0.05]))
        mask = torch.from_numpy(random.random((T, lanes)) < random.choice([0.7, 1.0]))
        before = storage.count.copy()
        add(storage, sampler, T, mask)
        for e in range(lanes):
            for k in range(before[e], storage.count[e]):
                model[k * lanes + e] = largest
            model = {i: p for i, p in model.items() if i % lanes != e or i // lanes >= storage.count[e] - 7}
        if not model:
            continue
        assert leaves(sampler, storage) == pytest.approx({i: (p + EPS) ** 0.5 for i, p in model.items()}, rel=1e-12)
        index, _, _ = sampler.draw(storage, 5)
        assert set(index.tolist()) <= set(model)
        drawn.append(index)
        late = drawn[int(random.integers(max(0, len(drawn) - 6), len(drawn)))]
        priority = random.random(5) * 3
        sampler.feedback(storage, late, torch.from_numpy(priority))
        for i, p in zip(late.tolist(), priority.tolist(), strict=True):
            if i in model:
                model[i], largest = p, max(largest, p)
    assert sampler.priorities.largest == largest > 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_stale_feedback_is_ignored(backend):
    """Index 1 shares its slot with 5 and 9: after they were written, feedback for it must not touch them."""
    storage, sampler = Memory(4, lanes=1), Prioritized(0, alpha=1.0, backend=backend)
    add(storage, sampler, 6)
    before = leaves(sampler, storage)
    sampler.feedback(storage, torch.tensor([0, 1, 2, 99]), torch.tensor([50.0, 60.0, 2.0, 70.0]))
    assert leaves(sampler, storage) == pytest.approx({**before, 2: 2 + EPS}, rel=1e-6)
    assert sampler.priorities.largest == 2  # what is ignored is not the largest either
    sampler.feedback(storage, torch.tensor([0, 1]), torch.tensor([50.0, 60.0]))
    assert sampler.priorities.largest == 2


def test_a_row_in_the_slack_is_stale():
    storage, sampler = Memory(4, lanes=1, slack=4), Prioritized(0)
    add(storage, sampler, 6)
    sampler.feedback(storage, torch.tensor([1]), torch.tensor([9.0]))
    assert 1 not in leaves(sampler, storage)


def test_rows_that_another_process_wrote_are_found():
    storage, sampler = Memory(8, lanes=1), Prioritized(0)
    add(storage, sampler, 1)
    for _ in range(5):
        storage.write(rollout(1))  # nobody tells the sampler
    assert set(sampler.draw(storage, 64)[0].tolist()) == set(range(6))


def test_priorities_of_any_float_type():
    storage, sampler = Memory(8, lanes=1), Prioritized(0, alpha=1.0)
    add(storage, sampler, 8)
    parameter = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    for priority in (parameter * 2, torch.tensor([2.0, 4.0]).bfloat16(), torch.tensor([9.0, 2.0, 9.0, 4.0])[1::2]):
        sampler.feedback(storage, torch.tensor([1, 2]), torch.zeros(2))
        sampler.feedback(storage, torch.tensor([0, 1, 0, 2])[1::2], priority)
        assert [leaves(sampler, storage)[i] for i in (1, 2)] == pytest.approx([2 + EPS, 4 + EPS], rel=1e-6)


def test_both_backends_draw_the_same():
    samplers = [Prioritized(3, backend=backend) for backend in BACKENDS]
    storages = [Memory(50, lanes=3, slack=2) for _ in samplers]
    random = np.random.default_rng(0)
    for _ in range(100):
        T, priority = int(random.integers(1, 9)), torch.from_numpy(random.random(20))
        results = []
        for storage, sampler in zip(storages, samplers, strict=True):
            add(storage, sampler, T)
            results.append(sampler.draw(storage, 20))
            sampler.feedback(storage, results[-1][0], priority)
        assert torch.equal(results[0][0], results[1][0])
        assert torch.allclose(results[0][1], results[1][1], rtol=1e-5)
    trees = [sampler.priorities.tree for sampler in samplers]
    assert torch.allclose(trees[0].nodes, trees[1].nodes, rtol=1e-12, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_state_goes_on_with_equal_bits(backend):
    def steps(storage, sampler, count):
        result = []
        for i in range(count):
            add(storage, sampler, 3)
            index, weight, _ = sampler.draw(storage, 11)
            sampler.feedback(storage, index, torch.arange(11.0) * (i + 1) % 7)
            result += [index, weight]
        return result

    storage, sampler = Memory(20, lanes=2, slack=50), Prioritized(5, beta_steps=100, backend=backend)
    steps(storage, sampler, 9)
    arrays, numbers = sampler.state()
    arrays = {key: value.clone() for key, value in arrays.items()}
    other = Prioritized(5, beta_steps=100, backend=backend)
    other.load_state(arrays, numbers)
    assert all(torch.equal(other.state()[0][key], arrays[key]) for key in arrays)  # before the storage is seen
    assert other.state()[1] == numbers
    twin = Memory(20, lanes=2, slack=50)
    steps(twin, Prioritized(0), 9)
    expected, came = steps(storage, sampler, 9), steps(twin, other, 9)
    assert all(torch.equal(a, b) for a, b in zip(expected, came, strict=True))
    assert torch.equal(sampler.priorities.tree.nodes, other.priorities.tree.nodes)


def test_the_state_of_a_new_sampler():
    sampler = Prioritized(5)
    arrays, numbers = sampler.state()
    assert arrays == {} and numbers == {"block": 0, "position": 0}
    storage, other = Memory(4, lanes=1), Prioritized(5)
    other.load_state(arrays, numbers)
    add(storage, other, 4)
    add(Memory(4, lanes=1), sampler, 4)
    assert torch.equal(other.draw(storage, 9)[0], sampler.draw(storage, 9)[0])


def test_a_state_of_something_else_is_refused():
    storage, sampler = Memory(20, lanes=2), Prioritized(5)
    add(storage, sampler, 5)
    state = sampler.state()
    for lanes, capacity, message in (
        (1, 20, "are of 2 lanes, the storage has 1"),
        (2, 30, "the saved leaves must be torch.float64 .30., there is torch.float64 .20."),
    ):
        other = Prioritized(5)
        other.load_state(*state)
        for _ in range(2):  # it is not forgotten
            with pytest.raises(BadInput, match=message):
                add(Memory(capacity, lanes), other, 9)
    other = Prioritized(5)
    other.load_state(*state)
    with pytest.raises(BadInput, match=r"knows rows up to \[5, 5\] of each lane, the storage holds \[2, 2\]"):
        add(Memory(20, 2), other, 2)


def test_draws_come_from_the_samplers_own_stream():
    storage, sampler = Memory(1_000, lanes=1), Prioritized(7)
    add(storage, sampler, 1_000)
    uniform = np.random.Generator(np.random.Philox(stream(7, "sampler", 0))).random(20)
    expected = [int(((i % 10) + u) * 100) for i, u in enumerate(uniform)]
    assert torch.cat([sampler.draw(storage, 10)[0] for _ in range(2)]).tolist() == expected


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [float("nan"), -0.5, float("inf")])
def test_bad_priorities_are_named_and_nothing_changes(bad, backend):
    storage, sampler = Memory(4, lanes=1), Prioritized(0, backend=backend)
    add(storage, sampler, 4)
    before = sampler.priorities.tree.nodes.clone()
    with pytest.raises(BadInput, match=r"a priority must be a finite number of at least 0, got .* at position 1"):
        sampler.feedback(storage, torch.tensor([0, 1]), torch.tensor([5.0, bad]))
    assert torch.equal(sampler.priorities.tree.nodes, before) and sampler.priorities.largest == 1
    with pytest.raises(
        BadInput, match=r"a stored priority must be a finite number of at least 0, got .* at position 2"
    ):
        add(Memory(4, lanes=1), Prioritized(0, backend=backend), 3, priority=torch.tensor([[1.0], [1.0], [bad]]))


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"alpha": 1.01}, r"alpha of prioritized replay must lie in \[0, 1\], got 1.01"),
        ({"alpha": -0.1}, r"alpha .* \[0, 1\], got -0.1"),
        ({"alpha": float("nan")}, r"alpha .* \[0, 1\], got nan"),
        ({"beta": 1.5}, r"beta of prioritized replay must lie in \[0, 1\], got 1.5"),
        ({"beta": -1}, r"beta .* \[0, 1\], got -1"),
        ({"beta_steps": -1}, "beta_steps must be 0 .* or a number of rows, got -1"),
        ({"initial": -1.0}, "initial priority must be a finite number of at least 0, got -1.0"),
        ({"initial": float("nan")}, "initial priority .* got nan"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(BadInput, match=message):
        Prioritized(0, **arguments)


def test_bad_calls():
    storage, sampler = Memory(4, lanes=1), Prioritized(0)
    with pytest.raises(BadInput, match="replay buffer is empty"):
        sampler.draw(storage, 4)
    add(storage, sampler, 4)
    for priority in (torch.ones(3), torch.ones(4, 1)):
        with pytest.raises(BadInput, match=r"one priority for each index, got .* for \[4\]"):
            sampler.feedback(storage, torch.arange(4), priority)


def test_given_priorities_that_are_bad_leave_the_window_where_it_was():
    priorities = Priorities(1, 8, 0.6, "cpu")
    low, high = np.array([0]), np.array([3])
    with pytest.raises(BadInput, match="stored priority"):
        priorities.move(low, high, given=lambda index: -torch.ones(len(index)))
    assert priorities.high.tolist() == [0] and priorities.tree.total == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_left_the_window_does_not_come_back(backend):
    """A storage that several processes write may withhold its oldest rows for a moment."""
    priorities = Priorities(1, 8, 1.0, "cpu", backend)
    for low, high in ((0, 6), (4, 6), (2, 7)):
        priorities.move(np.array([low]), np.array([high]))
    priorities.update(torch.tensor([3, 4]), torch.tensor([9.0, 5.0]))
    assert priorities.tree.leaves.tolist() == pytest.approx([0, 0, 0, 0, 5 + EPS, 1 + EPS, 1 + EPS, 0], rel=1e-6)
    assert set(priorities.draw(np.full(20, 0.5), 0.4)[0].tolist()) == {4, 5, 6}
