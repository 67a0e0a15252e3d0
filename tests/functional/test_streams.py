"""Seeds of streams: the same everywhere and for ever, and no two alike."""

from __future__ import annotations

import numpy as np
import pytest

from whorl.errors import BadInput
from whorl.functional import stream


def mix(z: int) -> int:
    """splitmix64 in numpy's wrapping 64-bit arithmetic."""
    with np.errstate(over="ignore"):
        z = np.uint64(z) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return int(z ^ (z >> np.uint64(31)))


def test_splitmix64_itself():
    """The first outputs of the published generator from state 0."""
    assert mix(0) == 0xE220A8397B1DCDAF
    assert mix(0x9E3779B97F4A7C15) == 0x6E789E6AA1B965F4


def test_as_documented():
    # "evaluation" is 10 bytes, two words: b"evaluati", b"on"
    first, second = int.from_bytes(b"evaluati", "little"), int.from_bytes(b"on\0\0\0\0\0\0", "little")
    state = 0
    for word in (7, 10, first, second, 3, 2**63):
        state = mix(state ^ word)
    assert stream(7, "evaluation", 3, 2**63) == state >> 1


def test_never_to_change():
    """Runs of old are resumed with these numbers."""
    assert stream(0, "acting") == 7192082095585530959
    assert stream(1, "sampler", 2, 3) == 9128135328149082669


def test_no_two_alike_and_all_bits_in_use():
    seeds = [
        stream(seed, name, *numbers)
        for seed in (0, 1, 2, 2**32, 2**64 - 1)
        for name in ("", "a", "b", "ab", "a\0", "acting", "sampler", "a name longer than eight bytes")
        for numbers in ((), (0,), (1,), (0, 0), (0, 1), (1, 0), *((n,) for n in range(2, 100)))
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    ones = np.array([[seed >> bit & 1 for bit in range(63)] for seed in seeds]).mean(0)
    assert np.abs(ones - 0.5).max() < 0.05  # about 4,000 seeds: 6 standard deviations


def test_any_integer_type():
    assert stream(np.int64(3), "x", np.int32(4)) == stream(3, "x", 4)


@pytest.mark.parametrize("bad", [-1, 2**64])
def test_numbers_out_of_range(bad):
    for call in (lambda: stream(bad, "acting"), lambda: stream(0, "acting", bad)):
        with pytest.raises(BadInput, match=rf"must lie in \[0, 2\*\*64\), got {bad} for stream 'acting'"):
            call()
