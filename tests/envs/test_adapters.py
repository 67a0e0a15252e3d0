"""Every adapter, and every stand-in for a library that cannot be installed here, keeps the one contract.

A row of CASES is all that a new adapter adds here. Cases whose module is missing are skipped.
"""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest

import whorl
from tests.envs.test_gymnasium_rows import Walk, kept, same
from whorl.envs.check import check_env
from whorl.envs.env import Env, Step
from whorl.envs.guard import Guard
from whorl.envs.make import EnvKind


class Case(NamedTuple):
    """One kind of environment. env: what `EnvKind` takes; an id that begins with "URL/" is one on whorl's own server."""

    env: str | Callable[..., Any]
    origin: str  # who steps it
    agent: str = "ppo"  # "": none without a transform
    needs: str = ""  # modules without which it is skipped
    kwargs: Mapping[str, Any] = {}
    prefer: str = "native"
    partial: str = "restart rows"
    limited: bool = True  # whether it takes `max_episode_steps`
    steps: int = 60  # of `check_env`
    standin: str = ""  # the modules in tests/standins that it is run against


CASES = {
    "native": Case("Pendulum-v1", "native", "sac"),
    "gymnasium": Case("CartPole-v1", "gymnasium", "dqn", prefer="gymnasium"),
    "gymnasium, masks": Case("Taxi-v4", "gymnasium", "dqn"),
    "gymnasium, a class": Case(Walk, "gymnasium", "sac"),
    "atari": Case("ALE/Pong-v5", "ale", "dqn", needs="ale_py", partial="restart", steps=4),
    "atari, ram": Case("ALE/Pong-v5", "gymnasium", "dqn", needs="ale_py", kwargs={"obs_type": "ram"}, steps=4),
    "box2d": Case("LunarLander-v3", "gymnasium", needs="Box2D"),
    "mujoco": Case("InvertedPendulum-v5", "gymnasium", "sac", needs="mujoco"),
    "minigrid, tokens": Case("MiniGrid-Fetch-5x5-N2-v0", "gymnasium", needs="minigrid", kwargs={"mission": "tokens"}),
    "minigrid, drop": Case("MiniGrid-Empty-5x5-v0", "gymnasium", "dqn", needs="minigrid", kwargs={"mission": "drop"}),
    "highway": Case(
        "parking-v0", "gymnasium", "sac", needs="highway_env", kwargs={"config": {"simulation_frequency": 5}}, steps=6
    ),
    "robotics": Case("PointMaze_UMaze-v3", "gymnasium", "sac", needs="gymnasium_robotics", steps=20),
    "mo-gymnasium": Case("minecart-deterministic-v0", "mo_gymnasium", "", needs="mo_gymnasium"),
    "safety-gymnasium": Case(
        "safety_gymnasium/SafetyPointGoal1-v0", "safety_gymnasium", "sac", standin="safety_gymnasium"
    ),
    "robohive": Case("robohive/FrankaReachRandom-v0", "gymnasium", "sac", standin="robohive"),
    "gym 0.21": Case("gym/Walk-v0", "gym", "dqn", standin="gym"),
    "gym 0.26": Case("gym/CartPole-v1", "gym", "dqn", needs="gym"),
    "isaaclab": Case(
        "isaaclab/Isaac-Cartpole-v0",
        "isaaclab",
        standin="isaaclab isaaclab_tasks",
        kwargs={"sim_device": "cpu"},
        partial="",
    ),
    "dm_control": Case("dm_control/cartpole-balance", "dm_control", "sac", "dm_control", steps=20),
    "envpool": Case("envpool/CartPole-v1", "envpool", "dqn", "envpool", partial="restart"),
    "brax": Case("brax/fast", "brax", "sac", needs="brax"),
    "jumanji": Case("jumanji/Snake-v1", "jumanji", "dqn", needs="jumanji", kwargs={"num_rows": 4, "num_cols": 4}),
    "http": Case("URL/CartPole-v1", "http", needs="starlette uvicorn", partial="", steps=20),
}
SMALL = {
    "ppo": {"hidden": (8,), "feed": {"steps": 3, "epochs": 1, "minibatches": 1}},
    "dqn": {"hidden": (8,), "feed": {"batch_size": 4, "capacity": 100, "warmup": 5}},
    "sac": {"hidden": (8,), "feed": {"batch_size": 4, "capacity": 100, "warmup": 5}},
}


@pytest.fixture(params=CASES)
def case(request, standins) -> Case:
    case = CASES[request.param]
    for module in case.standin.split():
        standins(module)
    for module in case.needs.split():
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"needs the module {module}")
    if str(case.env).startswith("URL"):
        return case._replace(env=str(case.env).replace("URL", request.getfixturevalue("base"), 1))
    return case


def kind(case: Case) -> EnvKind:
    return EnvKind(case.env, case.kwargs, prefer=case.prefer)


def actions(env: Env, rng: np.random.Generator) -> np.ndarray:
    """Random ones [N, ...] that are allowed."""
    space, n = env.action_space, env.num_envs
    if isinstance(space, gymnasium.spaces.Discrete):
        chance = rng.random((n, int(space.n)))
        return (chance if env.action_mask is None else chance * env.action_mask).argmax(-1)
    if isinstance(space, gymnasium.spaces.Box):
        low, high = np.maximum(space.low, -1), np.minimum(space.high, 1)
        return rng.uniform(low, high, (n, *space.shape)).astype(np.float32)
    return np.stack([space.sample() for _ in range(n)])


def copies(step: Step) -> list[list[np.ndarray]]:
    return [kept(part) for part in step[:5]]


@pytest.mark.parametrize("n", [1, 5])
class TestAdapter:
    def test_contract(self, case, n):
        """Spaces, dtypes, masks, seeds and streams; closed twice."""
        env = kind(case).make(n, seed=1)
        assert (env.origin, env.num_envs) == (case.origin, n) and env.partial == set(case.partial.split())
        check_env(env, case.steps)
        env.close()
        env.close()

    def test_true_final_observation(self, case, n):
        """Cut after 4 steps, the successor is what the same environment shows that goes on."""
        if not case.limited:
            pytest.skip("takes no time limit")
        env, longer = (kind(case).make(n, seed=2, max_episode_steps=limit) for limit in (4, 5))
        env.reset(), longer.reset()
        rng, going = np.random.default_rng(0), np.ones(n, bool)
        for t in range(4):
            action = actions(env, rng)
            cut, on = env.step(action), longer.step(action)
            assert all(np.array_equal(a[going], b[going]) for a, b in zip(kept(on[4]), kept(cut[4]), strict=True))
            going &= ~on.terminated
            assert (cut.truncated[going] == (t == 3)).all() and not on.truncated.any()
        assert going.any() and not same(kept(cut.observation), cut.next_observation, going)

    def test_rows_restart(self, case, n):
        env, rng = kind(case).make(n, seed=3), np.random.default_rng(0)
        if "restart" not in env.partial:
            pytest.skip("its single environments do not restart")
        world = Guard(env)
        world.reset()
        for t in range(6):
            step = world.step(actions(env, rng))
            before, rows = copies(step), np.arange(n) % 2 == t % 2
            here = world.restart(rows)
            assert all(same(a, b) for a, b in zip(before, step[:5], strict=True))  # what was handed out survives
            assert same(before[0], here, ~rows)
        if case.limited:  # it begins anew, its clock too
            env = kind(case).make(n, seed=3, max_episode_steps=4)
            env.reset()
            going = ~rows
            for _ in range(3):
                going &= ~env.step(actions(env, rng)).terminated
            env.restart(rows)
            step = env.step(actions(env, rng))
            assert step.truncated[going & ~step.terminated].all() and not step.truncated[rows].any()

    def test_two_halves_are_the_whole(self, case, n):
        whole, parts = (kind(case).make(n, seed=4) for _ in range(2))
        if "rows" not in whole.partial:
            pytest.skip("its single environments do not step alone")
        world, rng = Guard(parts), np.random.default_rng(0)
        assert same(kept(whole.reset()), world.reset())
        for t in range(8):
            action, rows = actions(whole, rng), np.arange(n) % 2 == t % 2
            first = world.step(action, rows)
            assert (first.valid == rows).all() and not first.reward.any(where=~rows)
            assert not (first.terminated | first.truncated)[~rows].any()
            first = copies(first)
            second, one = world.step(action, ~rows), whole.step(action)
            assert same(kept(one.observation), second.observation)
            assert all(
                np.array_equal(a[rows], b[rows]) for a, b in zip(first[4], kept(one.next_observation), strict=True)
            )
            for k in (1, 2, 3):  # reward and flags
                assert (np.where(rows, first[k][0], second[k]) == one[k]).all()

    def test_the_kind_goes_to_another_process(self, case, n):
        other = pickle.loads(pickle.dumps(kind(case))).make(n, seed=5)
        assert same(kept(kind(case).make(n, seed=5).reset()), other.reset())


def test_an_agent_learns_in_it(case, tmp_path):
    if not case.agent:
        pytest.skip("no agent learns from it as it is")
    given = {"eval_every": 0, "eval_episodes": 1, "quiet": True, "update": "eager", **SMALL[case.agent]}
    given |= {"max_episode_steps": 5} if case.limited else {}
    run = whorl.train(case.agent, kind(case), runs=tmp_path, num_envs=5, total_steps=20, **given)
    assert run.steps >= 20
