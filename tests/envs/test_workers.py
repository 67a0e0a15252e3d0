"""Environments in worker processes: the same episodes as in one, deaths, hangs, errors, and nothing left behind."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.envs.working import Walk
from whorl.envs.check import check_env
from whorl.envs.check_calls import copied, equal
from whorl.envs.env import Processes
from whorl.envs.make import EnvKind, make_env
from whorl.envs.process import READY
from whorl.envs.workers import _joined, _split
from whorl.errors import BadInput, EnvError

WALK = EnvKind(Walk)


def made(kind=WALK, num_envs=5, workers=2, seed=3, replay=1000, **options):
    env = kind.make(num_envs, seed, processes=Processes(workers, **options) if workers else None)
    env.replay_steps = replay
    return env


def play(env, steps=40, seed=3, rows=False):
    """Copies of all that it gives."""
    draw, given = np.random.default_rng(0), [copied(env.reset(seed))]
    for _ in range(steps):
        action = draw.integers(0, int(env.action_space.n), env.num_envs)
        some = draw.random(env.num_envs) < 0.7 if rows else None
        given.append(copied(env.step(action) if some is None else env.step(action, some))[:7])
        if rows:
            given.append(copied(env.restart(draw.random(env.num_envs) < 0.1)))
    return given


@pytest.fixture
def closing():
    """Closes what is put into it."""
    opened = []
    yield lambda env: opened.append(env) or env
    for env in opened:
        env.close()


@pytest.mark.parametrize("rows", [False, True])
def test_the_same_episodes_with_any_number_of_workers(closing, rows):
    alone = play(closing(made(workers=0)), rows=rows)
    for workers in (1, 3):
        env = closing(made(workers=workers))
        assert equal(play(env, rows=rows), alone)
        assert env.restarts == 0 and repr(env).endswith(f"in {workers} processes)")


def test_native_worlds_and_gymnasiums(closing):
    for options in ({}, {"prefer": "gymnasium"}):
        alone = play(closing(make_env("CartPole-v1", 5, 1, **options)))
        env = closing(make_env("CartPole-v1", 5, 1, workers=2, **options))
        assert equal(play(env), alone) and env.origin == options.get("prefer", "native")


def test_state_goes_on_with_another_number_of_workers(closing):
    """Saved in one, loaded by two, saved again and loaded by one process: the same bits."""
    first, second = closing(made()), closing(made(workers=3))
    for kind in ("walk", "native"):
        if kind == "native":
            first, second = (
                closing(make_env("CartPole-v1", 5, workers=2)),
                closing(make_env("CartPole-v1", 5, workers=3)),
            )
        alone = closing(made(workers=0) if kind == "walk" else make_env("CartPole-v1", 5))
        play(first), play(alone)
        state = first.state()
        assert equal(state, alone.state())
        assert equal(second.load_state(state), alone.load_state(state))
        actions = np.zeros(5, np.int64)
        for _ in range(12):
            assert equal(copied(second.step(actions))[:7], copied(alone.step(actions))[:7])
        assert equal(second.state(), alone.state())


def test_states_are_split_by_rows():
    state = {
        "length": np.array([2, 0, 3]),
        "actions": np.arange(5),
        "seed": np.array(7),
        "seen": np.arange(6).reshape(3, 2),
    }
    parts = _split(state, [slice(0, 1), slice(1, 3)])
    assert (
        parts[0]["actions"].tolist() == [0, 1] and parts[1]["actions"].tolist() == [2, 3, 4] and parts[1]["seed"] == 7
    )
    assert equal(_joined(parts), state)


def test_check_env_holds_them():
    def build(num_envs, seed):
        return make_env("CartPole-v1", num_envs, seed, workers=min(2, num_envs), prefer="gymnasium")

    check_env(build(3, 0))


def killed(env, number):
    worker = env.processes_of()[number]
    os.kill(worker.pid, signal.SIGKILL)
    return worker.rows


def test_a_killed_worker_loses_its_episodes_and_no_others(closing):
    env, alone = closing(made()), closing(made(workers=0))
    play(env, 7), play(alone, 7)
    action = np.ones(5, np.int64)
    stood = copied(env.step(action))[0]
    alone.step(action)
    killed(env, 0)
    time.sleep(0.05)
    step, other = env.step(action), alone.step(action)
    assert (
        step.valid.tolist() == [False] * 3 + [True] * 2 and step.truncated[:3].all() and not step.terminated[:3].any()
    )
    assert (step.reward[:3] == 0).all()
    for key in ("x", "n"):
        assert np.array_equal(step.observation[key][:3], stood[key][:3])
        assert np.array_equal(step.next_observation[key][:3], stood[key][:3])
        assert np.array_equal(step.observation[key][3:], other.observation[key][3:])
    until = time.monotonic() + 30
    while (step := env.step(action)).valid is not None:
        assert time.monotonic() < until and not step.truncated[:3].any()
    assert env.restarts == 1


def test_an_episode_that_is_lost_between_two_steps_is_told_by_the_next(closing):
    """Also where the worker is back before that, because its state was asked for."""
    env, ones = closing(made()), np.ones(5, np.int64)
    play(env, 7)
    stood = copied(env.step(ones))[0]
    killed(env, 0)
    assert env.state() is None and env.restarts == 1
    step = env.step(ones)
    assert step.valid.tolist() == [False] * 3 + [True] * 2
    assert step.truncated[:3].all() and not step.terminated[:3].any() and not step.reward[:3].any()
    assert np.array_equal(step.next_observation["x"][:3], stood["x"][:3])
    assert (step.observation["n"][:3] == 0).all()  # where another one begins
    assert env.state() is not None and env.step(ones).valid is None
    killed(env, 1)
    env.state()
    assert env.reset(4)["n"].tolist() == [0] * 5 and env.step(ones).valid is None  # nothing was under way


def test_workers_that_die_while_another_one_is_waited_for(closing):
    env = closing(made(workers=3))
    env.reset(3)

    def kill():
        while env.restarts == 0:
            time.sleep(0.001)
        killed(env, 1), killed(env, 2)

    killer = threading.Thread(target=kill)
    killer.start()
    killed(env, 0)
    assert env.state() is None and env.restarts == 3
    killer.join()
    assert not env.step(np.ones(5, np.int64)).valid.any() and env.step(np.ones(5, np.int64)).valid is None


def test_streams_of_a_new_worker_begin_with_the_next_episode(closing):
    """Where the 3rd episode was lost, the next one is the 4th, as if nothing had happened."""
    env, alone = closing(made(num_envs=2, workers=1)), closing(made(num_envs=2, workers=0))
    env.reset(3), alone.reset(3)
    for _ in range(2):
        env.restart(np.ones(2, bool)), alone.restart(np.ones(2, bool))
    killed(env, 0)
    env.step(np.zeros(2, np.int64))  # waits, as nobody else steps
    fresh = alone.restart(np.ones(2, bool))
    assert equal(copied(env.step(np.zeros(2, np.int64)))[:7], copied(alone.step(np.zeros(2, np.int64)))[:7])
    assert fresh["n"].tolist() == [0, 0]


def test_a_worker_that_dies_too_often(closing):
    env = closing(made(EnvKind(partial(Walk, "exit")), num_envs=2, workers=1, max_restarts=2))
    env.reset(0)
    with pytest.raises(EnvError, match="worker 0, which steps environments 0 to 1 of .*, died 3 times within ten minutes, the last time it ended with exit code 7"):  # fmt: skip  # noqa: E501
        for _ in range(200):
            env.step(np.zeros(2, np.int64))


def test_a_hanging_environment_is_found_and_its_stack_is_logged(closing, caplog):
    env = closing(made(EnvKind(partial(Walk, "hang")), num_envs=2, workers=1, timeout=0.5, max_restarts=0))
    env.reset(0)
    with pytest.raises(EnvError, match="did not answer within 0.5 seconds"):
        for _ in range(40):
            env.step(np.zeros(2, np.int64))
    assert "working.py" in caplog.text and " in fail" in caplog.text


@pytest.mark.parametrize(("fault", "said"), [("value", "ValueError: boom"), ("system", "SystemExit: 3"), ("unpicklable", "Unpicklable: this one does not travel")])  # fmt: skip  # noqa: E501
def test_an_error_inside_is_the_parents(closing, fault, said):
    env = closing(made(EnvKind(partial(Walk, fault)), num_envs=3, workers=3))
    env.first = 10
    env.reset(0)
    with pytest.raises(EnvError, match=f"Walk.*environment 1[0-2]: step raised {said}") as error:
        for _ in range(40):
            env.step(np.zeros(3, np.int64))
    assert error.value.row in (0, 1, 2) and "in fail" in error.value.__notes__[0]


def test_an_error_inside_may_cost_the_episode_only(closing):
    env = closing(made(EnvKind(partial(Walk, "value")), num_envs=4, workers=2, on_error="restart"))
    env.reset(0)
    lost = 0
    for _ in range(60):
        step = env.step(np.zeros(4, np.int64))
        lost += 0 if step.valid is None else int((step.truncated & ~step.valid).sum())
    assert env.restarts >= 1 and lost >= 2


def test_what_cannot_be(closing):
    with pytest.raises(BadInput, match="workers = 9 for num_envs = 8: each worker steps one environment at least"):
        make_env("CartPole-v1", 8, workers=9)
    with pytest.raises(BadInput, match="worker processes step environments on the CPU"):
        make_env("CartPole-v1", 8, device="meta", workers=2)
    lock = threading.Lock()
    with pytest.raises(BadInput, match="cannot be handed to them"):
        EnvKind(lambda: Walk(lock)).make(2, processes=Processes(1))
    with pytest.raises(EnvError, match="nobody can make this"):
        EnvKind(partial(made_elsewhere, os.getpid())).make(2, processes=Processes(1))


def made_elsewhere(pid):
    if os.getpid() != pid:
        raise EnvError("nobody can make this")
    return Walk()


def test_a_lambda_travels(closing):
    at = 4
    env = closing(EnvKind(lambda: Walk(at=at)).make(2, processes=Processes(1)))
    assert env.reset(0)["n"].tolist() == [0, 0]


def test_nothing_is_left_behind():
    gc.collect()
    before = sorted(os.listdir("/proc/self/fd")), sorted(os.listdir("/dev/shm"))
    env = made()
    pids = [each.pid for each in env.processes_of()]
    assert [each.state for each in env.processes_of()] == [READY, READY]
    env.close(), env.close()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    del env
    gc.collect()
    assert (sorted(os.listdir("/proc/self/fd")), sorted(os.listdir("/dev/shm"))) == before


SCRIPT = """
import torch, os, sys, time
from whorl.envs.make import make_env
env = make_env("CartPole-v1", 4, workers=2, prefer="gymnasium")
env.reset(0)
print(*[each.pid for each in env.processes_of()], flush=True)
time.sleep(100)
"""


def test_workers_are_light_and_die_with_their_parent():
    """The script imports torch at its top and has no `if __name__ == "__main__"`."""
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True) as process:
        pids = [int(word) for word in process.stdout.readline().split()]
        for pid in pids:
            maps, status = (Path(f"/proc/{pid}/{name}").read_text() for name in ("maps", "status"))
            assert "libtorch" not in maps and "llvmlite" not in maps
            assert int(status.split("VmRSS:")[1].split()[0]) < 80 * 1024
            os.kill(pid, signal.SIGINT), os.kill(pid, signal.SIGTERM)  # which they do not hear
        assert all(os.path.exists(f"/proc/{pid}") for pid in pids)
        process.kill()
        process.wait()
    until = time.monotonic() + 3
    while any(map(alive, pids)):
        assert time.monotonic() < until
        time.sleep(0.01)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
