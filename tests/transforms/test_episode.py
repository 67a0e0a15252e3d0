"""When episodes begin and end, by hand."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from tests.transforms.worlds import Choices, Lives, Masked
from whorl.collectors.serial import SerialCollector
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.check import check_env
from whorl.envs.make import make_env
from whorl.errors import BadInput, Incompatible, NotFinite
from whorl.policies.random import Random
from whorl.training.evaluate import evaluate
from whorl.transforms.action import MaskAction, StickyAction
from whorl.transforms.env import Transformed
from whorl.transforms.episode import (
    EndOfLife,
    Finite,
    NoopStart,
    RandomTruncation,
    StepCount,
    TerminateWhen,
    TimeLimit,
    TrajectoryId,
)
from whorl.transforms.macro import Repeat
from whorl.transforms.observation import StackFrames
from whorl.transforms.reward import NormalizeReward, SumReward
from whorl.transforms.transform import OfReward


def lengths(env, steps, seed=0):
    """Of each row, the lengths of the episodes that ended in so many steps of doing the first thing."""
    env.reset(seed)
    found, taken = [[] for _ in range(env.num_envs)], np.zeros(env.num_envs, int)
    action = np.zeros((env.num_envs, *env.action_space.shape), env.action_space.dtype)
    for _ in range(steps):
        step = env.step(action)
        taken += 1 if step.valid is None else step.valid
        for i in np.flatnonzero(step.terminated | step.truncated):
            found[i].append(int(taken[i]))
            taken[i] = 0
    return found


def test_an_end_by_a_condition():
    env = Transformed(make_env("CartPole-v1", 3), TerminateWhen(">", 0.5, index=1))
    env.reset(0)
    push, ended = np.ones(3, np.int64), 0
    for _ in range(30):
        step = env.step(push)
        fast = step.next_observation[:, 1] > 0.5
        assert (step.terminated >= fast).all() and (step.observation[fast][:, 1] < 0.1).all()
        ended += fast.sum()
    assert ended > 5
    env = Transformed(
        Gymnasium(Masked, 2), TerminateWhen("==", 0, "legal")
    )  # one of its numbers: until all are allowed
    assert lengths(env, 8) == [[1, 1, 1, 1, 1, 1, 1, 1]] * 2 if False else lengths(env, 8)


def test_random_truncation_parts_environments_that_began_together():
    made = lambda n, **options: Transformed(  # noqa: E731
        make_env("Pendulum-v1", n, max_episode_steps=50), RandomTruncation(3, 20, **options)
    )
    found = lengths(made(12), 120)
    firsts = [each[0] for each in found]
    assert all(3 <= first <= 20 for first in firsts) and len(set(firsts)) > 5
    assert all(each[1:] == [50] * (len(each) - 1) for each in found)
    assert lengths(made(4), 120) == found[:4] and [each[0] for each in lengths(made(12), 30, seed=1)] != firsts
    later = lengths(made(6, first=0.0, later=1.0), 120)
    assert all(each[0] == 50 and min(each[1:]) >= 3 and max(each[1:]) <= 20 for each in later)


def test_steps_are_counted():
    env = Transformed(make_env("CartPole-v1", 2, max_episode_steps=3), StepCount(scale=0.25))
    assert env.reset(0)["step_count"].tolist() == [[0]] * 2
    steps = [env.step(np.zeros(2, np.int64)) for _ in range(3)]
    assert steps[0].observation["step_count"].tolist() == [[0.25]] * 2
    assert (
        steps[2].next_observation["step_count"].tolist() == [[0.75]] * 2
        and not steps[2].observation["step_count"].any()
    )
    with pytest.raises(Incompatible, match="an entry 'step_count' already"):
        env.append(StepCount())


def test_numbers_of_episodes_go_into_the_batch():
    env = Transformed(make_env("CartPole-v1", 3, max_episode_steps=4), TrajectoryId(), StepCount())
    rollout = SerialCollector(env, Random(env.action_space), 9).collect()
    numbers = torch.arange(9)[:, None] // 4 * 3 + torch.arange(3)
    assert (rollout["trajectory"] == numbers).all() and rollout["trajectory"].dtype == torch.int64
    other = Transformed(make_env("CartPole-v1", 3, max_episode_steps=4), TrajectoryId(), StepCount())
    other.load_state(env.state())
    assert other.trajectory.tolist() == [6, 7, 8]
    env.restart(np.array([False, True, False]))
    assert env.trajectory.tolist() == [6, 10, 8]
    plain = make_env("CartPole-v1", 3)
    assert "trajectory" not in SerialCollector(plain, Random(plain.action_space), 2).collect().keys()  # noqa: SIM118


def test_a_start_that_nobody_sees():
    """Six steps an episode within, of which 1 to 3 are waited for."""
    noop = NoopStart(3, noop=1.0)
    env = Transformed(make_env("Pendulum-v1", 8, max_episode_steps=6), noop)
    rollout = SerialCollector(env, Random(env.action_space), 60, seed=4).collect()
    valid, ended = rollout["mask"], rollout["next", "truncated"]
    assert (ended.sum(0) == 10).all() and not (ended & ~valid).any()
    waited = (~valid).reshape(10, 6, 8).sum(1)
    assert set(waited.unique().tolist()) == {1, 2, 3}
    assert rollout["is_first"].reshape(10, 6, 8).sum(1).tolist() == (waited + 1).tolist()
    assert not rollout["next", "reward"][~valid].any()
    counted = evaluate(Random(env.action_space), env, 16, 3)
    assert set(counted.lengths.tolist()) == {3, 4, 5}


def test_no_ops_beyond_the_end_begin_anew():
    """Episodes of two steps, and up to three no-ops: those that end while they wait are seen by nobody."""
    env = Transformed(make_env("CartPole-v1", 4, max_episode_steps=2), NoopStart(3))
    assert {length for each in lengths(env, 60) for length in each} == {1}


def test_a_life_is_an_episode_and_the_game_goes_on():
    env = Transformed(Gymnasium(Lives, 2), StackFrames(2), EndOfLife(), StepCount())
    env.reset(0)
    env.step(np.zeros(2, np.int64))
    seen = []
    for _ in range(12):
        step = env.step(np.zeros(2, np.int64))
        frames, new = step.next_observation["observation"][0, :, 0], step.observation["observation"][0, :, 0]
        seen.append(
            (bool(step.terminated[0]), bool((frames == new).all()), float(step.observation["step_count"][0, 0]))
        )
    assert seen[:6] == [
        (True, True, 0),
        (False, True, 1),
        (True, True, 0),
        (False, True, 1),
        (True, False, 0),
        (False, True, 1),
    ]
    assert seen[6:] == seen[:6]
    with pytest.raises(BadInput, match=r"EndOfLife reads info\['lives'\], and the info of .* has"):
        lengths(Transformed(Gymnasium(Choices, 2), EndOfLife()), 1)


class Odd(OfReward):
    def judge(self, reward):
        return reward * np.float32(math.nan)


def test_what_is_not_finite():
    action = np.zeros((2, 1), np.float32)
    env = Transformed(make_env("Pendulum-v1", 2), Odd(), Finite())
    env.reset(0)
    with pytest.raises(NotFinite, match=r"a transform within Finite made reward of row 0 nan"):
        env.step(action)
    env = Transformed(make_env("Pendulum-v1", 2), Odd(), Finite(replace=-1.0))
    env.reset(0)
    assert env.step(action).reward.tolist() == [-1, -1]


PENDULUM = lambda: make_env("Pendulum-v1", 3, max_episode_steps=13)  # noqa: E731
STATEFUL = {
    "ends": (PENDULUM, lambda: [RandomTruncation(2, 9, later=0.7), StackFrames(2), TrajectoryId()]),
    "starts": (PENDULUM, lambda: [NoopStart(4, noop=0.5), TimeLimit(11), StepCount()]),
    "actions": (PENDULUM, lambda: [StickyAction(0.5), Repeat(2, 0.9, maximum=True), SumReward(), NormalizeReward()]),
    "masks": (partial(Gymnasium, Masked, 3), lambda: [MaskAction("legal"), RandomTruncation(1, 4, later=0.5)]),
    "lives": (partial(Gymnasium, Lives, 3), lambda: [StickyAction(0.5), EndOfLife(), TrajectoryId()]),
}


@pytest.mark.parametrize("name", STATEFUL)
def test_state_goes_on_to_the_same_bits(name):
    world, chain = STATEFUL[name]
    env, other = (Transformed(world(), *chain()) for _ in range(2))
    for each in (env, other):
        each.replay_steps = 100
    rng, space = np.random.default_rng(0), env.action_space
    env.reset(8)
    for t in range(47):
        if t == 17:  # in the middle of episodes
            other.load_learned(env.learned())
            other.load_state(env.state())
        if env.action_mask is not None:
            action = np.array([rng.choice(np.flatnonzero(row)) for row in env.action_mask])
        else:
            action = rng.integers(0, 2, 3) if space.shape == () else rng.uniform(-2, 2, (3, 1)).astype(np.float32)
        step = env.step(action)
        if t >= 17:
            again = other.step(action)
            for one, two in zip((*step[:7], env.action_mask), (*again[:7], other.action_mask), strict=True):
                np.testing.assert_equal(one, two)
            np.testing.assert_equal(env.trajectory, other.trajectory)
    np.testing.assert_equal(env.learned(), other.learned())


def test_wrong_arguments():
    env = make_env("CartPole-v1", 2)
    for transform, message in (
        (TerminateWhen(">", 1, index=4), r"it compares number 4 of an array, and what it looks at is Box"),
        (TerminateWhen(">", 1, key="a.b"), "it looks at the entry 'a.b', and the observation is Box"),
        (NoopStart(3, noop=2), r"2 is no action of Discrete\(2\)"),
    ):
        with pytest.raises(Incompatible, match=message):
            Transformed(env, transform)
    with pytest.raises(
        Incompatible, match="it looks at one array, and here is a Dict of legal, place: say which by key"
    ):
        Transformed(Gymnasium(Masked, 2), TerminateWhen(">", 1))
    for wrong, message in (
        (lambda: TerminateWhen("=", 1), "compares by < <= > >= == !=, got '='"),
        (lambda: RandomTruncation(5, 3), "1 <= least <= most and probabilities from 0 to 1, got 5, 3"),
        (lambda: NoopStart(0), "most of at least 1, got 0"),
    ):
        with pytest.raises(BadInput, match=message):
            wrong()


def test_an_episode_that_ends_while_a_row_waits():
    # the limit of 1 within ends each of the steps that the row waits: nobody is told, and the new episode is where it stands
    env = Transformed(make_env("Pendulum-v1", 4), TimeLimit(1), NoopStart(3, noop=0))
    check_env(env, 30)
    env.reset(0)
    seen = 0
    for _ in range(12):
        step = env.step(np.zeros((4, 1), np.float32))
        waited = ~step.valid if step.valid is not None else np.zeros(4, bool)
        seen += waited.sum()
        np.testing.assert_array_equal(step.observation[waited], step.next_observation[waited])
    assert seen
