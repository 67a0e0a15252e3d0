"""Verify confirms what is true and nothing else. Forgeries here have the right hashes everywhere: only playing can tell."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from typing import Annotated

import numpy as np
import pytest
import safetensors.torch

import whorl
from tests.cases import each
from whorl import options
from whorl.apps.board import entry
from whorl.apps.board.page import export
from whorl.apps.board.submit import submit
from whorl.apps.board.verify import check_sizes, verify
from whorl.envs import native
from whorl.errors import BadInput, Damaged, Incompatible
from whorl.options import Bounds, Count
from whorl.training.catalog import AGENTS, default_config, find, presets


@pytest.fixture
def forge(made, tmp_path):
    """Another entry made from this one, with every hash and every computed field right: (changes, policy) -> its folder."""

    def write(policy=None, **changes):
        claim = {f.name: getattr(made, f.name) for f in dataclasses.fields(made)} | changes
        files = entry.contents(made.path)
        gifs = {name: files[f"{name}.gif"] for name in ("best", "typical")}
        del claim["path"], claim["curve"]
        return entry.write(tmp_path / "board", claim, made.curve, policy or files["policy.safetensors"], gifs).path

    return write


def elsewhere(made):
    """As if it had been submitted with another numpy."""
    return made.evaluated | {"versions": made.evaluated["versions"] | {"numpy": "1.0"}}


def test_a_true_claim_is_confirmed_to_the_last_episode(made):
    verdict = verify(made.path)
    assert verdict.confirmed and not verdict.plausible
    assert verdict.claimed == made.mean == pytest.approx(verdict.found, rel=1e-12)
    assert verdict.message.startswith(f"confirmed, all 100 episodes equal: mean return {made.mean:.6g} +- ")
    assert verify(made.id, made.path.parents[1]) == verdict


def test_another_agent_with_continuous_actions(tmp_path):
    run = whorl.train("a2c", "Pendulum-v1", total_steps=400, num_envs=4, eval_episodes=4, quiet=True, runs=tmp_path)
    verdict = verify(submit(run.path, tmp_path / "board").path)
    assert verdict.confirmed and -2000 < verdict.found < -500


@pytest.mark.parametrize("prefer", ["native", "gymnasium"])
def test_a_chain_of_transforms(prefer, tmp_path, monkeypatch):
    if prefer == "gymnasium":
        monkeypatch.setattr(
            native, "WORLDS", {id: world for id, world in native.WORLDS.items() if id != "MountainCar-v0"}
        )
    around = ["normalize", {"name": "stack_frames", "count": 2}, {"name": "time_limit", "steps": 9}]
    options = {"total_steps": 40, "num_envs": 4, "eval_every": 0, "quiet": True, "runs": tmp_path}
    run = whorl.train("a2c", "MountainCar-v0", transforms=around, **options)
    made = submit(run.path, tmp_path / "board")
    assert made.transforms == around and set(made.lengths) == {9} and made.gif_returns is not None
    assert made.world == "MountainCar-v0 through normalize, stack_frames(count=2), time_limit(steps=9)"
    assert verify(made.path).confirmed
    if prefer == "native":
        page = export(tmp_path / "board", tmp_path / "pages") / "run" / f"{made.id}.html"
        assert made.world in page.read_text()


def test_transforms_from_a_stranger(made, forge):
    for transforms, error, message in each([
        (["normalise"], BadInput, "unknown transform 'normalise'; did you mean 'normalize'"),
        (["os:system"], BadInput, "unknown transform 'os:system'"),
        ([{"name": "normalize", "mean": "/etc/passwd"}], BadInput, "which could name a file"),
        ([{"name": "normalize", "mean": [1]}, "scale_action"], Incompatible, "does not fit what lies within"),
        ([1], BadInput, "settings.transforms should be up to 20 names of transforms"),
        (["normalize"] * 21, BadInput, "settings.transforms should be up to 20 names of transforms"),
    ]):  # fmt: skip
        with pytest.raises(error, match=message):
            verify(forge(settings=made.settings | {"transforms": transforms}))
    other = verify(forge(settings=made.settings | {"transforms": [{"name": "normalize", "mean": 3.0}]}))
    assert not other.confirmed and other.found != made.mean


def test_one_step_more_in_one_episode_is_refuted(made, forge):
    returns, lengths = [*made.returns], [*made.lengths]
    returns[17], lengths[17] = returns[17] + 1, lengths[17] + 1
    verdict = verify(forge(returns=returns, lengths=lengths))
    assert not verdict.confirmed and verdict.claimed == pytest.approx(made.mean + 0.01) != verdict.found
    assert verdict.message.startswith(f"refuted: claimed {made.mean + 0.01:.6g} +- ")
    assert f"found {made.mean:.6g} +- " in verdict.message
    assert verdict.message.endswith("same versions and machine, but only 99 of 100 episodes are equal")


@pytest.mark.parametrize("changes", [{"lengths": 1}, {"returns": 1e-9}])
def test_returns_and_lengths_are_both_compared(made, forge, changes):
    changes = {name: [old + by for old in getattr(made, name)] for name, by in changes.items()}
    assert "only 0 of 100 episodes are equal" in verify(forge(**changes)).message


def test_a_policy_that_was_swapped_is_refuted(run, forge):
    best = (run.path / "checkpoints" / "best").resolve()
    other = next(path for path in sorted((run.path / "checkpoints").glob("step_*")) if path != best)
    verdict = verify(forge((other / "policy.safetensors").read_bytes()))
    assert not verdict.confirmed and verdict.message.startswith("refuted")


def test_another_version_may_differ_by_noise_which_is_no_confirmation(made, forge):
    changed = {name: [*getattr(made, name)[:-1], getattr(made, name)[-1] + 1] for name in ("returns", "lengths")}
    verdict = verify(forge(**changed, evaluated=elsewhere(made)))
    assert verdict.plausible and not verdict.confirmed
    reach = 2 * np.sqrt(2 * np.var(made.returns) / 100)
    said = f"0.01 apart, 2 standard errors are {reach:.3g}; not as at the submission: numpy"
    assert verdict.message.startswith("not refuted: within noise, which cannot be told") and verdict.message.endswith(
        said
    )


def test_a_score_that_was_raised_is_refuted_whatever_versions_it_names(made, forge):
    by = np.sqrt(2 * np.var(made.returns) / 100)  # well within noise
    verdict = verify(forge(returns=[x + by for x in made.returns], evaluated=elsewhere(made)))
    assert not verdict.confirmed and not verdict.plausible
    odd = sum(length < max(made.lengths) for length in made.lengths)
    assert verdict.message.endswith(f"{odd} episodes are as long as claimed and have another return")


def test_another_version_is_no_excuse_for_another_score(made, forge):
    reach = 2 * np.sqrt(2 * np.var(made.returns) / 100)
    by = np.ceil(reach) + 1
    lengths = [length + int(by) for length in made.lengths]
    verdict = verify(forge(returns=[x + by for x in made.returns], lengths=lengths, evaluated=elsewhere(made)))
    assert not verdict.plausible and "apart, 2 standard errors are" in verdict.message
    wild = [x + by + (10_000 if i % 2 else -10_000) for i, x in enumerate(made.returns)]
    assert not verify(forge(returns=wild, lengths=lengths, evaluated=elsewhere(made))).plausible, (
        "an invented spread makes no room"
    )


def test_a_threshold_that_is_not_the_environments_is_refuted(forge):
    verdict = verify(forge(reward_threshold=5.0))
    assert not verdict.confirmed and "the reward threshold of CartPole-v1 is 475.0, not 5.0" in verdict.message


def test_an_entry_that_was_edited_by_hand_is_damaged(made, tmp_path):
    path = shutil.copytree(made.path, tmp_path / made.id)
    data = json.loads((path / "entry.json").read_bytes())
    for field, value in (("mean", 500.0), ("config", data["config"] | {"learning_rate": 1.0}), ("author", "Eve")):
        (path / "entry.json").write_text(json.dumps(data | {field: value}))
        with pytest.raises(Damaged, match="entry.json.*(but the rest of the entry gives|it was changed)"):
            verify(path)


def test_a_config_that_does_not_belong_to_the_policy(made, forge):
    for config, message in each(
        [
            ({"hidden": [32, 32]}, "policy.safetensors does not fit the config: .* should be"),
            (
                {"hidden": [10**6, 10**6]},
                r"its policy cannot be built .*hidden = \[1000000, 1000000\] make networks far larger",
            ),
            ({"hidden": [2] * 100}, "policy.safetensors does not fit the config"),
            ({"hidden": "64"}, "its policy cannot be built"),
            ({"feed": 5}, "its policy cannot be built"),
            ({"learning_rate": -1}, "its policy cannot be built .*learning_rate must be (from|at least) 0"),
            ({"nothing": 1}, "its policy cannot be built .*PPOConfig has no option 'nothing'"),
            ({"activation": "os.system"}, "its policy cannot be built .*activation must be one of"),
        ]
    ):
        with pytest.raises(Damaged, match=message):
            verify(forge(config=made.config | config))


def test_the_sizes_of_every_preset_are_those_of_an_honest_policy():
    for agent in each(AGENTS):
        for env in [*presets(agent), "Unknown-v0"]:
            config = find(agent, env).config
            if agent == "td":  # its policy is the table
                check_sizes(config, 8 << 20, 4, 3)
            else:  # of Humanoid-v5
                check_sizes(config, 0, 348, 17)


@dataclasses.dataclass
class Both:
    """Two numbers that multiply each other, as no agent has them yet."""

    hidden: Annotated[tuple[int, ...], Count] = (1000,)
    atoms: Annotated[int, Bounds(2, sizes="outputs")] = 1000
    quantiles: Annotated[int, Bounds(2, sizes="outputs")] = 1000


def test_sizes_that_are_small_one_by_one_and_not_together():
    for agent, fields in each(
        [
            ("redq", {"hidden": (2000, 2000), "critics": 1000}),
            ("tqc", {"critics": 1000, "quantiles": 10_000}),
            ("c51", {"hidden": (1000,), "atoms": 10_000}),
            ("rainbow", {"hidden": (1000,), "atoms": 10_000}),
            ("qr_dqn", {"hidden": (1000,), "quantiles": 10_000}),
            ("iqn", {"hidden": (1000,), "cosines": 10_000}),
            ("iqn", {"hidden": (10_000,), "acting_samples": 1000}),
            ("iqn", {"samples": 10**9}),
            ("iqn", {"target_samples": 10**9}),
            ("tqc", {"critic_hidden": (8_000_000,)}),
            ("td", {"model": "tile_coding", "tilings": 64, "tiles": 30}),
            ("td", {"model": "tile_coding", "tilings": 10_000, "tiles": 8, "memory": 10_000}),
            ("td", {"tiles": 10**18}),
        ]
    ):
        config = options.override(default_config(agent), fields)
        options.check(config)
        with pytest.raises(BadInput, match="make networks far larger than its policy of 1,000 bytes"):
            check_sizes(config, 1000, 6, 2)
    with pytest.raises(BadInput, match=r"hidden = \[1000\], atoms = 1000, quantiles = 1000 make networks far larger"):
        check_sizes(Both(), 1000, 6, 2)


def test_a_policy_that_is_none(made, forge):
    for policy in (b"x", b"\x80\x04cos\nsystem\n", b"\xff" * 100):
        with pytest.raises(Damaged, match="its policy cannot be built .*Safetensor"):
            verify(forge(policy))
    tensors = safetensors.torch.load((made.path / "policy.safetensors").read_bytes())
    name = next(iter(tensors))
    for other in (
        tensors | {"more": tensors[name].clone()},
        {k: v for k, v in tensors.items() if k != name},
        tensors | {name: tensors[name].double()},
    ):
        with pytest.raises(Damaged, match="policy.safetensors does not fit the config"):
            verify(forge(safetensors.torch.save(other)))
    broken = {k: v * float("nan") if v.is_floating_point() else v for k, v in tensors.items()}
    assert not verify(forge(safetensors.torch.save(broken))).confirmed


def test_options_of_the_environment_from_a_stranger(made, forge):
    for kwargs, message in (
        ({"map_name": "/etc/passwd"}, "could name a file or a module"),
        ({"prefer": "gymnasium"}, "prefer is no option of an environment"),
        ({"sutton": 3}, "does not take these options: sutton"),
    ):
        with pytest.raises(BadInput, match=message):
            verify(forge(settings=made.settings | {"env_kwargs": kwargs}))
    assert verify(forge(settings=made.settings | {"env_kwargs": {}})).confirmed
    other = verify(forge(settings=made.settings | {"env_kwargs": {"sutton_barto_reward": True}}))
    assert not other.confirmed and other.found < 0
    with pytest.raises(BadInput, match="settings.env_kwargs should be an object of numbers"):
        forge(settings=made.settings | {"env_kwargs": [1]})


def test_names_from_a_stranger_import_nothing(made, forge):
    before = set(sys.modules)
    with pytest.raises(Damaged, match="its policy cannot be built .*unknown agent 'this'"):
        verify(forge(agent="this"))
    with pytest.raises(BadInput, match="no environment is called 'antigravity-v0'"):
        verify(forge(env="antigravity-v0"))
    assert not {"this", "antigravity"} & (set(sys.modules) - before)


def test_what_is_no_entry(made, tmp_path):
    with pytest.raises(BadInput, match="there is no entry 0123456789abcdef"):
        verify("0123456789abcdef", tmp_path)
    with pytest.raises(BadInput, match="there is no entry .*nowhere"):
        verify(tmp_path / "nowhere")
