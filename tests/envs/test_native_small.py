"""The small worlds against the truth that is known about them: probes, random walk, cliff, grid."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from whorl.envs.native import WORLDS, make
from whorl.envs.native.grid_world import ALLOWED, MAP

PROBES = [id for id in WORLDS if id.startswith("Probe")]


def returns(env, discount: float, action) -> tuple[np.ndarray, np.ndarray]:
    """First observations [N, 1] and discounted returns [N] of one episode everywhere, acting by action(observation)."""
    first = np.copy(env.reset())
    observation, total, alive, factor = first, np.zeros(env.num_envs), np.ones(env.num_envs, bool), 1.0
    while alive.any():
        step = env.step(action(observation))
        total += factor * step.reward * alive
        alive &= ~step.terminated
        factor *= discount
        observation = step.observation
    return first, total


@pytest.mark.parametrize("id", PROBES)
def test_the_best_actions_of_a_probe_earn_its_stated_value(id):
    env = make(id, 64, seed=1)
    anything = np.zeros((64, *env.action_space.shape), env.action_space.dtype)

    def best(observation):
        chosen = env.best_action(observation)
        return anything if chosen is None else chosen

    first, earned = returns(env, 0.9, best)
    np.testing.assert_allclose(earned, env.value(first, 0.9), rtol=1e-6)
    seen = {"Observation": {-1.0, 1.0}, "Policy": {-1.0, 1.0}}.get(
        id.removeprefix("Probe").split("-")[0].removesuffix("Continuous")
    )
    assert set(first.ravel()) == (seen or {0.0})


@pytest.mark.parametrize("id", [id for id in PROBES if "Action" in id or "Policy" in id])
def test_every_other_action_of_a_probe_earns_less(id):
    env, rng = make(id, 64, seed=1), np.random.default_rng(0)

    def worse(observation):
        best = env.best_action(observation)
        return 1 - best if best.dtype == np.int64 else best + rng.choice([-0.3, 0.4], best.shape).astype(np.float32)

    first, earned = returns(env, 0.9, worse)
    assert (earned < env.value(first, 0.9) - 0.08).all()


def test_rewards_of_the_probes_by_hand():
    def rewards(id, actions):
        env = make(id, 2, seed=0)
        seen = np.copy(env.reset())
        return seen[:, 0], env.step(np.array(actions)).reward

    np.testing.assert_array_equal(rewards("ProbeAction-v0", [0, 1])[1], [-1, 1])
    for left, right in ((0, 1), (1, 0)):
        seen, reward = rewards("ProbePolicy-v0", [left, right])
        np.testing.assert_array_equal(reward, seen * (2 * np.array([left, right]) - 1))
    np.testing.assert_allclose(rewards("ProbeActionContinuous-v0", [[0.25], [3.0]])[1], [-0.0625, -6.25])  # as given
    seen, reward = rewards("ProbePolicyContinuous-v0", [[0.0], [1.0]])
    np.testing.assert_allclose(reward, -((np.array([0, 1]) - 0.5 * seen) ** 2))


def test_probe_discount_takes_two_steps():
    env = make("ProbeDiscount-v0", 1)
    assert env.reset() == 0
    step = env.step([0])
    assert (step.observation, step.reward, step.terminated) == (1, 0, False)
    step = env.step([0])
    assert (step.next_observation, step.observation, step.reward, step.terminated) == (1, 0, 1, True)


def test_random_walks_end_right_as_often_as_the_true_values_say():
    walks = 2000
    env = make("RandomWalk-v0", 19 * walks, seed=4)
    assert (env.reset() == 9).all()
    state = env.state()
    state["state"][:, 0] = np.repeat(np.arange(19), walks)
    env.load_state(state)
    last, alive = np.zeros(env.num_envs), np.ones(env.num_envs, bool)
    action = np.zeros(env.num_envs, np.int64)
    while alive.any():
        step = env.step(action)
        np.testing.assert_array_equal(abs(step.reward), step.terminated)
        last += step.reward * alive
        alive &= ~step.terminated
    # the standard error of each mean is at most 0.0224
    np.testing.assert_allclose(last.reshape(19, walks).mean(1), env.values, atol=0.09)


def test_cliff_walking_equals_gymnasium_in_all_states_and_actions():
    env, theirs = make("CliffWalking-v1", 48 * 4), gymnasium.make("CliffWalking-v1")
    assert env.max_episode_steps is theirs.spec.max_episode_steps is None
    assert env.observation_space == theirs.observation_space and env.action_space == theirs.action_space
    assert (env.reset(0) == theirs.reset(seed=0)[0]).all()
    cells, actions = np.repeat(np.arange(48), 4), np.tile(np.arange(4), 48)
    env.load_state({**env.state(), "state": cells[:, None]})
    step = env.step(actions)
    for i in range(48 * 4):
        theirs.unwrapped.s = cells[i]
        observation, reward, terminated, truncated, _ = theirs.step(actions[i])
        expected = (observation, reward, terminated, truncated)
        assert (step.next_observation[i], step.reward[i], step.terminated[i], step.truncated[i]) == expected
        assert step.observation[i] == (36 if terminated else observation)


def test_the_mask_of_the_grid_world_allows_exactly_the_moves_that_move():
    floor = [cell for cell in range(24) if MAP[cell // 5][cell % 5] != "#"]
    env = make("GridWorld-v0", len(floor) * 4)
    env.reset(0)
    cells, actions = np.repeat(floor, 4), np.tile(np.arange(4), len(floor))
    observation = env.load_state({**env.state(), "state": cells[:, None]})
    np.testing.assert_array_equal(observation, cells)
    mask = env.action_mask.copy()
    assert mask.shape == (len(cells), 4) and mask.dtype == bool
    assert mask.any(1).all() and not mask.all()
    moved = env.step(actions).next_observation != cells
    np.testing.assert_array_equal(mask[np.arange(len(cells)), actions], moved)
    np.testing.assert_array_equal(mask[cells == 0][0], [False, True, True, False])  # the start corner


def test_masked_random_play_reaches_the_goal_and_the_mask_follows_resets():
    env, rng = make("GridWorld-v0", 32, seed=0), np.random.default_rng(0)
    env.reset()
    truncated = goals = 0
    for _ in range(400):
        allowed = env.action_mask.copy()
        step = env.step((rng.random((32, 4)) * allowed).argmax(1))
        np.testing.assert_array_equal(step.reward, np.where(step.terminated, 1, -0.04).astype(np.float32))
        goals, truncated = goals + step.terminated.sum(), truncated + step.truncated.sum()
        np.testing.assert_array_equal(step.next_observation[step.terminated], 24)
        np.testing.assert_array_equal(env.action_mask, ALLOWED[step.observation])
    assert goals > 0 and truncated > 0


def test_the_best_return_of_the_grid_world_is_the_stated_one():
    env = make("GridWorld-v0")
    env.reset(0)
    rewards = [float(env.step([action]).reward[0]) for action in (1, 1, 1, 1, 2, 2, 2, 2)]
    assert sum(rewards) == pytest.approx(0.72) and env.reward_threshold < 0.72


@pytest.mark.parametrize("id, shape", [("GridWorld-v0", (120, 120, 3)), ("CliffWalking-v1", (96, 288, 3))])
def test_grids_draw_the_walker_where_it_stands(id, shape):
    env = make(id)
    env.reset(0)
    before = env.render()
    env.step([1 if id == "GridWorld-v0" else 0])
    after = env.render()
    assert before.shape == after.shape == shape and before.dtype == np.uint8
    rows, columns = np.nonzero((before != after).any(2))
    span = (rows.max() // 24 - rows.min() // 24, columns.max() // 24 - columns.min() // 24)
    assert span == ((0, 1) if id == "GridWorld-v0" else (1, 0))
