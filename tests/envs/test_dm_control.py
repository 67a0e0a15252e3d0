"""dm_control's suite: the numbers of the suite itself, what ends an episode, options, pictures."""

from __future__ import annotations

import ctypes.util

import numpy as np
import pytest

from whorl.envs.adapters.episodes import seed_of
from whorl.envs.adapters.offscreen import draw_offscreen
from whorl.envs.check import check_env
from whorl.envs.make import make_env
from whorl.errors import BadInput, EnvError

pytestmark = pytest.mark.dmc
BALANCE = "dm_control/cartpole-balance"


@pytest.fixture(scope="module")
def suite():
    draw_offscreen()  # before it is imported
    from dm_control import suite

    return suite


def test_numbers_of_the_suite(suite):
    """The Dict side by side, in its order, scalars too; row by row an environment of its own."""
    env = make_env("dm_control/walker-walk", 2, seed=7)
    task = suite.load("walker", "walk")
    task.task.random.seed(int(np.random.SeedSequence((7, 1)).generate_state(1)[0]))
    own, rng = task.reset().observation, np.random.default_rng(0)
    assert list(own) == ["orientations", "height", "velocity"] and np.ndim(own["height"]) == 0
    assert env.reset()[1] == pytest.approx([*own["orientations"], own["height"], *own["velocity"]], rel=1e-6)
    assert env.observation_space.shape == (24,) and env.observation_space.dtype == np.float32
    assert (env.action_space.low == -1).all() and env.action_space.shape == (6,)
    for _ in range(5):
        action = rng.uniform(-1, 1, (2, 6)).astype(np.float32)
        step, own = env.step(action), task.step(action[1].astype(np.float64))
        flat = np.concatenate([np.ravel(part) for part in own.observation.values()]).astype(np.float32)
        assert (step.observation[1] == flat).all() and step.reward[1] == np.float32(own.reward)
    env.close()


@pytest.mark.parametrize(("discount", "flags"), [(0.0, (True, False)), (1.0, (False, True))])
def test_the_last_discount_says_whether_there_is_a_future(suite, monkeypatch, discount, flags):
    env = make_env(BALANCE, 2)
    env.reset()
    monkeypatch.setattr(suite.cartpole.Balance, "get_termination", lambda self, physics: discount)
    step = env.step(np.zeros((2, 1), np.float32))
    assert (step.terminated[0], step.truncated[0]) == flags
    assert (step.next_observation != step.observation).any()  # the successor, and the first of the next episode
    env.close()


def test_a_part_of_a_future_is_refused(suite, monkeypatch):
    env = make_env(BALANCE)
    env.reset()
    monkeypatch.setattr(suite.cartpole.Balance, "get_termination", lambda self, physics: 0.5)
    with pytest.raises(
        EnvError, match=f"{BALANCE}: environment 0: .*ended with discount 0.5: 0 .* or 1 .* can be learned"
    ):
        env.step(np.zeros((1, 1), np.float32))


def test_time_limits():
    """The suite's own (10 s of 0.01 s), in its seconds and in steps; what stands at the limit is the true successor."""
    assert make_env(BALANCE).max_episode_steps == 1000
    assert make_env("dm_control/lqr-lqr_2_1").max_episode_steps is None
    assert make_env(BALANCE, max_episode_steps=2000).max_episode_steps == 2000
    by_time, longer = make_env(BALANCE, time_limit=0.03), make_env(BALANCE, max_episode_steps=4)
    assert by_time.max_episode_steps == 3
    by_time.reset(), longer.reset()
    action = np.ones((1, 1), np.float32)
    for k in range(1, 4):
        step, free = by_time.step(action), longer.step(action)
        assert step.truncated[0] == (k == 3) and not step.terminated[0] and not free.truncated[0]
        assert (step.next_observation == free.observation).all()
    assert step.observation is not step.next_observation and longer.step(action).truncated[0]


def test_the_contract_and_its_state():
    env = make_env(BALANCE, 2, max_episode_steps=5)
    env.replay_steps = 10
    check_env(env, steps=12)
    assert env.partial == {"restart", "rows"}
    env.reset(3)
    for _ in range(7):
        env.step(np.ones((2, 1), np.float32))
    other = make_env(BALANCE, 2, seed=9, max_episode_steps=5)
    other.replay_steps = 10
    other.load_state(env.state())
    for _ in range(4):
        step, again = (each.step(np.ones((2, 1), np.float32)) for each in (env, other))
        assert (step.observation == again.observation).all() and (step.reward == again.reward).all()


def test_seeds_do_not_hang_on_how_many_there_are():
    one, three = make_env(BALANCE, 1, max_episode_steps=2), make_env(BALANCE, 3, max_episode_steps=2)
    one.replay_steps = three.replay_steps = 10
    assert (one.reset(5)[0] == three.reset(5)[0]).all()
    for _ in range(4):  # two episodes
        step, first = (each.step(np.zeros((each.num_envs, 1), np.float32)) for each in (three, one))
        assert (step.observation[0] == first.observation[0]).all()
    assert seed_of(5, 0, 1) != seed_of(5, 0, 0)


def test_actuators_without_limits_have_none():
    """And a model drawn by chance is the same in all, another by `random`: another spring, the same start."""
    env, other = make_env("dm_control/lqr-lqr_2_1", 2), make_env("dm_control/lqr-lqr_2_1", 2, random=3)
    assert np.isinf(env.action_space.low).all() and np.isinf(env.action_space.high).all()
    assert (env.reset(1) == other.reset(1)).all()
    step, another = (each.step(np.zeros((2, 1), np.float32)) for each in (env, other))
    assert (step.observation != another.observation).any(1).all()


def test_bad_input():
    with pytest.raises(BadInput, match=f"is called 'dm_control/cartpole-balanse'; near matches: {BALANCE}, "):
        make_env("dm_control/cartpole-balanse")
    with pytest.raises(
        BadInput, match=f"{BALANCE} takes time_limit, random, environment_kwargs as options, got gravity"
    ):
        make_env(BALANCE, gravity=3)
    with pytest.raises(BadInput, match=f"{BALANCE} is stepped by dm_control on the CPU, got device='cuda'"):
        make_env(BALANCE, device="cuda")
    with pytest.raises(BadInput, match="prefer must be 'native' or 'dm_control', got 'gymnasium'"):
        make_env(BALANCE, prefer="gymnasium")
    with pytest.raises(BadInput, match=f"{BALANCE} draws with render_mode='rgb_array', got 'human'"):
        make_env(BALANCE, render_mode="human")
    with pytest.raises(BadInput, match=f"{BALANCE}: max_episode_steps must be at least 1, got 0"):
        make_env(BALANCE, max_episode_steps=0)


def test_ids_with_a_version_are_shimmys():
    env = make_env(f"{BALANCE}-v0")
    assert env.origin == "gymnasium" and list(env.observation_space) == ["position", "velocity"]
    env.close()


@pytest.mark.skipif(not ctypes.util.find_library("EGL"), reason="draws by EGL, which is not installed here")
def test_pictures():
    """The floor is below the sky, the cart moves to the right, and a picture lasts when the next is drawn."""
    env = make_env(BALANCE, 2, render_mode="rgb_array", height=48, width=64)
    env.reset()
    first = env.render()
    assert first.shape == (48, 64, 3) and first.dtype == np.uint8
    sky, floor = first[:12].mean((0, 1)), first[-12:].mean((0, 1))
    assert sky[2] > sky[0] and sky.sum() > floor.sum()  # blue, and the brighter
    kept = first.copy()
    for _ in range(40):
        env.step(np.ones((2, 1), np.float32))
    second = env.render()
    assert (first == kept).all() and _cart(second) > _cart(first) + 3
    env.close()


def _cart(picture: np.ndarray) -> float:
    """The column where cart and pole, which are orange, stand on the whole."""
    orange = picture[..., 0].astype(float) - picture[..., 2]
    return float(np.average(np.arange(picture.shape[1]), weights=np.clip(orange, 0, None).sum(0)))
