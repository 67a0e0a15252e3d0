"""A grid from text: typed values, every combination, and an error for all that is not one."""

from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whorl.errors import BadInput
from whorl.feeds import Rollouts
from whorl.training import grid
from whorl.training.catalog import AGENTS, default_config
from whorl.training.settings import Settings


@dataclass(frozen=True)
class Config:
    learning_rate: float = 1e-3
    epochs: int = 4
    hidden: tuple[int, ...] = (64, 64)
    low: tuple[float, ...] = ()
    optimizer: str = "adam"
    std: Literal["fixed", "dependent"] = "fixed"
    bins: Literal[1, 2] = 1
    squash: bool = False
    schedule: dict | None = None
    feed: Rollouts = Rollouts()


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("learning_rate=1e-3,1,.5", [0.001, 1.0, 0.5]),
        ("epochs=1,10", [1, 10]),
        ("hidden=64x64,256,()", [(64, 64), (256,), ()]),
        ("low=-1.2x-0.07", [(-1.2, -0.07)]),
        ("optimizer=adam,rmsprop", ["adam", "rmsprop"]),
        ("std=dependent", ["dependent"]),
        ("bins=2,1", [2, 1]),
        ("squash=true,False", [True, False]),
        ("feed.steps=5,16", [5, 16]),
        ("feed.unit=episode", ["episode"]),
        ("num_envs=1,8", [1, 8]),
        ("total_steps=1000,1e5", [1000, 100_000]),
        ("hidden=1e2x64", [(100, 64)]),
        ("keep_checkpoints=3,all", [3, "all"]),
        ("eval_every=none,500", [None, 500]),
        ("device=cpu,cuda", ["cpu", "cuda"]),
        ("compile=true", [True]),
    ],
)
def test_values_take_the_type_of_their_field(text, values):
    parsed = grid.parse([text], Config())[text.partition("=")[0]]
    assert parsed == values and [type(v) for v in parsed] == [type(v) for v in values]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["learning_rate"], "--grid takes FIELD=a,b,c, got 'learning_rate'"),
        (["learning_rate="], "learning_rate has no values"),
        (["learning_rate=1,,2"], "an empty value between its commas"),
        (["learning_rte=1"], "no field 'learning_rte' to vary; did you mean 'learning_rate'"),
        (["steps=1"], "no field 'steps' to vary.*Fields: .*feed.steps"),
        (
            ["feed=1"],
            "feed is a group of fields; name one of them: feed.steps, feed.epochs, feed.minibatches, feed.max_lag, feed.sequence",
        ),
        (["feed.stepps=1"], "did you mean 'feed.steps'"),
        (["seed=1,2"], "no field 'seed' to vary"),
        (["learning_rate=fast"], "learning_rate must be a finite number, got 'fast'"),
        (["learning_rate=nan"], "learning_rate must be a finite number, got 'nan'"),
        (["epochs=1.5"], "epochs must be a whole number, got '1.5'"),
        (["epochs=15e-1"], "epochs must be a whole number, got '15e-1'"),
        (["epochs=1e999"], "epochs must be a whole number, got '1e999'"),
        (["hidden=64x"], "hidden has an empty value"),
        (["hidden=64xwide"], "hidden must be a whole number, got 'wide'"),
        (["std=both"], "std must be one of fixed, dependent, got 'both'"),
        (["squash=1"], "squash must be true or false, got '1'"),
        (["schedule=1"], "schedule cannot be varied by a grid"),
        (["learning_rate=.001,1e-3"], "learning_rate has the value 0.001 twice"),
        (["hidden=64,64"], "hidden has the value 64 twice"),
        (["epochs=1", "epochs=2"], "epochs is in the grid twice"),
    ],
)
def test_bad_grids(texts, message):
    with pytest.raises(BadInput, match=message):
        grid.parse(texts, Config())


def test_values_from_python_are_held_to_the_same():
    with pytest.raises(BadInput, match="num_envs has the value 4 twice"):
        grid.check({"num_envs": [4, 4]}, Config())
    with pytest.raises(BadInput, match="epochs has no values"):
        grid.check({"epochs": []}, Config())


def test_every_combination_in_order():
    combinations = grid.settings(grid.parse(["learning_rate=1,2", "feed.steps=5,6,7"], Config()))
    pairs = [(s["learning_rate"], s["feed.steps"]) for s in combinations]
    assert pairs == [(1, 5), (1, 6), (1, 7), (2, 5), (2, 6), (2, 7)]
    assert grid.nested(combinations[1]) == {"learning_rate": 1.0, "feed": {"steps": 6}}
    assert grid.describe(combinations[1]) == "learning_rate=1.0 feed.steps=6"


numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(numbers, st.integers(), st.lists(st.integers(0)), st.lists(numbers), st.booleans())
def test_text_is_read_back_as_it_was(rate, epochs, hidden, low, squash):
    values = {"learning_rate": rate, "epochs": epochs, "hidden": (*hidden,), "low": (*low,), "squash": squash}
    texts = [f"{field}={grid.text(value)}" for field, value in values.items()]
    assert grid.parse(texts, Config()) == {field: [value] for field, value in values.items()}


@pytest.mark.parametrize("agent", AGENTS)
def test_every_field_of_every_agent_and_of_a_run_can_be_varied(agent):
    config = default_config(agent)
    for field in grid.fields(config):
        value = Settings() if field in grid.RUN_SETTINGS else config
        for name in field.split("."):
            value = getattr(value, name)
        value = "some" if value == "" else value  # a text that names nothing is no value of a grid
        assert grid.parse([f"{field}={grid.text(value)}"], config) == {field: [value]}


def test_what_makes_the_run_another_one_is_not_varied():
    assert not {"agent", "env", "own_env", "seed"} & grid.RUN_SETTINGS.keys()
