"""envpool: no step is invented, successors are true, single rows restart, seeds are each row's own."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

from whorl.envs.check import check_env
from whorl.envs.make import make_env
from whorl.errors import BadInput

pytestmark = pytest.mark.envpool
CARTPOLE = "envpool/CartPole-v1"


@pytest.mark.parametrize(("id", "dtype"), [(CARTPOLE, np.float32), ("envpool/Pong-v5", np.uint8)])
def test_the_successor_at_a_time_limit_is_true(id, dtype):
    """That of the same episodes without a limit; and the next step is one of the new episode."""
    with closing(make_env(id, 2, seed=3, max_episode_steps=4)) as env, closing(make_env(id, 2, seed=3)) as free:
        assert env.max_episode_steps == 4 and (env.reset() == free.reset()).all()
        for k in range(1, 6):
            action = np.full(2, k % 2)
            step = env.step(action)
            assert step.valid is None and (step.truncated == (k == 4)).all() and not step.terminated.any()
            if k <= 4:
                assert (step.next_observation == free.step(action).next_observation).all()
            assert (step.observation is step.next_observation) == (k != 4)
            assert step.info["elapsed_step"].tolist() == [k if k <= 4 else 1] * 2
        assert step.observation.dtype == dtype


def test_seeds():
    """Row i has the stream of its own seed whatever N is; reset(seed) begins them anew, reset() goes on."""
    with closing(make_env(CARTPOLE, 3, seed=5)) as env, closing(make_env(CARTPOLE, 1)) as one:
        first = env.reset().copy()
        assert len(np.unique(first[:, 0])) == 3
        assert (one.reset(5)[0] == first[0]).all()
        second = env.reset().copy()
        assert (second != first).any() and (one.reset()[0] == second[0]).all()
        assert (env.reset(5) == first).all()


def test_single_rows_restart():
    with closing(make_env(CARTPOLE, 3, seed=0)) as env:
        env.reset()
        assert env.partial == {"restart"}
        step = env.step(np.zeros(3, np.int64))
        successor = step.next_observation.copy()
        stands = env.restart(np.array([False, True, False]))
        assert (step.next_observation == successor).all()
        assert (stands[[0, 2]] == successor[[0, 2]]).all() and (stands[1] != successor[1]).all()
        assert (np.abs(stands[1]) <= 0.05).all()  # CartPole's first states
        stood = stands.copy()
        step = env.step(np.zeros(3, np.int64))
        assert step.info["elapsed_step"].tolist() == [2, 1, 2]
        assert step.observation[:, 0] == pytest.approx(stood[:, 0] + 0.02 * stood[:, 1])  # Euler's step


def test_the_contract():
    with closing(make_env(CARTPOLE, 5, seed=1)) as env:
        check_env(env, steps=60)
        assert env.state() is None and env.reward_threshold == 475 and env.action_space.n == 2


def test_spaces_hold_what_is_seen():
    """envpool gives the smallest positive float as the lower bound of its dm_control tasks."""
    with closing(make_env("envpool/CartpoleBalance-v1", 2)) as env:
        assert list(env.observation_space) == ["position", "velocity"]
        assert all(np.isinf(space.low).all() for space in env.observation_space.values())
        assert all(env.observation_space[key].contains(seen[0]) for key, seen in env.reset().items())


def test_pictures():
    with closing(make_env(CARTPOLE, 2, render_mode="rgb_array")) as env:
        env.reset()
        picture = env.render()
        assert picture.shape == (400, 600, 3) and picture.dtype == np.uint8 and picture.std() > 0
    with closing(make_env(CARTPOLE, 2)) as env:
        env.reset()
        assert env.render() is None


def test_bad_input():
    with pytest.raises(
        BadInput, match="envpool has no environment 'envpool/CartPole-v2'; near matches: envpool/CartPole-v1, "
    ):
        make_env("envpool/CartPole-v2")
    with pytest.raises(
        BadInput, match=f"{CARTPOLE} cannot be made: TypeError: .*unexpected keyword argument 'gravity'"
    ):
        make_env(CARTPOLE, gravity=3)
    with pytest.raises(
        BadInput, match=f"batch_size cannot be passed to {CARTPOLE}: all of a pool are stepped together"
    ):
        make_env(CARTPOLE, 4, batch_size=2)
    with pytest.raises(BadInput, match="envpool/ConnectFour-v1 has 2 players: one agent learns in an environment"):
        make_env("envpool/ConnectFour-v1")
    with pytest.raises(BadInput, match=f"{CARTPOLE} is stepped by envpool on the CPU, got device='cuda'"):
        make_env(CARTPOLE, device="cuda")
    with pytest.raises(BadInput, match=f"{CARTPOLE} is stepped in C.., where wrappers cannot go around"):
        make_env(CARTPOLE, wrappers=[lambda env: env])
