"""The compiled worlds: equal to Gymnasium's, with counted random streams, honest successors and restorable state."""

from __future__ import annotations

import os
import subprocess
import sys

import gymnasium
import numpy as np
import pytest

from whorl.envs.native import WORLDS, make
from whorl.envs.native.world import GAMMA, mix
from whorl.errors import BadInput

pytestmark = pytest.mark.filterwarnings("ignore:.*CartPole-v0 is out of date")  # it is, on purpose

CLASSIC = {  # id -> half-widths of the states that are injected: all of the state space, ends of episodes included
    "CartPole-v0": (2.5, 3.0, 0.25, 3.0),
    "CartPole-v1": (2.5, 3.0, 0.25, 3.0),
    "MountainCar-v0": (0.9, 0.07),
    "MountainCarContinuous-v0": (0.9, 0.07),
    "Acrobot-v1": (np.pi, np.pi, 4 * np.pi, 9 * np.pi),
    "Pendulum-v1": (4 * np.pi, 8.0),
}

ARRAYS = [id for id in WORLDS if not id.startswith("BitFlipping")]  # those that observe one array


def random_actions(env, rng: np.random.Generator) -> np.ndarray:
    """Discrete: uniform. Box: a quarter beyond the bounds, so that clipping is exercised."""
    space = env.action_space
    if isinstance(space, gymnasium.spaces.Discrete):
        return rng.integers(0, space.n, env.num_envs)
    return rng.uniform(1.25 * space.low, 1.25 * space.high, (env.num_envs, *space.shape)).astype(np.float32)


def put(env: gymnasium.Env, state: np.ndarray) -> None:
    """Set the state of Gymnasium's environment (the continuous mountain car keeps single precision)."""
    single = "Continuous" in env.spec.id
    env.unwrapped.state = state.astype(np.float32) if single else state.copy()
    env.unwrapped.steps_beyond_terminated = None


@pytest.mark.parametrize("id", CLASSIC)
def test_one_step_from_10000_injected_states_equals_gymnasium(id):
    rng = np.random.default_rng(0)
    env, theirs = make(id, 10_000), gymnasium.make(id).unwrapped
    env.reset(0)
    centre = -0.3 if "MountainCar" in id else 0.0
    state = env.state()
    state["state"] = rng.uniform(-1, 1, state["state"].shape) * CLASSIC[id]
    state["state"][:, 0] += centre
    env.load_state(state)
    action = random_actions(env, rng)
    step = env.step(action)
    expected = []
    for row, a in zip(state["state"], action):
        put(theirs, row)
        expected.append(theirs.step(a)[:3])
    observation, reward, terminated = zip(*expected)
    np.testing.assert_allclose(step.next_observation, np.array(observation), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(step.reward, np.array(reward, np.float64), rtol=1e-6)
    np.testing.assert_array_equal(step.terminated, terminated)
    assert not step.truncated.any()
    assert step.terminated.any() == (id != "Pendulum-v1") and not step.terminated.all()


@pytest.mark.parametrize("id", CLASSIC)
def test_10000_steps_of_episodes_equal_gymnasium_with_its_time_limit(id):
    rng = np.random.default_rng(1)
    env, theirs = make(id, 8, seed=1), [gymnasium.make(id) for _ in range(8)]
    env.reset()
    for their in theirs:
        their.reset(seed=0)
    ends = 0
    for _ in range(1250):
        before, action = env.state()["state"], random_actions(env, rng)
        step = env.step(action)
        for i, their in enumerate(theirs):
            put(their, before[i])
            observation, reward, terminated, truncated, _ = their.step(action[i])
            np.testing.assert_allclose(step.next_observation[i], observation, rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(step.reward[i], reward, rtol=1e-6)
            assert (step.terminated[i], step.truncated[i]) == (terminated, truncated)
            if terminated or truncated:
                their.reset()
                ends += 1
    assert ends >= 8
    for their in theirs:
        their.close()


@pytest.mark.parametrize("id", CLASSIC)
def test_the_same_spaces_limits_and_thresholds_as_gymnasium(id):
    env, theirs = make(id), gymnasium.make(id)
    assert env.observation_space == theirs.observation_space and env.action_space == theirs.action_space
    assert (env.max_episode_steps, env.reward_threshold) == (
        theirs.spec.max_episode_steps,
        theirs.spec.reward_threshold,
    )


@pytest.mark.parametrize("id", ARRAYS)
def test_every_world_gives_what_its_spaces_and_the_contract_say(id):
    env, rng = make(id, 3, seed=2), np.random.default_rng(2)
    assert (env.id, env.origin, env.device, env.num_envs) == (id, "native", "cpu", 3)
    observation = env.reset()
    for _ in range(300):
        step = env.step(random_actions(env, rng))
        assert (step.reward.dtype, step.terminated.dtype, step.truncated.dtype) == (np.float32, bool, bool)
        assert step.reward.shape == step.terminated.shape == step.truncated.shape == (3,)
        for row in (*step.observation, *step.next_observation, *observation):
            assert row in env.observation_space
        assert step.observation.dtype == env.observation_space.dtype and step.valid is None
        ended = step.terminated | step.truncated
        assert (step.next_observation is step.observation) == (not ended.any())
        np.testing.assert_array_equal(step.next_observation[~ended], step.observation[~ended])


def test_truncation_is_not_termination():
    env = make("CartPole-v1", 2, max_episode_steps=5)
    env.reset(0)
    balanced = [env.step(np.array([t % 2, t % 2])) for t in range(4)]
    assert not balanced[-1].truncated.any()
    step = env.step(np.array([0, 0]))
    assert step.truncated.all() and not step.terminated.any()
    assert step.next_observation is not step.observation
    np.testing.assert_array_equal(env.state()["elapsed"], 0)
    assert (abs(step.observation) <= 0.05).all() and (abs(step.next_observation) > 0.05).any()  # a start, a successor


def play(env, steps: int, seed: int = 0, rows: int | None = None) -> list[tuple]:
    """Copies of all that `steps` random steps gave, for the first `rows` environments."""
    rng, space = np.random.default_rng(seed), env.action_space
    taken = []
    for _ in range(steps):
        action = rng.uniform(0, 1, (64, *space.shape))[: env.num_envs]  # the same for row i whatever N is
        action = (action * space.n).astype(np.int64) if hasattr(space, "n") else (2 * action - 1).astype(np.float32)
        step = env.step(action)
        taken.append(tuple(np.copy(part[:rows]) for part in step[:5]))
    return taken


def same(left: list[tuple], right: list[tuple]) -> bool:
    return all(np.array_equal(x, y) for a, b in zip(left, right) for x, y in zip(a, b))


@pytest.mark.parametrize("id", [*CLASSIC, "RandomWalk-v0", "ProbePolicy-v0"])
def test_streams_depend_on_seed_index_and_episode_only(id):
    one, two, more, other = make(id, 4, seed=5), make(id, 4), make(id, 8, seed=5), make(id, 4, seed=6)
    one.reset(), two.reset(5), more.reset(), other.reset()
    taken = play(one, 400)
    assert same(taken, play(two, 400))
    assert same(taken, play(more, 400, rows=4))
    assert not same(taken, play(other, 400))
    one.reset(5)
    assert same(taken, play(one, 400))  # a seed begins the streams anew


def test_starts_do_not_depend_on_how_earlier_episodes_went():
    long, short = make("CartPole-v1", 4, seed=1), make("CartPole-v1", 4, seed=1, max_episode_steps=3)
    starts = [np.copy(long.reset())]
    for _ in range(2):
        starts.append(np.copy(long.reset()))  # without a seed: on to the next episode
    np.testing.assert_array_equal(short.reset(), starts[0])
    for expected in starts[1:]:
        for t in range(3):
            step = short.step(np.full(4, t % 2))
        np.testing.assert_array_equal(step.observation, expected)


def test_starts_are_uniform_and_unrelated():
    env = make("CartPole-v1", 2000, seed=0)
    starts = np.concatenate([(env.reset(), env.state()["state"])[1] for _ in range(5)])
    unit = starts / 0.1 + 0.5  # [10_000, 4]
    assert unit.min() >= 0 and unit.max() < 1
    counts = np.array([np.histogram(column, 20, (0, 1))[0] for column in unit.T])
    assert ((counts - 500) ** 2 / 500).sum(1).max() < 45  # chi-square, 19 degrees of freedom: p = 0.0007
    lagged = np.concatenate([unit[:-1], unit[1:]], 1)  # each start beside its neighbour's
    correlation = np.corrcoef(lagged.T) - np.eye(8)
    assert abs(correlation).max() < 0.05


def test_mix_is_splitmix64():
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    states = np.uint64(1234567) + np.arange(4, dtype=np.uint64) * GAMMA
    np.testing.assert_array_equal(mix(states), np.array(expected, np.uint64))


@pytest.mark.parametrize("seed", [0, -1, 2**63, 2**64 - 1])
def test_any_integer_is_a_seed(seed):
    env = make("CartPole-v1", 2, seed=seed)
    first = np.copy(env.reset())
    np.testing.assert_array_equal(env.reset(seed), first)
    assert not np.array_equal(env.reset(seed + 1), first)


@pytest.mark.parametrize("id", ARRAYS)
def test_a_loaded_state_goes_on_to_the_same_bits(id):
    env, other = make(id, 5, seed=3), make(id, 5, seed=99)
    env.reset()
    play(env, 150)
    saved = env.state()
    taken = play(env, 300, seed=1)
    observation = np.copy(other.load_state(saved))
    assert same(taken, play(other, 300, seed=1))
    np.testing.assert_array_equal(env.load_state(saved), observation)  # `saved` was a copy: nothing moved it
    assert same(taken, play(env, 300, seed=1))


def test_bad_input_is_named():
    with pytest.raises(BadInput, match="no native world is called 'Cartpole'; there are CartPole-v0, "):
        make("Cartpole")
    with pytest.raises(BadInput, match="num_envs must be at least 1, got 0"):
        make("CartPole-v1", 0)
    with pytest.raises(BadInput, match="max_episode_steps must be at least 1, got 0"):
        make("CartPole-v1", 1, max_episode_steps=0)
    env = make("CartPole-v1", 3)
    with pytest.raises(BadInput, match="step before the first reset"):
        env.step(np.zeros(3, np.int64))
    env.reset(0)
    with pytest.raises(BadInput, match=r"expected actions of shape \(3,\), got \(2,\)"):
        env.step(np.zeros(2, np.int64))
    with pytest.raises(BadInput, match="expected actions of dtype int64, got float64"):
        env.step(np.zeros(3))
    before = env.state()["state"]
    for wrong in (2, -1):
        with pytest.raises(BadInput, match=f"expected actions 0 to 1, got {wrong} for environment 1"):
            env.step(np.array([0, wrong, 1]))
    np.testing.assert_array_equal(env.state()["state"], before)  # a refused step moves nothing
    with pytest.raises(BadInput, match=r"expected a state of shape \(3, 4\), got \(4, 4\)"):
        env.load_state({**env.state(), "state": np.zeros((4, 4))})


def test_actions_of_other_kinds_are_converted():
    env, other = make("MountainCarContinuous-v0", 2), make("MountainCarContinuous-v0", 2)
    env.reset(0), other.reset(0)
    ours, theirs = env.step([[0.5], [-0.5]]), other.step(np.array([[0.5], [-0.5]], np.float32))
    np.testing.assert_array_equal(ours.observation, theirs.observation)


@pytest.mark.parametrize("id", ["Pendulum-v1", "MountainCarContinuous-v0"])
def test_nan_in_an_action_is_not_hidden_by_clipping(id):
    env = make(id, 2)
    env.reset(0)
    step = env.step(np.array([[np.nan], [0.0]], np.float32))
    np.testing.assert_array_equal(np.isnan(step.reward), [True, False])
    np.testing.assert_array_equal(np.isnan(step.observation).any(1), [True, False])


def test_classic_worlds_are_drawn_by_gymnasium():
    env = make("CartPole-v1", 2)
    env.reset(0)
    theirs = gymnasium.make("CartPole-v1", render_mode="rgb_array")
    theirs.reset(seed=0)
    for _ in range(6):
        env.step(np.array([1, 0]))
    theirs.unwrapped.state = env.state()["state"][0]
    picture = env.render()
    assert picture.dtype == np.uint8 and picture.shape == (400, 600, 3)
    np.testing.assert_array_equal(picture, theirs.render())
    theirs.close()


def fresh(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    return done.stdout.strip()


def test_a_process_that_steps_imports_neither_torch_nor_tensordict():
    code = "import sys; import whorl.envs.native as n; print('numba' in sys.modules)\n"
    code += (
        "e = n.make('CartPole-v1', 2); e.reset(0); e.step([0, 1]); print({'torch', 'tensordict'} & set(sys.modules))"
    )
    assert fresh(code).split("\n") == ["False", "set()"]


def test_the_second_process_does_not_compile(tmp_path):
    code = "from whorl.envs.native import make\n"
    code += "for id in ('CartPole-v1', 'ProbeConstant-v0'):\n"
    code += "    e = make(id, 2); e.reset(0); e.step([0, 0])\n"
    code += "    print(len(e._run.stats.cache_misses), len(e._run.stats.cache_hits))"
    counts = [fresh(code, NUMBA_CACHE_DIR=str(tmp_path)).split("\n") for _ in range(2)]
    assert counts == [["1 0"] * 2, ["0 1"] * 2]
