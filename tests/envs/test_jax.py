"""Environments in JAX: brax and jumanji themselves, and small ones of the tests' own whose numbers can be worked by hand."""

import ctypes.util
import importlib.util
import os

import numpy as np
import pytest

import whorl
from whorl.envs.check import check_env
from whorl.envs.make import EnvKind, make_env
from whorl.errors import BadInput, Incompatible

HERE = all(importlib.util.find_spec(module) for module in ("jax", "brax", "jumanji"))
assert HERE or os.environ.get("WHORL_JAX") != "required", "jax, brax or jumanji is not installed"
needs_jax = pytest.mark.skipif(not HERE, reason="needs the extra jax: make test-jax")
ROWS = np.array([True, False, True])
SNAKE = {"num_rows": 4, "num_cols": 4, "time_limit": 20}


@pytest.fixture(scope="module")
def walk():
    """The id of a walk on a line: a step of the action's size, from a random place; it ends beyond 2, its reward is where it stands."""
    import whorl.envs.adapters.brax  # which chooses how MuJoCo draws, before it is imported  # noqa: F401, I001
    import brax.envs
    import jax
    import jax.numpy as jnp
    from brax.envs.base import Env, State

    class Walk(Env):
        traced = 0
        observation_size, action_size, backend = 1, 1, "none"

        def __init__(self, far=2.0):
            self.far = far

        def reset(self, rng):
            start = jax.random.uniform(rng, (1,))
            return State(None, start, jnp.zeros(()), jnp.zeros(()), {"steps": jnp.zeros(())})

        def step(self, state, action):
            Walk.traced += 1
            here = state.obs + action
            done = (here[0] > self.far).astype(float)
            return state.replace(obs=here, reward=here[0], done=done, metrics={"steps": state.metrics["steps"] + 1})

    brax.envs.register_environment("walk", Walk)
    return Walk


def acting(value):
    return np.full((3, 1), value, np.float32)


@needs_jax
class TestWalk:
    @pytest.fixture(autouse=True)
    def _registered(self, walk):
        self.walk = walk

    def test_numbers_by_hand(self):
        start = make_env("brax/walk", 3, seed=7).reset()
        assert start.shape == (3, 1) and len(np.unique(start)) == 3 and (start >= 0).all() and (start < 1).all()
        far = 1.5 + float(start.mean())  # beyond it some end with the second step, others do not
        env = make_env("brax/walk", 3, seed=7, far=far)
        assert (env.reset() == start).all()
        first = env.step(acting(0.5))
        np.testing.assert_allclose(first.reward, start[:, 0] + 0.5)
        assert first.next_observation is first.observation and first.info["steps"].tolist() == [1, 1, 1]
        last = env.step(acting(7))  # taken for 1
        np.testing.assert_allclose(last.next_observation, start + 1.5)
        assert (last.terminated == (start[:, 0] > start.mean())).all() and not last.terminated.all()
        assert not last.truncated.any()
        ended = last.terminated
        assert (last.observation[~ended] == last.next_observation[~ended]).all() and (last.observation[ended] < 1).all()

    def test_the_time_limit_truncates(self):
        env = make_env("brax/walk", 3, seed=7, max_episode_steps=2)
        start = env.reset()
        assert not env.step(acting(0.5)).truncated.any()
        last = env.step(acting(1))
        assert last.truncated.all() and (last.terminated == (start[:, 0] + 1.5 > 2)).all()
        assert make_env("brax/walk").max_episode_steps == 1000

    def test_episode_k_is_the_same_however_it_was_begun(self):
        """The key of each is fold_in(fold_in(key, row), episode), with the high half of the seed folded into the key."""
        import jax

        env, other = make_env("brax/walk", 3, seed=2**40 + 3), make_env("brax/walk", 3, max_episode_steps=1)
        begun = [env.reset(), env.restart(ROWS)]
        other.reset(2**40 + 3)
        step = other.step(acting(0))  # by a time limit
        assert (step.observation[ROWS] == begun[1][ROWS]).all() and (begun[0][~ROWS] == begun[1][~ROWS]).all()
        key = jax.random.fold_in(jax.random.PRNGKey(3), 2**8)
        for episode in (0, 1):
            own = jax.random.fold_in(jax.random.fold_in(key, 2), episode)
            assert begun[episode][2] == np.asarray(jax.random.uniform(own, (1,)))
        assert (env.reset(5) == make_env("brax/walk", 3, seed=5).reset()).all()

    def test_what_was_handed_out_survives(self):
        env = make_env("brax/walk", 3)
        env.reset()
        step = env.step(acting(0.1))
        before = step.next_observation.copy()
        here = env.restart(ROWS)
        env.step(acting(1))
        assert (step.next_observation == before).all() and (here[~ROWS] == before[~ROWS]).all()

    def test_rows_step_and_the_others_stand(self):
        env = make_env("brax/walk", 3, max_episode_steps=2)
        start = env.reset()
        step = env.step(acting(0.5), ROWS)
        np.testing.assert_allclose(step.observation[:, 0], start[:, 0] + 0.5 * ROWS)
        assert (step.valid == ROWS).all() and step.reward[1] == 0
        assert (env.step(acting(0)).truncated == ROWS).all()  # one stood still and has a step left

    def test_check_env_and_state(self):
        env = make_env("brax/walk", 3, max_episode_steps=9)
        check_env(env, 40)
        state = env.state()
        assert {"state/obs", "seen/observation", "episode", "elapsed", "seed"} <= state.keys()
        with pytest.raises(BadInput, match="missing or unknown: episode"):
            env.load_state({name: array for name, array in state.items() if name != "episode"})
        with pytest.raises(BadInput, match=r"expected elapsed as int32 of shape \(3,\), got int64"):
            env.load_state(state | {"elapsed": np.zeros(3, np.int64)})

    def test_compiled_once_for_each_number(self):
        make_env("brax/walk", 3).reset()
        before = self.walk.traced
        env = make_env("brax/walk", 3, seed=9, max_episode_steps=5)
        env.reset()
        env.step(acting(0))
        env.load_state(env.state())
        env.step(acting(0), ROWS)
        env.restart(ROWS)
        assert self.walk.traced == before
        make_env("brax/walk", 2).reset()
        assert self.walk.traced > before

    def test_tensors_share_memory_both_ways(self):
        """What crosses to a device other than the CPU's numpy, tried here on the CPU's memory."""
        import jax.numpy as jnp
        import torch

        env = make_env("brax/walk", 3)
        env.reset()
        env.device = "here"  # none of numpy's
        step = env.step(torch.full((3, 1), 0.25))
        assert isinstance(step.observation, torch.Tensor) and step.observation is not step.next_observation
        assert step.reward.dtype == torch.float32 and step.terminated.dtype == torch.bool
        array = jnp.arange(3.0)
        assert torch.from_dlpack(array).data_ptr() == array.unsafe_buffer_pointer()

    @pytest.mark.parametrize(
        "given, sentence",
        [
            ({"id": "brax/wakl"}, "brax has no environment 'wakl'"),
            ({"id": "brax/hoper"}, "did you mean 'hopper'"),
            ({"backend": "spring"}, "brax/walk cannot be made with backend: TypeError"),
            ({"prefer": "gymnasium"}, "prefer must be 'native' or 'brax', got 'gymnasium'"),
            ({"wrappers": [lambda env: env]}, "wrappers go around single gymnasium environments"),
            ({"render_mode": "human"}, "render_mode must be 'rgb_array'"),
            ({"max_episode_steps": 0}, "max_episode_steps must be at least 1, got 0"),
            ({"device": "tpu"}, "cannot live on 'tpu': JAX sees"),
        ],
    )
    def test_refused_before_anything_is_made(self, given, sentence):
        with pytest.raises(BadInput, match=sentence):
            make_env(**{"id": "brax/walk", **given})

    def test_wrong_calls(self):
        env = make_env("brax/walk", 3)
        with pytest.raises(BadInput, match="step before the first reset"):
            env.step(acting(0))
        env.reset()
        with pytest.raises(BadInput, match=r"expected actions of shape \(3, 1\), got \(3,\)"):
            env.step(np.zeros(3, np.float32))

    @pytest.mark.parametrize("agent", ["ppo", "sac"])
    def test_agents_learn_and_a_run_goes_on(self, agent, tmp_path):
        feed = (
            {"steps": 4, "epochs": 1, "minibatches": 1}
            if agent == "ppo"
            else {"batch_size": 4, "capacity": 50, "warmup": 5}
        )
        given = {"hidden": (8,), "feed": feed, "num_envs": 3, "eval_every": 0, "quiet": True, "update": "eager"}
        short = whorl.train(agent, "brax/walk", runs=tmp_path / "a", total_steps=24, **given)
        short = whorl.resume(short.path, 48, quiet=True)
        whole = whorl.train(agent, "brax/walk", runs=tmp_path / "b", total_steps=48, **given)
        assert short.steps == whole.steps == 48
        for a, b in zip(short.agent.state_dict().values(), whole.agent.state_dict().values(), strict=True):
            assert np.array_equal(a.numpy(), b.numpy())


@needs_jax
def test_brax_gives_what_its_own_functions_give():
    import brax.envs
    import jax

    env, own = make_env("brax/fast", 2, obs_mode="dict_state"), brax.envs.get_environment("fast", obs_mode="dict_state")
    seen, state = env.reset(), own.reset(jax.random.PRNGKey(0))
    assert seen["state"].shape == (2, 2) and env.action_space.shape == (1,)
    for action in (0.5, 0.5, -0.5):
        state, step = own.step(state, np.array([action], np.float32)), env.step(np.full((2, 1), action, np.float32))
        np.testing.assert_allclose(step.observation["state"][1], state.obs["state"], rtol=1e-6)
        np.testing.assert_allclose(step.reward[1], state.reward, rtol=1e-6)


@needs_jax
def test_brax_physics_and_its_picture():
    env = make_env("brax/inverted_pendulum", 2, backend="spring", render_mode="rgb_array")
    seen = env.reset()
    assert seen.shape == (2, 4) and (abs(seen) <= 0.01).all()  # the noise of its start
    step = env.step(np.ones((2, 1), np.float32))
    assert step.reward.tolist() == [1, 1] and (step.observation[:, 0] > seen[:, 0]).all()  # pushed to the right
    if ctypes.util.find_library("EGL"):
        picture = env.render()
        assert picture.shape == (240, 320, 3) and picture.dtype == np.uint8 and picture.std() > 5


@needs_jax
class TestJumanji:
    def test_snake_has_masks_and_a_dict(self):
        env = make_env("jumanji/Snake-v1", 3, **SNAKE)
        seen = env.reset()
        assert {key: array.shape for key, array in seen.items()} == {"grid": (3, 4, 4, 5), "step_count": (3,)}
        assert env.action_mask.shape == (3, 4) and env.action_mask.dtype == bool
        row, column = np.argwhere(seen["grid"][0, :, :, 1])[0]  # the head
        assert env.action_mask[0].tolist() == [row > 0, column < 3, row < 3, column > 0]  # up, right, down, left
        check_env(env, 60)

    def test_ends(self):
        """The library's time limit terminates, whorl's truncates; leaving the board terminates."""
        library = make_env("jumanji/Snake-v1", 1, num_rows=4, num_cols=4, time_limit=2)
        own = make_env("jumanji/Snake-v1", 1, max_episode_steps=2, **SNAKE)
        for env, flags in ((library, (True, False)), (own, (False, True))):
            env.reset()
            for _ in range(2):
                step = env.step(env.action_mask.argmax(1))
            assert (step.terminated[0], step.truncated[0]) == flags and step.next_observation["step_count"] == 2
        own.reset()
        while not (~own.action_mask).any():
            own.restart(np.array([True]))
        assert own.step(own.action_mask.argmin(1)).terminated.all()

    def test_a_truncated_last_step_and_a_mask_of_combinations(self):
        import jumanji

        if "Pair-v0" not in jumanji.registered_environments():
            jumanji.register("Pair-v0", entry_point="tests.envs.jumanji_pair:Pair")
        env = make_env("jumanji/Pair-v0", 2)
        assert env.reset().tolist() == [0, 0] and env.action_space.n == 6  # of 2 and 3; what remains stands alone
        assert env.action_mask[0].tolist() == [True, False, True, False, True, False]
        step = env.step(np.array([5, 1]))
        assert step.reward.tolist() == [12, 1] and step.info["product"].tolist() == [2, 0]  # (1, 2) and (0, 1)
        assert step.next_observation.tolist() == [12, 1] and step.observation.tolist() == [0, 1]
        assert step.truncated.tolist() == [True, False] and not step.terminated.any()  # LAST, with discount 1
        assert env.action_mask.tolist() == [[True, False] * 3, [True] * 6]  # one that allows nothing allows all
        with pytest.raises(BadInput, match="expected actions of Discrete.6., got 6 for environment 1"):
            env.step(np.array([0, 6]))
        with pytest.raises(BadInput, match="whole numbers, got float64"):
            env.step(np.zeros(2))

    def test_masks_of_parts_and_pictures(self):
        env = make_env("jumanji/Cleaner-v0", 2, render_mode="rgb_array")
        env.reset()
        assert env.action_space.nvec.tolist() == [4, 4, 4] and env.action_mask.shape == (2, 12)
        picture = env.render()
        assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3 and len(np.unique(picture)) > 2
        assert make_env("jumanji/Cleaner-v0").render() is None

    def test_refused(self):
        with pytest.raises(Incompatible, match="jumanji/Connector-v3 has a reward for each of several agents"):
            make_env("jumanji/Connector-v3")
        with pytest.raises(BadInput, match="jumanji has no environment 'Snack-v1'; did you mean 'Snake-v1'"):
            make_env("jumanji/Snack-v1")

    def test_dqn_learns_with_masks(self, tmp_path):
        given = {
            "hidden": (8,),
            "feed": {"batch_size": 4, "capacity": 50, "warmup": 5},
            "eval_episodes": 1,
            "quiet": True,
        }
        kind = EnvKind("jumanji/Snake-v1", SNAKE)
        assert whorl.train("dqn", kind, runs=tmp_path, num_envs=3, total_steps=24, update="eager", **given).steps == 24


@pytest.mark.skipif(HERE, reason="jax is installed")
@pytest.mark.parametrize("id", ["brax/ant", "jumanji/Snake-v1"])
def test_a_missing_extra_is_one_sentence(id):
    with pytest.raises(BadInput, match=r'^.* needs an extra that is not installed: pip install "whorl\[jax\]"$'):
        make_env(id)
