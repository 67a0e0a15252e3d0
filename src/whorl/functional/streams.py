"""All random streams of a run from its one seed, told apart by a name and integers."""

from __future__ import annotations

from whorl.errors import BadInput

MASK = 2**64 - 1


def stream(seed: int, name: str, *numbers: int) -> int:
    """The seed (63 bits, 0 <= seed < 2**63) of the stream `name` with `numbers`: `stream(seed, "acting", rollout)`.

    One step of splitmix64 (Steele, Lea and Flood 2014) absorbs each word in turn, state = mix(state ^ word), from state
    0: the run's seed, the length of the name in UTF-8 bytes, the name in little-endian words of 8 bytes (zeros behind),
    then each number. Equal on every platform and in every version.
    Raises BadInput for a seed or a number that is not in [0, 2**64).
    """
    text = name.encode()
    words = [int.from_bytes(text[i : i + 8], "little") for i in range(0, len(text), 8)]
    state = 0
    for word in (seed, len(text), *words, *numbers):
        if not 0 <= word <= MASK:
            raise BadInput(
                f"seeds and numbers of a random stream must lie in [0, 2**64), got {word} for stream {name!r}"
            )
        state = _mix(state ^ int(word))
    return state >> 1


def _mix(z: int) -> int:
    z = (z + 0x9E3779B97F4A7C15) & MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)
