from __future__ import annotations

import logging
import subprocess
import sys

import gymnasium
import pytest

from whorl.envs import native
from whorl.envs.ids import known_envs
from whorl.envs.make import make_env
from whorl.errors import BadInput


def test_native_is_preferred_and_named(caplog):
    with caplog.at_level(logging.INFO, "whorl"):
        env = make_env("CartPole-v1", 4, seed=3)
        other = make_env("CartPole-v1", 4, seed=3, prefer="gymnasium")
        third = make_env("FrozenLake-v1", 2)
    assert (env.origin, other.origin, third.origin) == ("native", "gymnasium", "gymnasium")
    assert repr(env) == "CartPole-v1 (native, 4 at once, on cpu)"
    assert [record.getMessage() for record in caplog.records] == [f"environment: {e!r}" for e in (env, other, third)]
    assert env.num_envs == other.num_envs == 4 and third.num_envs == 2


def test_known_envs():
    known = known_envs()
    assert known["CartPole-v1"] == "native" and known["LunarLander-v3"] == "gymnasium"
    assert set(known) == set(native.WORLDS) | set(gymnasium.registry)


def test_seed():
    first, again, other = (make_env("FrozenLake-v1", 3, seed=seed) for seed in (1, 1, 2))
    walks = []
    for env in (first, again, other):
        env.reset()
        walks.append([env.step([t % 4] * 3).next_observation.tolist() for t in range(30)])
    assert walks[0] == walks[1] != walks[2]


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("CartPol-v1", "no environment is called 'CartPol-v1'; near matches: CartPole-v1"),
        ("cartpole-v1", "near matches: CartPole-v1"),
        ("CartPole", "no environment is called 'CartPole'; near matches: CartPole-v"),
        (
            "LunarLander-v2",
            "v2 for `LunarLander` is deprecated. Please use `LunarLander-v3` instead.; near matches: LunarLander-v3",
        ),
        ("Acrobot-v7", r"`v7` for environment `Acrobot` doesn't exist. It provides versioned environments: \[ `v1` \]"),
        ("qqqqqqqqq", "no environment is called 'qqqqqqqqq'; `whorl list envs` shows all"),
        ("mine/Thing-v0", "no environment is called 'mine/Thing-v0'"),
        ("", "no environment is called ''"),
    ],
)
def test_unknown_id(id, message):
    with pytest.raises(BadInput, match=message):
        make_env(id)


def test_ids_never_import_a_module(tmp_path):
    (tmp_path / "trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w')")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from whorl.envs.make import make_env
from whorl.errors import BadInput
before = set(sys.modules)
for id in ("trap:CartPole-v1", "trap:", ":", "trap", "trap/CartPole-v1", "trap.CartPole-v1", "../trap:X-v0"):
    for prefer in ("native", "gymnasium"):
        try:
            make_env(id, prefer=prefer)
        except BadInput:
            continue
        print("made", id)
print(sorted(name for name in set(sys.modules) - before if "trap" in name))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(BadInput, match="'trap:CartPole-v1': an id cannot import a module. Import it yourself"):
        make_env("trap:CartPole-v1")


@pytest.mark.parametrize("num_envs", [0, -1, 1.5, True, "3"])
def test_num_envs(num_envs):
    with pytest.raises(BadInput, match="num_envs must be an integer of at least 1, got"):
        make_env("CartPole-v1", num_envs)


def test_bad_arguments():
    with pytest.raises(BadInput, match="FrozenLake-v1 is stepped by gymnasium on the CPU, got device='cuda'"):
        make_env("FrozenLake-v1", device="cuda")
    with pytest.raises(BadInput, match="prefer must be 'native', 'gymnasium' or 'torch', got 'envpool'"):
        make_env("CartPole-v1", prefer="envpool")
    with pytest.raises(BadInput, match="make_env takes an id, got OrderEnforcing: wrap your own environment"):
        make_env(gymnasium.make("CartPole-v1", disable_env_checker=True, max_episode_steps=-1))
    with pytest.raises(BadInput, match="RandomWalk-v0 exists only as a native world: leave prefer='gymnasium' out"):
        make_env("RandomWalk-v0", prefer="gymnasium")


def test_options():
    assert make_env("CartPole-v1", max_episode_steps=9, render_mode="rgb_array").max_episode_steps == 9
    env = make_env("FrozenLake-v1", map_name="8x8", max_episode_steps=9)
    assert env.observation_space.n == 64 and env.max_episode_steps == 9
    assert (
        make_env("CartPole-v1", sutton_barto_reward=True).origin == "gymnasium"
    )  # the native world has no such option
    with pytest.raises(BadInput, match="CartPole-v1 does not take these options: gravity .*unexpected keyword"):
        make_env("CartPole-v1", gravity=3.0)
    with pytest.raises(BadInput, match="RandomWalk-v0 exists only as a native world, which takes .*; got gravity"):
        make_env("RandomWalk-v0", gravity=3.0)
    with pytest.raises(
        BadInput, match="FrozenLake-v1 does not take these options: slipery .*unexpected keyword argument 'slipery'"
    ):
        make_env("FrozenLake-v1", slipery=True)


@pytest.mark.parametrize(
    ("id", "module", "extra"),
    [
        ("LunarLander-v3", "Box2D", "box2d"),
        ("HalfCheetah-v5", "mujoco", "mujoco"),
        ("ALE/Pong-v5", "ale_py", "atari"),
        ("dm_control/cartpole-balance", "dm_control", "dmc"),
        ("dm_control/cartpole-balance-v0", "shimmy", "dmc"),
        ("envpool/CartPole-v1", "envpool", "envpool"),
    ],
)
def test_missing_extra(monkeypatch, id, module, extra):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    with pytest.raises(BadInput, match=rf'^{id} needs an extra that is not installed: pip install "whorl\[{extra}\]"$'):
        make_env(id)


def test_what_gymnasium_cannot_make():
    gymnasium.register("OnlyVector-v0", vector_entry_point="nowhere:Nothing")
    try:
        with pytest.raises(BadInput, match="OnlyVector-v0 cannot be made: .*entry_point is not specified"):
            make_env("OnlyVector-v0")
    finally:
        del gymnasium.registry["OnlyVector-v0"]


def test_retired_mujoco():
    with pytest.raises(BadInput, match="HalfCheetah-v3 is retired .*; use HalfCheetah-v5"):
        make_env("HalfCheetah-v3")


def test_no_warnings():
    code = """
from whorl.envs.make import make_env
for prefer in ("native", "gymnasium"):
    make_env("CartPole-v0", prefer=prefer).reset()
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_environment_whose_library_fails_in_making_it(monkeypatch):
    def broken(**options):
        assert options == {"of": "another version"}

    monkeypatch.setitem(gymnasium.registry, "Broken-v0", gymnasium.envs.registration.EnvSpec("Broken-v0", broken))
    with pytest.raises(
        BadInput,
        match=r"Broken-v0 cannot be made: its library raises AssertionError.* in test_make.py, line \d+; another",
    ):
        make_env("Broken-v0")


@pytest.mark.parametrize("seed", [-1, 1.5, "x", None, True])
def test_seeds_that_are_none(seed):
    for id in ("CartPole-v1", "HalfCheetah-v5"):
        with pytest.raises(BadInput, match=f"seed must be an integer, 0 or more, got {seed!r}"):
            make_env(id, 2, seed)
