"""Values on the wire: strict JSON, spaces and observations as clients read them, actions as they send them."""

from __future__ import annotations

import json
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import data_equivalence
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("starlette", reason="needs the extra server: pip install 'whorl[server]'")

from tests.cases import each
from whorl.apps.gym_server.wire import DEPTH, decoded, described, encoded, member, number, parsed, plain, whole, written
from whorl.errors import BadInput, NotFinite

INF = float("inf")
BOX = spaces.Box(-1, 1, (2, 3), np.float32)
EVERY = spaces.Dict(
    {
        "box": spaces.Box(np.array([-INF, -1], np.float32), np.array([INF, 1], np.float32)),
        "picture": spaces.Box(0, 255, (2, 2, 3), np.uint8),
        "double": spaces.Box(-5, 5, (3,), np.float64),
        "discrete": spaces.Discrete(4, start=-2),
        "many": spaces.MultiDiscrete([3, 4], start=[1, -1]),
        "bits": spaces.MultiBinary((2, 2)),
        "pair": spaces.Tuple([spaces.Discrete(2), spaces.Box(0, 1, (), np.float32)]),
        "word": spaces.Text(5),
    }
)


@given(st.integers(0, 2**32 - 1))
def test_what_an_environment_gives_comes_back_bit_for_bit(seed: int) -> None:
    EVERY.seed(seed)
    value = EVERY.sample()
    back = decoded(EVERY, json.loads(written(encoded(EVERY, value, "x"))), "strict")
    assert EVERY.contains(back)
    assert data_equivalence(value, back, exact=True)


def test_spaces_as_clients_read_them() -> None:
    assert described(spaces.Discrete(2)) == {"name": "Discrete", "n": 2, "start": 0}
    box = spaces.Box(np.array([-4.8, -INF, 0]), np.array([4.8, INF, INF]), dtype=np.float64)
    assert described(box) == {
        "name": "Box",
        "shape": [3],
        "low": [-4.8, -1e100, 0.0],
        "high": [4.8, 1e100, 1e100],
        "dtype": "float64",
    }
    nested = described(EVERY)
    assert nested["name"] == "Dict" and list(nested["spaces"]) == list(EVERY.spaces)
    parts = nested["spaces"]
    assert parts["picture"]["low"] == [0] * 12 and parts["picture"]["shape"] == [2, 2, 3]
    assert parts["many"] == {"name": "MultiDiscrete", "nvec": [3, 4], "start": [1, -1]}
    assert parts["bits"] == {"name": "MultiBinary", "n": 4, "shape": [2, 2]}
    assert [part["name"] for part in parts["pair"]["spaces"]] == ["Discrete", "Box"]
    assert parts["word"] == {"name": "Text", "min_length": 1, "max_length": 5}
    assert written(nested)
    for integer in (parts["bits"]["n"], described(spaces.Discrete(2))["n"], *parts["picture"]["shape"]):
        assert type(integer) is int


def test_a_space_without_a_json_form_is_refused() -> None:
    graph = spaces.Graph(spaces.Box(0, 1, (2,)), None)
    with pytest.raises(BadInput, match="a Graph space has no JSON form: wrap the environment"):
        described(spaces.Tuple([graph]))


def test_a_reward_is_a_float() -> None:
    for value in each([np.float32(1.0), np.array([1.0]), np.array(1.0, np.float16), 1, True, np.int64(1)]):
        assert type(number(value, "reward")) is float and number(value, "reward") == 1.0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_infinity_is_1e100_and_nan_fails(dtype: type) -> None:
    space = spaces.Box(-INF, INF, (3,), dtype)
    assert encoded(space, np.array([INF, -INF, 0.5], dtype), "x") == [1e100, -1e100, 0.5]
    assert number(dtype(-INF), "reward") == -1e100
    with pytest.raises(NotFinite, match="^the observation holds NaN, which JSON cannot carry"):
        encoded(space, np.array([0, np.nan, INF], dtype), "the observation")
    with pytest.raises(NotFinite, match="^the reward holds NaN"):
        number(dtype("nan"), "the reward")


def test_nan_is_found_in_nested_observations() -> None:
    value = EVERY.sample()
    value["pair"] = (1, np.float32("nan"))
    with pytest.raises(NotFinite, match=r"^obs\['pair'\]\[1\] holds NaN"):
        encoded(EVERY, value, "obs")


def test_observations_have_their_own_kinds() -> None:
    assert encoded(spaces.Discrete(16), np.int64(3), "x") == 3
    assert type(encoded(spaces.Discrete(16), np.array(3), "x")) is int
    assert encoded(spaces.MultiBinary(3), np.array([1, 0, 1], bool), "x") == [1, 0, 1]
    assert type(encoded(spaces.MultiBinary(1), np.array([True]), "x")[0]) is int
    blackjack = spaces.Tuple([spaces.Discrete(32), spaces.Discrete(11), spaces.Discrete(2)])
    assert encoded(blackjack, (14, 10, 0), "x") == [14, 10, 0]
    assert encoded(spaces.Box(0, 1, (), np.float32), np.float32(0.5), "x") == 0.5


def test_info_is_always_json() -> None:
    class Odd:
        def __repr__(self) -> str:
            return "<odd>"

    circle: dict[str, Any] = {}
    circle["self"] = circle
    info = {
        "nan": np.nan,
        "inf": np.float32(INF),
        "array": np.array([1.0, np.nan]),
        "integers": np.arange(3, dtype=np.uint8),
        "objects": np.array([Odd(), None, np.int32(4)], dtype=object),
        "flag": np.bool_(True),
        "when": np.datetime64("2020-01-01"),
        "long": np.longdouble(0.5),
        "complex": 1j,
        "bytes": b"\xff",
        "set": {1},
        "ordered": OrderedDict(a=(1, 2)),
        3: "key",
        None: SimpleNamespace(x=Odd()),
    }
    seen = json.loads(written(plain(info)), parse_constant=pytest.fail)
    assert seen["nan"] is seen["inf"] is None and seen["array"] == [1.0, None]
    assert seen["integers"] == [0, 1, 2] and seen["objects"] == ["<odd>", None, 4] and seen["flag"] is True
    assert seen["long"] == 0.5 and seen["complex"] == "1j" and seen["bytes"] == "b'\\xff'" and seen["set"] == [1]
    assert seen["ordered"] == {"a": [1, 2]} and seen["3"] == "key" and "<odd>" in seen["None"]
    assert "2020" in seen["when"]
    assert len(written(plain(circle))) < 10_000


def test_actions_are_made_to_fit() -> None:
    for space, said, expected in each(
        [
            (spaces.Discrete(3), 1, 1),
            (spaces.Discrete(3), 1.0, 1),
            (spaces.Discrete(3), True, 1),
            (spaces.Discrete(3), [2], 2),
            (spaces.Discrete(3, start=5), 0, 5),
            (spaces.Box(-2, 2, (1,)), 0.5, [0.5]),  # MATLAB writes a vector of one as a number
            (spaces.Box(-2, 2, (1,)), [[0.5]], [0.5]),
            (BOX, [0, 0.5, 1, 0, 0, 0], [[0, 0.5, 1], [0, 0, 0]]),
            (spaces.Box(0, 255, (2,), np.uint8), [255, 0.0], [255, 0]),
            (spaces.MultiDiscrete([2, 3]), [1, 2.0], [1, 2]),
            (spaces.MultiDiscrete([2, 3], start=[0, 4]), [1, 2], [1, 6]),
            (spaces.MultiBinary(2), [True, 0], [1, 0]),
            (spaces.Box(-1, 1, (1,)), 7, [7]),  # out of bounds is the environment's affair, as it was
        ]
    ):
        action = decoded(space, said)
        assert action.dtype == space.dtype and action.shape == space.shape
        assert action.tolist() == expected


def test_what_is_no_action_is_refused() -> None:
    for space, said, message in each(
        [
            (spaces.Discrete(3), 3, "the action 3 does not fit: expected an integer from 0 to 2"),
            (spaces.Discrete(3), -1, "expected an integer"),
            (spaces.Discrete(3), 0.5, "expected an integer"),
            (spaces.Discrete(3), "1", "expected an integer"),
            (spaces.Discrete(3), [1, 1], "expected an integer"),
            (spaces.Discrete(3), {"a": 1}, "expected an integer"),
            (spaces.Discrete(3), 10**400, "expected an integer"),
            (spaces.Discrete(3, start=5), 5, "expected an integer from 0 to 2"),
            (BOX, [1, 2, 3], r"finite numbers \(float32\) of shape \[2, 3\]"),
            (BOX, [[1, 2], [3]], "finite numbers"),
            (BOX, [None] * 6, "finite numbers"),
            (BOX, [INF] * 6, "finite numbers"),
            (BOX, [1e300] * 6, "finite numbers"),  # infinity in float32
            (spaces.Box(0, 255, (1,), np.uint8), 256, "finite numbers"),
            (spaces.Box(0, 255, (1,), np.uint8), 0.5, "finite numbers"),
            (spaces.MultiDiscrete([2, 3]), [1, 3], "expected integers"),
            (spaces.MultiBinary(2), [1, 2], "expected 0 and 1"),
            (spaces.Text(3), "long word", "expected a string"),
            (spaces.Text(3), 1, "expected a string"),
            (spaces.Tuple([spaces.Discrete(2)]), [0, 0], "expected a list of 1"),
            (spaces.Dict(a=spaces.Discrete(2)), {"b": 0}, "expected an object of"),
        ]
    ):
        with pytest.raises(BadInput, match=message):
            decoded(space, said)


def test_bounds() -> None:
    assert decoded(BOX, [9] * 6, "clip").max() == 1
    with pytest.raises(BadInput, match="finite numbers"):
        decoded(BOX, [9] * 6, "strict")
    assert decoded(BOX, [1] * 6, "strict").max() == 1


def test_membership_of_a_text() -> None:
    for space, text, expected in each(
        [
            (spaces.Discrete(2), "0", True),
            (spaces.Discrete(2), "+1", True),
            (spaces.Discrete(2), "01", True),
            (spaces.Discrete(2), "2", False),
            (spaces.Discrete(2), "-1", False),
            (spaces.Discrete(2), "1.0", True),
            (spaces.Discrete(2), "0.5", False),
            (spaces.Discrete(2), "", False),
            (spaces.Discrete(2), "one", False),
            (spaces.Discrete(2), "NaN", False),
            (spaces.Discrete(2), "[" * 5000, False),
            (spaces.Discrete(2), "9" * 5000, False),
            (spaces.Box(-1, 1, (2,)), "[0.5, 1]", True),
            (spaces.Box(-1, 1, (2,)), "[0.5, 2]", False),
            (spaces.Dict(a=spaces.Discrete(2)), '{"a": 1}', True),
        ]
    ):
        assert member(space, text) is expected


def test_bodies() -> None:
    assert parsed(b'\xef\xbb\xbf{"a": [1]}') == {"a": [1]}
    for bad in (b"", b"x", b"NaN", b"[Infinity]", b"\xff", b'{"a":}', b"9" * 5000, b"\xff\xfe1\x00"):
        with pytest.raises(BadInput, match="^Request is not a valid json$"):
            parsed(bad)
    nested = b"[" * DEPTH + b"]" * DEPTH
    assert parsed(nested)
    for deep in (b"[" + nested + b"]", b'{"a":' * 100 + b"1" + b"}" * 100, b"[" * 500_000 + b"]" * 500_000):
        with pytest.raises(BadInput, match="^Request is not a valid json: it is nested deeper than 32 levels$"):
            parsed(deep)


def test_whole_numbers() -> None:
    assert [whole({"seed": given}, "seed") for given in (0, 3.0, None, "", [])] == [0, 3, None, None, None]
    for bad in (-1, 0.5, "7", True, 2**63, 1e30, [1]):
        with pytest.raises(BadInput, match=r"^'seed' must be an integer from 0 to 9223372036854775807, got "):
            whole({"seed": bad}, "seed")
