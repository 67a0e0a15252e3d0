"""The sum tree: the same as a plain array and its running sum, in both backends, at every size."""

import numpy as np
import pytest
import torch

from whorl.buffers.sum_tree import SumTree, fold
from whorl.errors import BadInput

SIZES = [1, 7, 8, 9, 63, 64, 65, 513, 4_097]
BACKENDS = ["numba", "torch"]


def random_operations(size, count, seed=0):
    """(slots, values) with duplicates and many zeros; contiguous runs of slots now and then."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        n = int(random.integers(1, 40))
        slots = random.integers(size, size=n)
        if random.random() < 0.3:
            slots = (slots[0] + np.arange(n)) % size
        values = random.random(n) * (random.random(n) < 0.7)
        yield torch.from_numpy(slots), torch.from_numpy(values)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", SIZES)
def test_against_a_plain_running_sum(size, backend):
    tree, plain, random = SumTree(size, backend=backend), np.zeros(size), np.random.default_rng(1)
    for slots, values in random_operations(size, 100):
        tree.set(slots, values)
        for slot, value in zip(slots.tolist(), values.tolist(), strict=True):  # the last of equal slots wins
            plain[slot] = value
        assert np.array_equal(tree.get(torch.arange(size)).numpy(), plain)
        sums = plain.cumsum()
        assert tree.total == pytest.approx(sums[-1], rel=1e-14)
        if sums[-1] > 0:
            masses = random.random(50) * tree.total
            edge = np.abs(sums[:, None] - masses).min(0) < 1e-12  # either side of an edge is right
            found = tree.find(torch.from_numpy(masses)).numpy()
            assert np.array_equal(found[~edge], np.searchsorted(sums, masses, side="right")[~edge])


@pytest.mark.parametrize("size", SIZES)
def test_both_backends_have_the_same_bits(size):
    compiled, vectorized = SumTree(size), SumTree(size, backend="torch")
    assert compiled.backend == "numba"
    random = torch.Generator().manual_seed(0)
    for slots, values in random_operations(size, 50):
        compiled.set(slots, values)
        vectorized.set(slots, values)
        assert torch.equal(compiled.nodes, vectorized.nodes)
        if compiled.total > 0:
            masses = torch.rand(50, dtype=torch.float64, generator=random) * compiled.total
            assert torch.equal(compiled.find(masses), vectorized.find(masses))


def test_no_rounding_gathers_and_a_rebuilt_tree_has_the_same_bits():
    size, random = 1_000, np.random.default_rng(0)
    tree = SumTree(size)
    for _ in range(100_000 // 64):
        tree.set(torch.from_numpy(random.integers(size, size=64)), torch.from_numpy(10 ** random.uniform(-9, 9, 64)))
    for backend in BACKENDS:
        rebuilt = SumTree(size, backend=backend)
        rebuilt.fill(tree.leaves)
        assert torch.equal(rebuilt.nodes, tree.nodes)
    expected = tree.leaves
    while len(expected) > 1:
        expected = torch.nn.functional.pad(expected, (0, -len(expected) % 8))
        expected = fold(expected.view(-1, 8))
    assert tree.total == expected.item()
    tree.set(torch.arange(size), torch.zeros(size))
    assert torch.equal(tree.nodes, torch.zeros_like(tree.nodes))  # with differences something would be left


def test_children_are_added_as_written():
    children = torch.tensor([[1e16, 1.0, 2.0, 3.0, -1e16, 4.0, 5.0, 6.0]], dtype=torch.float64)
    a, b, c, d, e, f, g, h = children[0].tolist()
    assert fold(children).item() == ((a + e) + (c + g)) + ((b + f) + (d + h))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_leaf_of_zero_is_never_found(backend):
    """Not even by masses at or beyond the total: 0.1 + 0.2 + ... differs from the same numbers added in another order."""
    for size in (9, 100, 1_000):
        values = torch.full((size,), 0.1, dtype=torch.float64)
        values[size // 2 :] = 0
        values[0] = 0
        tree = SumTree(size, backend=backend)
        tree.fill(values)
        edges = values.cumsum(0)
        masses = torch.cat(
            [edges, torch.nextafter(edges, torch.zeros_like(edges)), edges.new_tensor([0.0, tree.total])]
        )
        assert (tree.get(tree.find(masses)) > 0).all()
        assert tree.find(edges.new_tensor([2 * tree.total])).item() == size // 2 - 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_tiny_and_huge_values(backend):
    tree = SumTree(100, backend=backend)
    tree.set(torch.tensor([3, 50, 99]), torch.tensor([5e-324, 1e300, 5e-324], dtype=torch.float64))
    assert tree.total == 1e300
    assert tree.find(torch.tensor([0.0, 1e299], dtype=torch.float64)).tolist() == [3, 50]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0, -float("inf"), 1e301])
def test_bad_values_are_named_and_nothing_changes(bad, backend):
    tree = SumTree(100, backend=backend)
    tree.fill(torch.arange(100.0))
    before = tree.nodes.clone()
    values = torch.tensor([1.0, 2.0, bad, bad], dtype=torch.float64)
    with pytest.raises(BadInput, match=r"finite number of at least 0, got .* at position 2; nothing was changed"):
        tree.set(torch.tensor([5, 6, 7, 8]), values)
    assert torch.equal(tree.nodes, before)


def test_sizes_are_checked():
    with pytest.raises(BadInput, match="at least 1 leaf, got 0"):
        SumTree(0)
    with pytest.raises(BadInput, match=r"of 9 leaves cannot be filled with \[8\] values"):
        SumTree(9).fill(torch.ones(8))


def test_nodes_begin_at_cache_lines():
    tree = SumTree(1_000)
    assert tree.nodes.data_ptr() % 64 == 0 and all(start % 8 == 0 for start in tree.starts)
    assert len(tree.starts) == 5  # root, 2, 16, 125, 1000
