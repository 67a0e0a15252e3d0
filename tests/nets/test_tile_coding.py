"""Features for linear values: compiled = torch = a loop by hand; tilings, displacement, bias, hashing, refusals."""

import numpy as np
import pytest
import torch
from gymnasium import spaces

from whorl.errors import BadInput, Incompatible
from whorl.functional.kernels.cached import cached
from whorl.nets import tile_coding
from whorl.nets.linear_q import LinearQ
from whorl.nets.tile_coding import OneHot, Raw, TileCoding, code
from whorl.policies.exploration import row_of

BOX = spaces.Box(np.array([-1.2, -0.07], np.float32), np.array([0.6, 0.07], np.float32))
OPEN = spaces.Box(np.array([-1, -np.inf, -3e38], np.float32), np.array([1, np.inf, 3e38], np.float32))


@cached(tile_coding)
def code_all(kind, observation, table, slots, index, value, key, indices, values):
    for i in range(len(observation)):
        code(kind, observation[i], table, slots, index, value, key)
        for k in range(len(index)):
            indices[i, k], values[i, k] = index[k], value[k]


def compiled(features, observation):
    rows = observation.reshape(len(observation), -1)
    index, value = np.zeros((len(rows), features.active), np.int64), np.zeros((len(rows), features.active))
    table = features.table.numpy()
    code_all(features.kind, rows, table, features.slots, *row_of(features), index, value)
    return index, value


def coders(space, **options):
    every = {"exact": {}, "hashed": {"memory": 500}}
    return [TileCoding(space, **options, **each, bias=bias) for each in every.values() for bias in (False, True)]


def observations(space, n=300, seed=0):
    """Inside, on the edges of tiles and of the box, and far outside."""
    rng = np.random.default_rng(seed)
    low, high = np.maximum(space.low, -5), np.minimum(space.high, 5)
    inside = low + (high - low) * rng.random((n, len(low)))
    edges = low + (high - low) * rng.integers(0, 9, (n, len(low))) / 8
    outside = low + (high - low) * rng.uniform(-3, 4, (n, len(low)))
    return np.concatenate([inside, edges, outside]).astype(np.float32)


@pytest.mark.parametrize("options", [{}, {"tilings": 5, "tiles": (3, 7)}, {"tilings": 1, "tiles": 1}])
def test_compiled_equals_torch(options):
    x = observations(BOX)
    for features in coders(BOX, **options):
        index, value = compiled(features, x)
        ours, ones = features(torch.from_numpy(x))
        assert np.array_equal(index, ours.numpy()) and (value == 1).all() and (ones == 1).all()
        assert index.min() >= 0 and index.max() < features.size


def test_compiled_equals_torch_without_bounds():
    x = observations(OPEN)
    features = TileCoding(OPEN, memory=300, tiles=4, bias=True)
    assert np.array_equal(compiled(features, x)[0], features(torch.from_numpy(x))[0].numpy())


def test_compiled_equals_torch_for_tables_and_raw_vectors():
    states = np.arange(5)
    features = OneHot(spaces.Discrete(5))
    assert np.array_equal(compiled(features, states)[0], features(torch.from_numpy(states))[0].numpy())
    x = observations(BOX, 20)
    index, value = compiled(Raw(BOX), x)
    ours, numbers = Raw(BOX)(torch.from_numpy(x))
    assert np.array_equal(index, ours.numpy()) and np.array_equal(value, numbers.numpy())
    assert (value[:, -1] == 1).all() and np.array_equal(value[:, :-1], x.astype(float))


def tile_by_hand(x, k, tilings, tiles, low, high):
    """Coordinates of the tile of tiling k: displaced by k * (1, 3, 5, ...) / tilings of a tile."""
    cell = []
    for d, (number, least, most) in enumerate(zip(x, low, high, strict=True)):
        scaled = min(max((float(number) - least) * tiles / (most - least), 0.0), tiles)
        cell.append(int(np.floor(scaled + (k * (2 * d + 1) % tilings) / tilings)))
    return tuple(cell)


def test_tiles_are_those_worked_out_by_hand():
    space = spaces.Box(-4, 4, (3,))  # bounds and steps that floats hold exactly
    x = observations(space, 50)
    for features in coders(space, tilings=4, tiles=8):
        index, _ = features(torch.from_numpy(x))
        place = {}  # a tile is one index, and exactly one when nothing is hashed
        for row, ours in zip(x, index.numpy(), strict=True):
            for k in range(4):
                tile = (k, *tile_by_hand(row, k, 4, 8, space.low, space.high))
                assert place.setdefault(tile, ours[k]) == ours[k]
                assert ours[k] // features.slots == k  # each tiling has its own region
        if not features.memory:
            assert len(set(place.values())) == len(place) and max(place.values()) < 4 * 9**3


def test_the_displacement_is_1_3_5():
    """Along dimension d, tiling k changes its tile where the fraction of x is 1 - (k (2 d + 1) mod 8) / 8."""
    for d, odd in enumerate((1, 3, 5)):
        features = TileCoding(spaces.Box(0, 8, (3,)), tilings=8, tiles=8)
        for eighth in range(8):
            x = torch.full((2, 3), 3.0)
            x[:, d] = torch.tensor([3 + eighth / 8 - 1 / 16, 3 + eighth / 8 + 1 / 16])
            below, above = features(x)[0]
            (changed,) = torch.nonzero(below != above, as_tuple=True)
            assert [(int(k) * odd + eighth) % 8 for k in changed] == [0], (d, eighth)


@pytest.mark.parametrize("bias", [False, True])
def test_one_tile_of_each_tiling_is_active(bias):
    features = TileCoding(BOX, tilings=8, tiles=8, bias=bias)
    index, value = features(torch.from_numpy(observations(BOX)))
    assert (value.sum(-1) == 8 + bias).all() and features.active == 8 + bias
    assert (index[:, :8] // features.slots == torch.arange(8)).all()


def test_a_move_by_one_tile_changes_every_tile_and_neighbours_share():
    space = spaces.Box(-4, 4, (2,))
    features = TileCoding(space, tilings=8, tiles=8)
    x = torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) * 6 - 4
    here = features(x)[0]
    for d in range(2):
        whole, eighth = torch.zeros(2), torch.zeros(2)
        whole[d], eighth[d] = 1.0, 1 / 8
        assert (features(x + whole)[0] != here).all()
        assert ((features(x + eighth)[0] == here).sum(-1) == 7).all()


def test_features_are_a_function_of_the_state_only():
    x = torch.from_numpy(observations(OPEN))
    first, second = TileCoding(OPEN, memory=100), TileCoding(OPEN, memory=100)
    assert torch.equal(first(x)[0], second(x)[0])
    assert torch.equal(first(x[7])[0], first(x)[0][7]) and torch.equal(first(x[None])[0][0], first(x)[0])


def test_the_bias_has_a_slot_of_its_own():
    """The ancestor's bias shared slot 1 with the first bucket of the first tiling, and the last slot was never used."""
    for features in (TileCoding(BOX, bias=True), TileCoding(BOX, memory=3, bias=True)):
        index, _ = features(torch.from_numpy(observations(BOX, 2000)))
        assert (index[:, -1] == features.size - 1).all() and index[:, :-1].max() == features.size - 2
        assert index[:, :-1].min() == 0
        assert features.size == features.tilings * features.slots + 1


def test_outside_the_box_counts_as_its_edge():
    features = TileCoding(BOX)
    far, edge = torch.tensor([[-99.0, 99.0]]), torch.tensor([[-1.2, 0.07]])
    assert torch.equal(features(far)[0], features(edge)[0])
    mine = TileCoding(BOX, low=(-1.0, -0.05), high=(0.5, 0.05))
    assert torch.equal(mine(torch.tensor([[-1.1, 0.06]]))[0], mine(torch.tensor([[-1.0, 0.05]]))[0])


def test_unbounded_dimensions_have_tiles_and_no_edge():
    features = TileCoding(OPEN, memory=10**6, tiles=4)
    x = torch.tensor([[0.0, 5.0, 5.0], [0.0, 5.01, 5.0], [0.0, 500.0, 5.0], [0.0, -500.0, 5.0]])
    index = features(x)[0]
    assert (index[0] == index[1]).sum() >= 6  # a tile is 1/4 wide, a tiling's step 1/32
    assert (index[0] != index[2]).all() and (index[2] != index[3]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_never_indexes_outside(bad):
    x = np.array([[bad, 0.0], [0.0, bad], [bad, bad]], np.float32)
    for features in coders(BOX) + [TileCoding(spaces.Box(-np.inf, np.inf, (2,)), memory=7)]:
        for index in (compiled(features, x)[0], features(torch.from_numpy(x))[0].numpy()):
            assert index.min() >= 0 and index.max() < features.size


def test_hashing_uses_all_slots_evenly():
    features = TileCoding(spaces.Box(0, 1, (2,)), tilings=4, tiles=100, memory=64)
    x = np.stack(np.meshgrid(np.linspace(0, 1, 150), np.linspace(0, 1, 150)), -1).reshape(-1, 2)
    tiles = {}
    index = features(torch.from_numpy(x))[0].numpy()
    for row, ours in zip(x, index, strict=True):
        for k in range(4):
            tiles[(k, *tile_by_hand(row, k, 4, 100, (0, 0), (1, 1)))] = ours[k]
    counts = np.bincount(list(tiles.values()), minlength=features.size)
    expected = len(tiles) / features.size
    chi = ((counts - expected) ** 2 / expected).sum()
    assert chi < 256 + 5 * np.sqrt(2 * 256)


def test_linear_values():
    features = TileCoding(BOX, bias=True)
    q = LinearQ(features, 3, initial_value=50.0)
    x = torch.from_numpy(observations(BOX, 20))
    torch.testing.assert_close(q(x), torch.full((60, 3), 50.0, dtype=torch.float64))
    q.weight[:] = torch.randn(3, features.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    index, _ = features(x)
    by_hand = torch.stack([q.weight[:, i].sum(-1) for i in index])
    torch.testing.assert_close(q(x), by_hand)
    torch.testing.assert_close(q(x[None, None]), by_hand[None, None])
    raw = LinearQ(Raw(BOX), 2, initial_value=3.0)
    assert (raw(x) == 3).all() and (raw.weight[:, :-1] == 0).all()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: TileCoding(OPEN),
            Incompatible,
            r"dimension \[1, 2\] of .* has none: give low and high, or memory for",
        ),
        (lambda: TileCoding(BOX, low=(0.0,)), BadInput, "low must have 2 numbers, one per dimension .*, got 1"),
        (lambda: TileCoding(BOX, high=(0.0, 1.0, 2.0)), BadInput, "high must have 2 numbers, .*, got 3"),
        (lambda: TileCoding(BOX, tiles=(8,)), BadInput, "tiles must have 2 numbers, .*, got 1"),
        (
            lambda: TileCoding(BOX, low=(1.0, 1.0)),
            BadInput,
            r"low must be below high in every dimension, got \[1.0, 1.0\]",
        ),
        (lambda: TileCoding(BOX, tilings=0), BadInput, "tilings >= 1, tiles >= 1, memory >= 0; got 0, 8, 0"),
        (lambda: TileCoding(BOX, tiles=0), BadInput, "tilings >= 1, tiles >= 1, memory >= 0; got 8, 0, 0"),
        (lambda: TileCoding(BOX, memory=-1), BadInput, "memory >= 0; got 8, 8, -1"),
        (
            lambda: TileCoding(spaces.Box(0, 1, (9,))),
            BadInput,
            "tiles are too many: hash them: set memory, or use fewer tilings",
        ),
        (lambda: TileCoding(BOX, memory=2**40), BadInput, "tiles are too many: set a smaller memory"),
        (
            lambda: TileCoding(spaces.Discrete(3)),
            Incompatible,
            "tile coding needs a vector as observation, got Discrete",
        ),
        (
            lambda: TileCoding(spaces.Box(0, 1, (2, 2))),
            Incompatible,
            "tile coding needs a vector as observation, got Box",
        ),
        (lambda: Raw(spaces.Discrete(3)), Incompatible, "linear features needs? a vector as observation, got Discrete"),
        (
            lambda: OneHot(BOX),
            Incompatible,
            "a table needs Discrete observations, got Box.*; tile_coding takes vectors",
        ),
    ],
)
def test_refusals(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("tilings", [1, 3, 5, 6, 8, 9, 10, 15, 16])
def test_every_tiling_is_displaced_in_every_dimension(tilings):
    """With 1, 3, 5, 7 for 5 tilings the third dimension would not be displaced at all."""
    coder = TileCoding(spaces.Box(-1, 1, (4,)), tilings=tilings, tiles=2)
    for d in range(4):
        assert len(set(coder.table[4:, d].tolist())) == tilings


@pytest.mark.parametrize("high", [999.0, 1000.0, 5000.0, 1e9])
def test_bounds_that_are_given_are_meant_however_large(high):
    space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    assert TileCoding(space, low=(0.0,), high=(high,)).kind == tile_coding.GRID
    hashed = TileCoding(space, tilings=1, tiles=8, low=(0.0,), high=(high,), memory=65536)
    seen = torch.linspace(0, high * 0.9999, 20000, dtype=torch.float64)[:, None]
    assert len(hashed.indices(seen).unique()) == 8
    with pytest.raises(Incompatible, match="needs bounds, and dimension .0. .* has none"):
        TileCoding(space, low=(0.0,), high=(np.inf,))
    with pytest.raises(Incompatible, match="needs bounds"):  # of a space, a large number stands for infinity
        TileCoding(spaces.Box(0, 1000, (1,), np.float32))
