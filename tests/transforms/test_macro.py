"""Several steps as one: what is added up, where it is cut, and rows that stand."""

import numpy as np
import pytest

from tests.transforms.worlds import Choices, Masked
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.make import make_env
from whorl.errors import BadInput, Incompatible
from whorl.policies.random import Random
from whorl.training.evaluate import evaluate
from whorl.transforms.env import Transformed
from whorl.transforms.episode import TimeLimit
from whorl.transforms.macro import MultiAction, Repeat
from whorl.transforms.reward import ClipReward

N = 5


class Unmasked(Choices):
    def info(self):
        return {}


def test_rows_that_end_within_stand_for_the_rest():
    """CartPole by hand: every row by itself, until its episode ends."""
    env, world = Transformed(make_env("CartPole-v1", N), Repeat(4)), make_env("CartPole-v1", N)
    np.testing.assert_array_equal(env.reset(3), world.reset(3))
    cut = 0
    for action in np.random.default_rng(0).integers(0, 2, (60, N)):
        step, successor, reward = env.step(action), np.zeros((N, 4), np.float32), np.zeros(N)
        for i in range(N):
            for k in range(4):
                one = world.step(action, np.arange(N) == i)
                reward[i] += one.reward[i]
                if one.terminated[i]:
                    cut += k < 3
                    break
            assert step.terminated[i] == one.terminated[i]
            successor[i] = one.next_observation[i]
        np.testing.assert_array_equal(step.reward, reward)
        np.testing.assert_array_equal(step.next_observation, successor)
        np.testing.assert_array_equal(step.observation, one.observation)
    assert cut > 10


def test_the_maximum_of_the_last_two_frames():
    """Where an episode ends in the first of four steps, there is one frame, and no maximum with those of the step before."""
    env, world = (
        Transformed(make_env("Pendulum-v1", 2, max_episode_steps=5), Repeat(4, maximum=True)),
        make_env("Pendulum-v1", 2, max_episode_steps=5),
    )
    env.reset(1), world.reset(1)
    action = np.ones((2, 1), np.float32)
    frames = [world.step(action).next_observation.copy() for _ in range(5)]
    first = env.step(action)
    np.testing.assert_array_equal(first.observation, np.maximum(frames[2], frames[3]))
    second = env.step(action)
    assert second.truncated.all()
    np.testing.assert_array_equal(second.next_observation, frames[4])


def test_actions_one_after_the_other():
    """12 + 0.5 * 1 + 0.25 * 10, and after two steps of an episode only the first two."""
    env = Transformed(Gymnasium(Unmasked, 2, max_episode_steps=5), MultiAction(3, discount=0.5))
    assert env.action_space.nvec.tolist() == [2, 3] * 3 and env.discounts and env.max_episode_steps == 2
    start = env.reset(0).copy()
    action = np.array([[1, 2, 0, 1, 1, 0]] * 2)
    step = env.step(action)
    assert step.reward.tolist() == [15.0] * 2 and step.discount.tolist() == [0.125] * 2
    assert env.raw_reward.tolist() == [23.0] * 2 and (step.observation == start + 3).all()
    step = env.step(action)
    assert step.reward.tolist() == [12.5] * 2 and step.discount.tolist() == [0.25] * 2 and step.truncated.all()
    assert env.raw_reward.tolist() == [13.0] * 2 and (step.next_observation == start + 5).all()


def test_a_box_and_a_choice_several_times():
    env = Transformed(make_env("Pendulum-v1", 2), MultiAction(3))
    assert env.action_space.shape == (3,) and not env.discounts
    world = make_env("Pendulum-v1", 2)
    env.reset(0), world.reset(0)
    action = np.float32([[0.5, -2, 1], [1, 2, 0]])
    one = env.step(action)
    paid = [world.step(np.ascontiguousarray(action[:, [k]])).reward.copy() for k in range(3)]
    np.testing.assert_array_equal(one.reward, paid[0] + paid[1] + paid[2])
    assert Transformed(make_env("CartPole-v1", 2), MultiAction(4)).action_space.nvec.tolist() == [2] * 4


def test_discounts_within_go_first():
    env = Transformed(Gymnasium(Unmasked, 2), Repeat(2, discount=0.5), Repeat(2))
    env.reset(0)
    step = env.step(np.array([[1, 0]] * 2))
    assert step.reward.tolist() == [15 + 0.25 * 15] * 2 and step.discount.tolist() == [0.0625] * 2
    assert env.raw_reward.tolist() == [40] * 2


@pytest.mark.parametrize("transform", [Repeat(3, maximum=True), Repeat(2, discount=0.9), MultiAction(2)], ids=repr)
def test_two_halves_are_the_whole(transform):
    chain = lambda: (type(transform)(**transform.arguments()), TimeLimit(4))  # noqa: E731
    whole, parts = (Transformed(make_env("Pendulum-v1", N, max_episode_steps=7), *chain()) for _ in range(2))
    whole.reset(1), parts.reset(1)
    rng = np.random.default_rng(0)
    for _ in range(30):
        rows = rng.random(N) < 0.5
        action = rng.uniform(-2, 2, (N, *whole.action_space.shape)).astype(np.float32)
        one, first = whole.step(action), parts.step(action, rows)
        first = [None if x is None else x.copy() for x in first[:7]]
        second = parts.step(action, ~rows)
        np.testing.assert_array_equal(one.observation, second.observation)
        for k in (1, 2, 3, 4, 6):
            if one[k] is not None:
                np.testing.assert_array_equal(one[k][rows], first[k][rows])
                np.testing.assert_array_equal(one[k][~rows], second[k][~rows])


def test_returns_are_those_of_the_environment():
    """Five rewards of 10 an episode, clipped, discounted and repeated."""
    env = Transformed(Gymnasium(Unmasked, 2, max_episode_steps=5), ClipReward(), Repeat(3, discount=0.5))
    policy = Random(env.action_space)
    plain = evaluate(policy, Transformed(Gymnasium(Unmasked, 2, max_episode_steps=5), Repeat(3)), 4, 0)
    assert evaluate(policy, env, 4, 0).returns.tolist() == plain.returns.tolist()
    assert plain.lengths.tolist() == [2] * 4


def test_what_does_not_fit():
    with pytest.raises(Incompatible, match=r"MultiAction decides actions whose masks are not known"):
        Transformed(Gymnasium(Choices, 2), MultiAction(2)).reset()
    with pytest.raises(Incompatible, match=r"the maximum of two frames is one of arrays, and the observation is Dict"):
        Transformed(Gymnasium(Masked, 2), Repeat(2, maximum=True))
    with pytest.raises(BadInput, match="Repeat needs a count of at least 1, got 0"):
        Repeat(0)
    with pytest.raises(BadInput, match=r"MultiAction needs a discount from 0 to 1, got 1.5"):
        MultiAction(2, 1.5)
