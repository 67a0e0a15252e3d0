"""Rows and ranks, on entries made by code from one made one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from statistics import median

import numpy as np
import pytest

from whorl.apps.board import entry, view
from whorl.apps.board.rank import FEW, config_difference, rows
from whorl.apps.board.references import Reference, every, references
from whorl.envs.ids import known_envs
from whorl.functional.statistics import bootstrap_interval, iqm
from whorl.training.catalog import AGENTS, presets


@pytest.fixture
def make(made):
    """(mean, seed, other fields, `config` and `settings` in parts) -> an entry that agrees with itself as far as rows look."""

    def one(mean, seed=0, config=None, settings=None, **fields):
        data = {name: getattr(made, name) for name in ("env", "agent")} | fields
        data["config"] = made.config | (config or {})
        data["settings"] = made.settings | {"seed": seed} | (settings or {})
        identity = hashlib.sha256(json.dumps([mean, data], sort_keys=True).encode()).hexdigest()[:16]
        data = {"policy_sha256": 4 * identity} | data
        return replace(made, id=identity, mean=float(mean), setting=entry.setting(data), **data)

    return one


def seeds(make, means, **options):
    return [make(mean, seed, **options) for seed, mean in enumerate(means)]


def test_seeds_of_one_setting_are_one_row(make):
    means = [480.0, 420.0, 500.0, 450.0, 490.0, 300.0]
    table = rows(seeds(make, means) + [make(100.0, env="Acrobot-v1")])
    assert list(table) == ["Acrobot-v1", "CartPole-v1"]
    [row] = table["CartPole-v1"]
    assert [e.settings["seed"] for e in row.entries] == list(range(6)) and row.seeds == 6 and row.repeated == []
    low, high = bootstrap_interval(means)
    assert (row.iqm, row.low, row.high) == pytest.approx((iqm(means), low, high), rel=1e-12)
    assert row.iqm == pytest.approx((420 + 450 + 480 + 490) / 4)
    assert (row.env, row.agent, row.setting) == ("CartPole-v1", "ppo", row.entries[0].setting)


def test_another_config_or_size_of_the_run_is_another_row(make):
    others = [
        {"config": {"discount": 0.9}},
        {"config": {"feed": {"steps": 1}}},
        {"settings": {"num_envs": 4}},
        {"settings": {"total_steps": 700}},
        {"settings": {"max_episode_steps": 9}},
        {"settings": {"total_episodes": 9}},
        {"settings": {"compile": True}},
        {"agent": "a2c"},
    ]
    same = [{"settings": {"device": "cuda", "threads": 4, "eval_every": 1}}, {"author": "Grace"}, {}]
    table = rows([make(1.0, seed, **o) for seed, o in enumerate(others + same)])["CartPole-v1"]
    assert sorted(row.seeds for row in table) == [1] * len(others) + [len(same)]


def test_the_order_of_the_entries_makes_no_difference(make):
    found = [e for d in (0.9, 0.95, 0.99) for e in seeds(make, [100 * d, 110 * d, 100.0], config={"discount": d})]
    table = rows(found)
    shuffled = np.random.default_rng(0).permutation(np.array(found, object)).tolist()
    assert rows(shuffled) == table and len(table["CartPole-v1"]) == 3


def test_rows_whose_intervals_meet_that_of_the_first_of_their_group_share_its_rank(make):
    spread = lambda middle, by: [middle - by, middle - by / 2, middle, middle + by / 2, middle + by]  # noqa: E731
    means = {0.1: spread(400, 40), 0.2: spread(390, 2), 0.3: spread(300, 5), 0.4: spread(294, 8), 0.5: spread(200, 1)}
    table = rows([e for d, m in means.items() for e in seeds(make, m, config={"discount": d})])["CartPole-v1"]
    assert [row.options["discount"] for row in table] == [0.1, 0.2, 0.3, 0.4, 0.5], "best first"
    assert [row.rank for row in table] == [1, 1, 3, 3, 5]
    assert [row.tied for row in table] == [True, True, True, True, False]
    assert [row.tied_with_best for row in table] == [True, True, False, False, False]
    assert table[1].high >= table[0].low and table[2].high < table[0].low and table[4].high < table[2].low


def test_the_best_alone_is_tied_with_nobody(make):
    [row] = rows([make(500.0)])["CartPole-v1"]
    assert (row.rank, row.tied, row.tied_with_best) == (1, False, False)
    assert row.iqm == row.low == row.high == 500.0


def test_few_seeds_are_said_to_be_few(make):
    assert [rows(seeds(make, [1.0] * n))["CartPole-v1"][0].few_seeds for n in (1, FEW - 1, FEW)] == [True, True, False]


def test_a_seed_counts_once(make):
    more = make(300.0, steps=900)
    early = make(200.0, created="2020-01-01T00:00:00Z", steps=900)
    part = make(400.0, steps=100)
    for found in ([more, early, part], [part, early, more]):
        [row] = rows([*found, make(250.0, seed=1)])["CartPole-v1"]
        assert [e.mean for e in row.entries] == [200.0, 250.0], "most steps, then earliest"
        assert [e.mean for e in row.repeated] == [300.0, 400.0] and row.iqm == 225.0


def test_one_policy_under_several_seeds_counts_once(make):
    posed = [make(490.0, seed, policy_sha256="a" * 64) for seed in range(3)]
    [row] = rows([*reversed(posed), make(100.0, 3)])["CartPole-v1"]
    assert len({entry.policy_sha256 for entry in row.entries}) == row.seeds == 2 and row.iqm == (490 + 100) / 2
    assert len(row.repeated) == 2
    [again] = rows([make(100.0, 3), *posed])["CartPole-v1"]
    assert again == row


def test_an_odd_threshold_does_not_become_the_environments(make):
    reached = {"steps_to_threshold": 7, "seconds_to_threshold": 1.0}
    low = make(500.0, 0, config={"discount": 0.5}, reward_threshold=1.0, **reached)
    others = [make(1.0, seed, reward_threshold=475.0, **reached) for seed in range(2)]
    first, second = rows([low, *others])["CartPole-v1"]
    assert first.threshold == second.threshold == 475.0
    assert (first.reached, first.steps_to_threshold) == (0, None)
    assert (second.reached, second.steps_to_threshold) == (2, 7.0)
    assert view.environment([first, second])["threshold"] == 475.0


def test_steps_to_threshold_are_a_median_only_if_every_seed_reached_it(make):
    reached = [(100, 1.0), (300, 9.0), (200, 2.0)]
    some = [make(1.0, i, steps_to_threshold=a, seconds_to_threshold=b) for i, (a, b) in enumerate(reached)]
    [row] = rows(some)["CartPole-v1"]
    assert (row.steps_to_threshold, row.seconds_to_threshold, row.reached) == (200.0, 2.0, 3)
    [row] = rows([*some, make(1.0, 3, steps_to_threshold=None, seconds_to_threshold=None)])["CartPole-v1"]
    assert (row.steps_to_threshold, row.seconds_to_threshold, row.reached, row.seeds) == (None, None, 3, 4)
    speeds = [10.0, None, 30.0, 50.0]
    [row] = rows([make(1.0, i, steps_per_second=speed) for i, speed in enumerate(speeds)])["CartPole-v1"]
    assert row.steps_per_second == median([10.0, 30.0, 50.0])


def test_differences_are_from_the_preset_or_else_the_defaults(make, made):
    preset = presets("ppo")["CartPole-v1"]
    changed = make(
        1.0, config={"discount": 0.5, "feed": made.config["feed"] | {"steps": 7}}, settings={"compile": True}
    )
    [row] = rows([changed])["CartPole-v1"]
    assert row.baseline == "preset"
    assert row.differences == {
        "total_steps": (1000, preset.total_steps),
        "compile": (True, False),
        "discount": (0.5, preset.config.discount),
        "feed.steps": (7, preset.config.feed.steps),
    }
    [row] = rows([make(1.0, env="Other-v0")])["Other-v0"]
    assert row.baseline == "defaults" and row.differences["learning_rate"] == (0.001, 0.0003)
    [row] = rows([make(1.0, agent="newer_agent")])["CartPole-v1"]
    assert row.baseline == "" and row.differences == {}


def test_the_difference_between_two_rows(make):
    a, b = (
        make(2.0, config={"discount": 0.5}),
        make(1.0, agent="a2c", config={"value_weight": 9}, settings={"num_envs": 3}),
    )
    one, two = rows([a, b])["CartPole-v1"]
    assert config_difference(one, two) == {
        "agent": ("ppo", "a2c"),
        "num_envs": (8, 3),
        "discount": (0.5, 0.99),
        "value_weight": (0.5, 9),
    }
    assert config_difference(one, one) == {}


def test_a_thousand_entries(make):
    """40 settings of 25 seeds, told apart by their discount; scores are such that each row's place is known."""
    found = [
        make(1000 - 10 * i + seed / 25, seed, config={"discount": i / 100}) for i in range(40) for seed in range(25)
    ]
    table = rows(found)["CartPole-v1"]
    assert [row.options["discount"] for row in table] == [i / 100 for i in range(40)]
    assert [row.rank for row in table] == list(range(1, 41)) and {row.seeds for row in table} == {25}
    low, high = bootstrap_interval([e.mean for e in table[7].entries])
    assert (table[7].low, table[7].high) == pytest.approx((low, high), rel=1e-12)


def test_published_scores_name_their_source_and_environments_that_exist():
    assert len(set(every())) == len(every()) > 80
    kinds = {field.name: {"str": str, "float": float, "int": int}[str(field.type)] for field in fields(Reference)}
    with_presets = {env for agent in AGENTS for env in presets(agent)}
    for row in every():
        assert all(type(getattr(row, name)) is kind for name, kind in kinds.items()), row
        assert row.env in known_envs() and row.env in with_presets
        assert row.agent in AGENTS or row.agent == "PQN"
        assert row.source and row.url.startswith("https://") and row.note and row.seeds >= 1 and row.steps > 0
    found = references("Hopper-v5")
    assert [row.score for row in found] == sorted((row.score for row in found), reverse=True)
    assert found[0].agent == "tqc" and found[0].measured_on == "Hopper-v3"
    assert references("Nothing-v0") == []
