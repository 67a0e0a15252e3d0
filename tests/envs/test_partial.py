"""Single rows of a native world restart and step while the others stand, and nothing that was handed out changes."""

from functools import partial

import numpy as np
import pytest

from whorl.envs import native
from whorl.envs.make import make_env
from whorl.envs.native.device import DeviceWorld

N, ROWS = 5, np.array([True, False, True, False, False])


def actions(env, steps=40):
    rng = np.random.default_rng(0)
    space = env.action_space
    for _ in range(steps):
        if space.shape:
            yield rng.uniform(-1, 1, (env.num_envs, *space.shape)).astype(space.dtype)
        else:
            yield rng.integers(0, space.n, env.num_envs)


def copied(tree):
    return {key: copied(x) for key, x in tree.items()} if isinstance(tree, dict) else np.array(tree)


def flat(tree):
    return (
        np.concatenate([x.reshape(N, -1) for x in tree.values()], 1) if isinstance(tree, dict) else tree.reshape(N, -1)
    )


@pytest.mark.parametrize("id", native.WORLDS)
def test_rows_restart_and_the_others_stand(id):
    env, other = make_env(id, N, seed=3), make_env(id, N, seed=3)
    env.reset(), other.reset()
    for action in actions(env, 7):
        step = env.step(action)
    episode = env.state()["episode"]
    last, standing = copied(step.next_observation), copied(step.observation)
    here = env.restart(ROWS)
    assert (flat(step.next_observation) == flat(last)).all()  # the true successors survive
    assert (flat(here)[~ROWS] == flat(standing)[~ROWS]).all()
    assert (env.state()["episode"] == episode + ROWS).all()
    for i in np.flatnonzero(ROWS):  # episode k is the same however it was begun
        while other.state()["episode"][i] < env.state()["episode"][i]:
            fresh = copied(other.reset())
        if (other.state()["episode"] == env.state()["episode"])[i]:
            assert (flat(fresh)[i] == flat(here)[i]).all()


@pytest.mark.parametrize("id", ["CartPole-v1", "Pendulum-v1", "GridWorld-v0", "Acrobot-v1"])
def test_a_world_stepped_in_two_halves_is_the_world_stepped_at_once(id):
    whole, parts = make_env(id, N, seed=1), make_env(id, N, seed=1)
    whole.reset(), parts.reset()
    for action in actions(whole):
        one = whole.step(action)
        first = parts.step(action, ROWS)
        assert (first.valid == ROWS).all() and not first.reward[~ROWS].any() and not first.terminated[~ROWS].any()
        reward, terminated, truncated = first.reward.copy(), first.terminated.copy(), first.truncated.copy()
        successor = flat(copied(first.next_observation))
        second = parts.step(action, ~ROWS)
        assert (flat(second.observation) == flat(one.observation)).all()
        assert (np.where(ROWS, reward, second.reward) == one.reward).all()
        assert (np.where(ROWS, terminated, second.terminated) == one.terminated).all()
        assert (np.where(ROWS, truncated, second.truncated) == one.truncated).all()
        both = np.where(ROWS[:, None], successor, flat(second.next_observation))
        assert (both == flat(one.next_observation)).all()


@pytest.mark.parametrize("id", ["CartPole-v1", "Pendulum-v1"])
def test_the_device_world_does_the_same(id):
    compiled, device = make_env(id, N, seed=2), DeviceWorld(id, N, seed=2, device="cpu")
    compiled.reset(), device.reset()
    for t, action in enumerate(actions(compiled)):
        rows = np.roll(ROWS, t)
        one, other = compiled.step(action, rows), device.step(action, rows)
        np.testing.assert_allclose(one.observation, other.observation.numpy(), atol=1e-5)
        np.testing.assert_allclose(one.reward, other.reward.numpy(), atol=1e-5)
        assert (one.valid == other.valid.numpy()).all()
        if t % 5 == 0:
            np.testing.assert_allclose(compiled.restart(rows), device.restart(rows).numpy(), atol=1e-6)


@pytest.mark.parametrize("make", [make_env, partial(DeviceWorld, device="cpu"), partial(make_env, prefer="gymnasium")])
@pytest.mark.parametrize("replay_steps", [0, 1000])
def test_a_part_plays_what_its_rows_play_in_the_whole(make, replay_steps):
    whole, part = make("CartPole-v1", N, seed=4), make("CartPole-v1", 2, seed=4)
    part.first = 3
    for env in (whole, part):
        env.replay_steps = replay_steps
    np.testing.assert_array_equal(whole.reset()[3:], part.reset())
    for action in actions(whole, 60):
        one, other = whole.step(action), part.step(action[3:])
        for a, b in zip(one[:5], other[:5], strict=True):
            np.testing.assert_array_equal(a[3:], b)
