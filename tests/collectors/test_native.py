"""The compiled collector: its rollouts are the serial collector's but for rounding; what it is not for; resume to the same bits."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

from whorl.agents.ppo import PPO, PPOConfig
from whorl.batch import Batch
from whorl.collectors.native import NativeCollector, RowCollector, by_rows
from whorl.collectors.serial import SerialCollector
from whorl.collectors.tally import Tally
from whorl.envs.make import make_env as make
from whorl.policies.actors.native import RowPolicy
from whorl.training.build import build

CASES = {
    "discrete": ("CartPole-v1", {"hidden": (24, 16)}),
    "normalized": ("CartPole-v1", {"normalize_observation": True, "activation": "relu"}),
    "box": ("Pendulum-v1", {}),
    "std of the state": ("Pendulum-v1", {"std": "dependent", "hidden": (7,)}),
}


def pair(
    env: str, fields: dict, num_envs: int = 3, steps: int = 40, whole: bool = False
) -> tuple[SerialCollector, NativeCollector]:
    world = make(env, num_envs, seed=4)
    torch.manual_seed(1)
    agent = PPO.build(world.observation_space, world.action_space, PPOConfig(**fields))
    policy = agent.policy
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.1 * torch.randn_like(p))
        if fields.get("normalize_observation"):
            policy.normalizer.merge(policy.normalizer.moments(torch.randn(100, 4) + 0.3))
    other = make(env, num_envs, seed=4)
    return tuple(kind(w, policy, steps, 2, whole) for kind, w in ((SerialCollector, world), (NativeCollector, other)))


def same(a: Batch, b: Batch, tolerance: float) -> None:
    assert set(a.keys(True, True)) == set(b.keys(True, True))
    for key in a.keys(True, True):
        assert a[key].dtype == b[key].dtype and a[key].shape == b[key].shape
        assert torch.allclose(a[key].double(), b[key].double(), rtol=tolerance, atol=tolerance), key


@pytest.mark.parametrize("case", CASES)
def test_equal_to_serial(case: str) -> None:
    serial, native = pair(*CASES[case])
    for _ in range(6):
        same(serial.collect(), native.collect(), 2e-4)
        assert [e[:2] + e[3:] for e in serial.episodes] == [e[:2] + e[3:] for e in native.episodes]
        with torch.no_grad():  # it sees what an optimizer writes in place
            serial.policy.head.weight.mul_(1.1)
    assert serial.finished == native.finished > 0 or case != "discrete"


@pytest.mark.parametrize("case", CASES)
def test_one_row_after_the_other_is_the_same_to_the_bit(case: str) -> None:
    """What steps an environment of anybody's, and a native world: so a run over HTTP has the bits of one in process."""
    _, native = pair(*CASES[case])
    serial, _ = pair(*CASES[case])
    rows = RowCollector(serial.env, native.policy, 40, seed=2)
    for _ in range(4):
        same(rows.collect(), native.collect(), 0)


def test_masked_actions_are_never_taken() -> None:
    policy = build("ppo", "CartPole-v1", num_envs=2, update="eager").agent.policy
    rows, serial = RowPolicy(policy), policy.actor(2)
    rows.refresh()
    x, first = np.ones((2, 4), np.float32), np.ones(2, bool)
    noise, allowed = np.zeros((2, 2), np.float32), np.array([[False, True], [True, False]])
    a, b = (dict(act(x, None, first, noise, allowed)[0]) for act in (rows.act, serial))
    assert a["action"].tolist() == b["action"].tolist() == [1, 0]
    assert np.allclose(a["log_prob"], b["log_prob"], atol=1e-6)


@pytest.mark.parametrize("case", ["normalized", "box"])
@pytest.mark.parametrize("steps", [5, 90])
def test_whole_episodes(case: str, steps: int) -> None:
    """Rows after an environment's last episode are masked; the memory grows as far as it must."""
    serial, native = pair(*CASES[case], steps=steps, whole=True)
    for _ in range(3):
        a, b = serial.collect(), native.collect()
        assert len(a) > steps or case != "box"
        same(a, b, 2e-3)
        assert [e[:2] + e[3:] for e in serial.episodes] == [e[:2] + e[3:] for e in native.episodes]


def test_resumed() -> None:
    _, whole = pair(*CASES["box"])
    _, first = pair(*CASES["box"])
    _, second = pair(*CASES["box"])
    for _ in range(2):
        whole.collect()
        first.collect()
    second.collect()  # some other state
    assert second.load_state(*first.state())
    for _ in range(2):
        same(whole.collect(), second.collect(), 0)


def test_what_it_is_for() -> None:
    stochastic = build("ppo", "CartPole-v1", num_envs=2, update="eager").agent.policy
    squashed = build("ppo", "Pendulum-v1", PPOConfig(squash=True), num_envs=2).agent.policy
    assert by_rows(make("CartPole-v1", 64), stochastic)
    assert not by_rows(make("CartPole-v1", 65), stochastic)  # products of matrices are faster
    assert not by_rows(make("Pendulum-v1", 2), squashed)
    assert not by_rows(make("CartPole-v1", 2), build("dqn", "CartPole-v1", num_envs=2).agent.policy)


@pytest.mark.parametrize(("update", "kind"), [("auto", NativeCollector), ("eager", SerialCollector)])
def test_eager_keeps_the_serial_one(update: str, kind: type) -> None:
    assert type(build("ppo", "CartPole-v1", num_envs=2, update=update).collector) is kind


def test_info_is_read_step_by_step() -> None:
    serial, native = pair(*CASES["discrete"])
    for collector in (serial, native):
        collector.recorder.tally = Tally({"discounted_return": "last"}, 3, 0.9)
    same(serial.collect(), native.collect(), 1e-5)
    assert np.allclose([e.info for e in serial.episodes], [e.info for e in native.episodes])


@pytest.mark.parametrize("case", ["discrete", "box"])
def test_the_next_process_finds_the_loop_on_disk(case):
    """numba knows it by what it is made around, pickled, and one of its own functions is pickled with the number of its process."""
    loop = pair(*CASES[case])[1]._run
    around = inspect.getclosurevars(loop.py_func).nonlocals
    assert around and all(map(inspect.isfunction, around.values())), around
