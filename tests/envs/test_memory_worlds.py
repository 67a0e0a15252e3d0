"""Worlds that need memory: their rules by hand, and what the best policy with and without memory can get."""

import numpy as np

from whorl.envs.check import check_env
from whorl.envs.make import make_env
from whorl.envs.native.memory import BACK, DECK, LENGTH


def test_t_maze():
    env = make_env("TMaze20-v0", 64, seed=0)
    first = env.reset().copy()
    cue = first[:, 0]
    assert set(cue) == {-1.0, 1.0} and (first[:, 1] == 0).all() and (first[:, 2] == 1).all()
    assert (env.step(np.full(64, 1)).reward == np.float32(-0.1)).all()  # a wall
    for k in range(LENGTH):
        step = env.step(np.zeros(64, np.int64))
        assert not step.reward.any() and not step.terminated.any()
        assert (step.observation[:, 0] == 0).all() and (step.observation[:, 1] == (k == LENGTH - 1)).all()
    step = env.step(np.where(cue > 0, 1, 2))
    assert step.terminated.all() and (step.reward == 1).all()
    cue = step.observation[:, 0].copy()
    for _ in range(LENGTH):
        env.step(np.zeros(64, np.int64))
    assert (env.step(np.where(cue > 0, 2, 1)).reward == -1).all()


def test_repeat_previous():
    env = make_env("RepeatPrevious-v0", 32, seed=0)
    cards = [env.reset().argmax(1)]
    total, same = np.zeros(32), np.zeros(32)
    for t in range(DECK):
        answer = cards[t - BACK] if t >= BACK else np.zeros(32, np.int64)
        step = env.step(answer)
        assert step.terminated.all() == (t == DECK - 1)
        total += step.reward
        same += (cards[-1] == answer) & (t >= BACK)
        cards.append(step.next_observation.argmax(1))
    np.testing.assert_allclose(total, 1.0, atol=1e-5)
    assert 0.15 < same.mean() / (DECK - BACK) < 0.35  # the card that is shown is no answer
    assert np.bincount(np.concatenate(cards), minlength=4).min() > 300


def test_a_pole_without_velocities():
    whole, shown = make_env("CartPole-v1", 4, seed=1), make_env("CartPoleP-v1", 4, seed=1)
    np.testing.assert_array_equal(whole.reset()[:, ::2], shown.reset())
    for _ in range(60):
        action = np.random.default_rng(0).integers(0, 2, 4)
        one, other = whole.step(action), shown.step(action)
        np.testing.assert_array_equal(one.next_observation[:, ::2], other.next_observation)
        np.testing.assert_array_equal(one.terminated, other.terminated)


def test_a_pendulum_without_its_speed():
    whole, shown = make_env("Pendulum-v1", 4, seed=1), make_env("PendulumP-v1", 4, seed=1)
    np.testing.assert_array_equal(whole.reset()[:, :2], shown.reset())
    for _ in range(60):
        action = np.random.default_rng(0).uniform(-2, 2, (4, 1)).astype(np.float32)
        one, other = whole.step(action), shown.step(action)
        np.testing.assert_array_equal(one.next_observation[:, :2], other.next_observation)
        np.testing.assert_array_equal(one.reward, other.reward)


def test_they_keep_the_contract():
    for id in ("TMaze20-v0", "RepeatPrevious-v0", "CartPoleP-v1", "PendulumP-v1"):
        check_env(make_env(id, 3))
