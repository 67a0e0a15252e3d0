"""The sliding statistics against numpy on the whole list; the first ancestor's performance monitor, bug by bug."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whorl.errors import BadInput, NotFinite
from whorl.training.window import Window

episodes = st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(1, 10_000)), min_size=1, max_size=60)
STATISTICS = ("count", "mean", "std", "min", "max", "median", "mean_length", "best_mean", "last_mean")


def filled(size, rows):
    window = Window(size)
    for ret, length in rows:
        window.add(ret, length)
    return window


def statistics(window):
    return [getattr(window, name) for name in STATISTICS]


@given(episodes, st.integers(1, 20))
def test_equals_numpy_on_the_whole_list_after_every_episode(rows, size):
    window = Window(size)
    for n in range(1, len(rows) + 1):
        window.add(*rows[n - 1])
        returns = np.array([ret for ret, _ in rows[:n]])
        newest, lengths = returns[-size:], [length for _, length in rows[:n]][-size:]
        full = [returns[i : i + size].mean() for i in range(n - size + 1)]
        close = {"rel": 1e-12, "abs": 1e-9}
        assert window.count == n and len(window) == len(newest)
        assert window.mean == pytest.approx(newest.mean(), **close)
        assert window.std == pytest.approx(newest.std(), **close)
        assert (window.min, window.max, window.median) == (newest.min(), newest.max(), np.median(newest))
        assert window.mean_length == pytest.approx(np.mean(lengths))
        if full:
            assert window.best_mean == pytest.approx(max(full), **close)
            assert window.last_mean == pytest.approx(full[-1], **close)
        else:
            assert window.best_mean is None and window.last_mean is None


@given(episodes, episodes, st.integers(1, 20))
def test_a_saved_window_goes_on_to_the_same_bits(before, after, size):
    whole = filled(size, before + after)
    resumed = Window(size)
    resumed.load_state({}, json.loads(json.dumps(filled(size, before).state()[1], allow_nan=False)))
    for ret, length in after:
        resumed.add(ret, length)
    assert statistics(resumed) == statistics(whole)
    assert resumed.state() == whole.state()


# -- the ancestor's bugs ----------------------------------------------------------------------------------------------


def test_std_of_a_single_episode_is_nan():
    window = filled(100, [(-17.25, 3)])
    assert window.std == 0.0 and window.mean == window.min == window.max == window.median == -17.25


def test_block_instead_of_sliding_window():
    """In blocks of 2, the returns 0 9 9 0 have the means 4.5 and 4.5; the sliding window saw 9."""
    window = filled(2, [(r, 1) for r in (0, 9, 9, 0)])
    assert window.best_mean == 9 and window.mean == window.last_mean == 4.5


def test_stale_std_outside_window_boundaries():
    window = filled(2, [(0, 1), (10, 1)])
    assert window.std == 5
    window.add(10, 1)  # the third episode is no boundary of a block of 2
    assert window.std == 0


def test_keeps_every_reward_for_ever():
    window = filled(10, ((float(i), 1) for i in range(10_000)))
    assert len(window) == len(window.state()[1]["episodes"]) == 10
    assert len(json.dumps(window.state())) < 1000


def test_number_of_episodes_is_nil():
    """The ancestor's `numEps` was never set, and its `iteration` meant the same."""
    assert [filled(3, [(1.0, 1)] * n).count for n in (0, 1, 3, 7)] == [0, 1, 3, 7]


def test_the_best_of_all_episodes_is_not_the_best_of_full_windows():
    """A lucky first episode is no window of 100."""
    window = filled(100, [(500.0, 500)] + [(10.0, 10)] * 98)
    assert window.best_mean is None and window.max == 500
    window.add(10.0, 10)
    assert window.best_mean == pytest.approx(14.9)


# -- numbers ----------------------------------------------------------------------------------------------------------


def test_a_long_run_does_not_drift():
    """A running sum would still carry what 1e16 rounded away."""
    window = filled(3, [(1e16, 1), (0.1, 1), (0.2, 1), (0.3, 1)])
    assert window.mean == math.fsum([0.1, 0.2, 0.3]) / 3


# -- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, -1, 2.0, True, None])
def test_bad_size(size):
    with pytest.raises(BadInput, match="a window holds at least 1 episode, got"):
        Window(size)


@pytest.mark.parametrize("name", ["mean", "std", "min", "max", "median", "mean_length"])
def test_no_episode_yet(name):
    window = Window(5)
    assert not window and window.best_mean is None and window.last_mean is None
    with pytest.raises(BadInput, match="no episode has finished yet"):
        getattr(window, name)


@pytest.mark.parametrize("ret", [math.nan, math.inf, -math.inf])
def test_a_return_that_is_no_number(ret):
    window = filled(2, [(1.0, 1)])
    before = window.state()
    with pytest.raises(NotFinite, match=f"episode 2 has the return {ret}"):
        window.add(ret, 1)
    assert window.state() == before


def test_another_size():
    with pytest.raises(BadInput, match="the saved window holds 100 episodes, this one 50"):
        Window(50).load_state(*Window(100).state())
