"""Counted random numbers, of int64 arrays (numpy) and tensors alike: those of the compiled worlds (envs/native/world.py).

Both multiply int64 modulo 2**64, as uint64 does, but shift right with the sign.
"""

from __future__ import annotations

from typing import Any

# splitmix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"), as int64
GAMMA, MIX_1, MIX_2 = (x - 2**64 for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def shifted(z: Any, bits: int) -> Any:
    """Logical shift of int64 to the right."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def mixed(z: Any) -> Any:
    """splitmix64's output function of int64 [...] that hold the bits of uint64."""
    z = (z ^ shifted(z, 30)) * MIX_1
    z = (z ^ shifted(z, 27)) * MIX_2
    return z ^ shifted(z, 31)


def mix(z: Any) -> Any:
    """One output of splitmix64 from the state `z`."""
    return mixed(z + GAMMA)


def bits(key: Any, k: Any) -> Any:
    """The k-th number of a stream, a whole one below 2**53, int64 [...]; times 2**-53 it is uniform in [0, 1)."""
    return shifted(mix(key + k * GAMMA), 11)
