from __future__ import annotations

import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.check import check_env
from whorl.errors import BadInput, EnvError, Incompatible


class Toy(gymnasium.Env):
    """Episodes of random length that end by either flag, or both. The observation says (index, episode, step)."""

    BOX = spaces.Box(-1, 1e6, (3,), np.float64)
    SPACES: dict[str, spaces.Space] = {
        "box": BOX,
        "dict": spaces.Dict({"deep": spaces.Dict({"where": BOX}), "step": spaces.Discrete(100, start=-1)}),
        "tuple": spaces.Tuple((BOX, spaces.Tuple((spaces.Discrete(100, start=-1), spaces.MultiBinary(2))))),
    }

    def __init__(self, index: int = 0, kind: str = "box", reuse: bool = False, masked: bool = False):
        self.index, self.kind, self.masked, self.episode = index, kind, masked, -1
        self.observation_space = self.SPACES[kind]
        self.action_space = spaces.Discrete(3, start=5)
        self.buffer = np.zeros(3) if reuse else None

    def look(self) -> tuple[Any, dict]:
        where = np.array([self.index, self.episode, self.t], float)
        if self.buffer is not None:
            self.buffer[:] = where
            where = self.buffer
        seen = {
            "box": where,
            "dict": {"deep": {"where": where}, "step": self.t - 1},
            "tuple": (where, (self.t - 1, np.array([self.t % 2, 1], np.int8))),
        }
        mask = np.arange(3) != self.t % 3
        return seen[self.kind], {"action_mask": mask.astype(np.int8)} if self.masked else {}

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1 if seed is None else 0, 0
        self.length = self.np_random.integers(1, 6)
        self.flags = [(True, False), (False, True), (True, True)][self.np_random.integers(3)]
        return self.look()

    def step(self, action):
        assert 5 <= action <= 7, action
        self.t += 1
        reward = float(self.np_random.normal() + action)
        terminated, truncated = self.flags if self.t == self.length else (False, False)
        observation, info = self.look()
        return observation, reward, terminated, truncated, info


def leaves(tree: Any) -> list:
    return [leaf for value in tree.values() for leaf in leaves(value)] if isinstance(tree, dict) else [tree]


def row(tree: Any, i: int) -> tuple:
    return tuple(leaf[i].tolist() for leaf in leaves(tree))


def learning_data(env: Gymnasium, count: int, seed: int) -> list[list[tuple]]:
    """The first `count` valid rows of each environment, under a policy that depends on observation and mask only."""
    data: list[list[tuple]] = [[] for _ in range(env.num_envs)]
    observation = env.reset(seed)
    while min(map(len, data)) < count:
        here = [row(observation, i) for i in range(env.num_envs)]
        action = np.array([int(sum(np.hstack(seen))) % 3 for seen in here])
        masks = [None] * env.num_envs if env.action_mask is None else env.action_mask.tolist()
        if env.action_mask is not None:
            action = np.where(env.action_mask[range(env.num_envs), action], action, env.action_mask.argmax(-1))
        step = env.step(action)
        for i in range(env.num_envs):
            if step.valid is not None and not step.valid[i]:
                assert step.reward[i] == 0 and not step.terminated[i] and not step.truncated[i]
                continue
            flags = bool(step.terminated[i]), bool(step.truncated[i])
            data[i].append((here[i], masks[i], action[i], float(step.reward[i]), *flags, row(step.next_observation, i)))
        if not (step.terminated | step.truncated).any():
            assert step.next_observation is step.observation
        observation = step.observation
    return [rows[:count] for rows in data]


def toys(n: int, mode: AutoresetMode, copy: bool = True, **options: Any) -> Gymnasium:
    return Gymnasium(SyncVectorEnv([lambda i=i: Toy(i, **options) for i in range(n)], copy=copy, autoreset_mode=mode))


def counting(**options: Any):
    made = iter(range(1000))
    return lambda: Toy(next(made), **options)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(1, 4),
    kind=st.sampled_from(["box", "dict", "tuple"]),
    masked=st.booleans(),
    copy=st.booleans(),
)
def test_three_autoreset_modes_give_the_same_learning_data(seed, n, kind, masked, copy):
    engines = [toys(n, mode, copy, kind=kind, masked=masked) for mode in AutoresetMode]
    engines.append(Gymnasium(counting(kind=kind, masked=masked, reuse=True), n))
    first, *others = [learning_data(env, 30, seed) for env in engines]
    for other in others:
        assert other == first
    for i, rows in enumerate(first):
        for t, (here, mask, action, _, terminated, truncated, there) in enumerate(rows):
            where, follows = (x[0] for x in (here, there)) if kind != "dict" else (here[0], there[0])
            assert where[0] == i and follows == [*where[:2], where[2] + 1]  # the true successor, at an end too
            if mask is not None:
                assert mask[action] and mask == [a != where[2] % 3 for a in range(3)]
            if t + 1 < len(rows):
                assert rows[t + 1][0][0] == ([i, where[1] + 1, 0] if terminated or truncated else follows)


def test_async_vector_env_agrees():
    envs = [AsyncVectorEnv([lambda i=i: Toy(i) for i in range(2)], autoreset_mode=mode) for mode in AutoresetMode]
    expected = learning_data(toys(2, AutoresetMode.SAME_STEP), 12, 3)
    for env in map(Gymnasium, envs):
        assert learning_data(env, 12, 3) == expected
        env.close()


def test_next_step_rows_that_the_engine_invented_are_not_valid():
    env = toys(2, AutoresetMode.NEXT_STEP)
    env.reset(0)
    after_end, seen = np.zeros(2, bool), 0
    for _ in range(40):
        step = env.step(np.zeros(2, int))
        assert (step.valid is None) == (not after_end.any())
        if step.valid is not None:
            assert (step.valid == ~after_end).all()
            assert (step.observation[after_end, 2] == 0).all()  # where it stands: at the reset
            seen += 1
        after_end = step.terminated | step.truncated
    assert seen > 5


def test_batched_final_obs_and_engine_without_any():
    class Counter(VectorEnv):
        """An engine of its own: resets in the same step and gives `final_obs` as one array."""

        num_envs, metadata = 2, {"autoreset_mode": "SameStep"}
        single_observation_space, single_action_space = spaces.Box(0, 9, (1,)), spaces.Discrete(2)
        gives = True

        def reset(self, *, seed=None, options=None):
            assert seed is None or isinstance(seed, int)
            self.t = np.array([0, 1])
            return self.t[:, None].astype(np.float32), {}

        def step(self, action):
            self.t = self.t + 1
            ended, last = self.t >= 3, self.t[:, None].astype(np.float32)
            self.t[ended] = 0
            info = {"final_obs": last, "_final_obs": ended} if self.gives and ended.any() else {}
            return self.t[:, None].astype(np.float32), np.ones(2), np.zeros(2, bool), ended, info

    env = Gymnasium(Counter(), seed=4)
    check_env(env)
    env.reset()
    env.step([0, 0])
    step = env.step([0, 0])
    assert step.observation.tolist() == [[2], [0]] and step.next_observation.tolist() == [[2], [3]]
    assert step.truncated.tolist() == [False, True]
    Counter.gives = False
    env.reset()
    env.step([0, 0])
    with pytest.raises(EnvError, match=r"no info\['final_obs'\] for environments \[1\] that ended"):
        env.step([0, 0])


@pytest.mark.parametrize("mode", [None, "sometimes"])
def test_unknown_autoreset_mode_says_what_to_set(mode):
    engine = SyncVectorEnv([Toy])
    engine.metadata = {"autoreset_mode": mode}
    with pytest.raises(
        EnvError, match=r"metadata\['autoreset_mode'\] is .*set it to.*NEXT_STEP .*SAME_STEP .*DISABLED"
    ):
        Gymnasium(engine)


@pytest.mark.parametrize(
    "id", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1", "Blackjack-v1", "Taxi-v4", "LunarLander-v3"]
)
def test_installed_ids(id):
    if id.startswith("Lunar"):
        pytest.importorskip("Box2D", reason="LunarLander needs the extra box2d")
    env = Gymnasium(id, 3, seed=1)
    assert (env.id, env.origin, env.num_envs, env.device) == (id, "gymnasium", 3, "cpu")
    assert repr(env) == f"{id} (gymnasium, 3 at once, on cpu)"
    assert env.max_episode_steps == gymnasium.spec(id).max_episode_steps
    assert env.reward_threshold == gymnasium.spec(id).reward_threshold
    check_env(env)
    assert env.state() is None
    env.close()
    env.close()


def test_cartpole_is_gymnasium_s_own():
    env, alone = Gymnasium("CartPole-v1", 2, seed=7), gymnasium.make("CartPole-v1")
    derived = int(np.random.SeedSequence((7, 1)).generate_state(1)[0])
    expected, _ = alone.reset(seed=derived)
    assert (env.reset()[1] == expected).all()
    rng = np.random.default_rng(0)
    for _ in range(200):
        action = rng.integers(0, 2, 2)
        step = env.step(action)
        expected, reward, terminated, truncated, _ = alone.step(action[1])
        assert (step.next_observation[1] == expected).all()
        assert (step.reward[1], step.terminated[1], step.truncated[1]) == (reward, terminated, truncated)
        if terminated or truncated:
            expected, _ = alone.reset()
        assert (step.observation[1] == expected).all()


def test_vector_entry_point():
    engine = gymnasium.make_vec("CartPole-v1", 4, vectorization_mode="vector_entry_point")
    env = Gymnasium(engine, 4)
    assert env.num_envs == 4 and env.max_episode_steps == 500 and env.id == ""
    check_env(env)
    same = (
        env.reset(3),
        Gymnasium(gymnasium.make_vec("CartPole-v1", 4, vectorization_mode="vector_entry_point")).reset(3),
    )
    assert (same[0] == same[1]).all()
    with pytest.raises(BadInput, match="num_envs=3, but the VectorEnv given holds 4"):
        Gymnasium(engine, 3)


def test_seeds_differ_between_environments_and_do_not_depend_on_their_number():
    few, many = Gymnasium("CartPole-v1", 2, seed=5), Gymnasium("CartPole-v1", 4, seed=5)
    one, other = few.reset(), many.reset()
    assert (one == other[:2]).all() and len(np.unique(other[:, 0])) == 4
    first = few.reset(5).copy()
    assert not (few.reset() == first).any()  # streams go on
    assert (few.reset(5) == first).all()
    with pytest.raises(BadInput, match="seed must be 0 or more, got -1"):
        Gymnasium("CartPole-v1", seed=-1)
    with pytest.raises(BadInput, match="seed must be 0 or more, got -2"):
        few.reset(-2)


class Given(gymnasium.Env):
    """Any spaces, random observations; keeps the actions that come in."""

    def __init__(self, observation_space=None, action_space=None, info=None):
        self.observation_space = spaces.Box(-1, 1, (2,)) if observation_space is None else observation_space
        self.action_space = spaces.Discrete(2) if action_space is None else action_space
        self.info, self.actions = info or {}, []

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), dict(self.info)

    def step(self, action):
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.actions.append(action)
        ended = self.np_random.random() < 0.3
        return self.observation_space.sample(), 1.0, False, bool(ended), dict(self.info)


@pytest.mark.parametrize(
    ("space", "seen"),
    [
        (spaces.Box(0, 255, (4, 4, 3), np.uint8), spaces.Box(0, 255, (4, 4, 3), np.uint8)),
        (spaces.Box(-3.0, 3.0, (2,), np.float64), spaces.Box(-3, 3, (2,), np.float32)),
        (spaces.Box(-3, 3, (2, 2), np.int16), spaces.Box(-3, 3, (2, 2), np.float32)),
        (spaces.Discrete(4, start=-2), spaces.Discrete(4)),
        (spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[1, 2], [3, 4]]), spaces.MultiDiscrete([2, 3, 4, 5])),
        (spaces.MultiBinary([2, 3]), spaces.MultiBinary([2, 3])),
        (
            spaces.Tuple((spaces.Discrete(3, start=1), spaces.Dict({"x": spaces.Box(0, 1, (1,))}))),
            spaces.Dict({"0": spaces.Discrete(3), "1": spaces.Dict({"x": spaces.Box(0, 1, (1,))})}),
        ),
    ],
)
def test_observation_spaces(space, seen):
    env = Gymnasium(lambda: Given(space), 3)
    assert env.observation_space == seen
    check_env(env)


def test_observations_are_counted_from_0():
    own = Given(spaces.Dict({"a": spaces.MultiDiscrete([2, 3], start=[7, -4]), "b": spaces.Discrete(9, start=-5)}))
    own.reset = lambda **_: ({"a": np.array([8, -2]), "b": -1}, {})
    observation = Gymnasium(own).reset()
    assert observation["a"].tolist() == [[1, 2]] and observation["b"].tolist() == [4]
    assert observation["a"].dtype == observation["b"].dtype == np.int64


def last_action(space: spaces.Space, action: Any) -> Any:
    own = Given(action_space=space)
    env = Gymnasium(own)
    env.reset()
    env.step(np.asarray(action)[None])
    return env.action_space, own.actions[0]


def test_action_spaces():
    assert last_action(spaces.Discrete(3, start=4), 2) == (spaces.Discrete(3), 6)
    seen, action = last_action(spaces.MultiDiscrete([[2, 3]], start=[[1, 5]]), [1, 2])
    assert seen == spaces.MultiDiscrete([2, 3]) and action.tolist() == [[2, 7]]
    seen, action = last_action(spaces.MultiBinary(3), [1, 0, 1])
    assert seen == spaces.MultiBinary(3) and action.dtype == np.int8 and action.tolist() == [1, 0, 1]
    seen, action = last_action(spaces.Box(-1.0, 2.0, (2,), np.float64), [-9.0, 9.0])
    assert seen == spaces.Box(-1, 2, (2,), np.float32) and action.dtype == np.float64 and action.tolist() == [-1, 2]
    seen, action = last_action(spaces.Box(-3, 3, (3,), np.int32), [-9.0, 1.6, 2.4])
    assert seen == spaces.Box(-3, 3, (3,), np.float32) and action.dtype == np.int32 and action.tolist() == [-3, 2, 2]


def test_nested_action_spaces():
    discrete = spaces.Dict(
        {"a": spaces.Discrete(3, start=1), "b": spaces.Tuple((spaces.MultiBinary(2), spaces.MultiDiscrete([4, 5])))}
    )
    seen, action = last_action(discrete, [2, 1, 0, 3, 4])
    assert seen == spaces.MultiDiscrete([3, 2, 2, 4, 5])
    assert action["a"] == 3 and action["b"][0].tolist() == [1, 0] and action["b"][1].tolist() == [3, 4]
    boxes = spaces.Tuple((spaces.Box(-1, 1, (2,)), spaces.Dict({"x": spaces.Box(0, 5, (1, 1), np.float64)})))
    seen, action = last_action(boxes, [0.5, -3, 9])
    assert seen == spaces.Box(np.array([-1, -1, 0]), np.array([1, 1, 5]), dtype=np.float32)
    assert action[0].tolist() == [0.5, -1] and action[1]["x"].tolist() == [[5]]
    mixed = spaces.Dict({"x": boxes[0], "a": spaces.Discrete(3, start=4), "t": spaces.Tuple((boxes[1], discrete["b"]))})
    seen, action = last_action(mixed, [2, 1, 0, 3, 4, 9, 0.5, -3])
    assert seen == spaces.Tuple(
        (spaces.MultiDiscrete([3, 2, 2, 4, 5]), spaces.Box(np.float32([0, -1, -1]), np.float32([5, 1, 1])))
    )
    assert action["a"] == 6 and action["x"].tolist() == [0.5, -1] and action["t"][0]["x"].tolist() == [[5]]
    assert action["t"][1][0].tolist() == [1, 0] and action["t"][1][1].tolist() == [3, 4]
    check_env(Gymnasium(lambda: Given(action_space=mixed), 3))
    check_env(Gymnasium(lambda: Given(action_space=discrete), 3))
    check_env(Gymnasium(lambda: Given(action_space=boxes), 3))


@pytest.mark.parametrize(
    ("observation", "action", "reason"),
    [
        (spaces.Text(5), None, "the observation space is a Text space, which has no array form: put a wrapper"),
        (
            spaces.Dict({"x": spaces.Sequence(spaces.Discrete(2))}),
            None,
            r"observation space\['x'\] is a Sequence space",
        ),
        (spaces.Graph(spaces.Box(0, 1), None), None, "is a Graph space"),
        (None, spaces.Tuple((spaces.Text(3),)), r"the action space\[0\] is a Text space"),
        (None, spaces.Tuple(()), "has no part to act with"),
    ],
)
def test_spaces_without_an_array_form(observation, action, reason):
    with pytest.raises(Incompatible, match=reason):
        Gymnasium(Given(observation, action))


def test_mask_from_info():
    env = Gymnasium("Taxi-v4", 4)
    observation = env.reset()
    taxi = gymnasium.make("Taxi-v4").unwrapped
    for _ in range(300):
        assert env.action_mask.shape == (4, 6) and env.action_mask.dtype == bool
        assert (env.action_mask == [taxi.action_mask(state) for state in observation]).all()
        observation = env.step(env.action_mask.argmax(-1)).observation


def test_mask_from_the_observation():
    entries = {"action_mask": spaces.MultiBinary(2), "x": spaces.Box(-1, 1, (2,)), "y": spaces.Discrete(3)}
    env = Gymnasium(lambda: Given(spaces.Dict(entries)), 3)
    assert set(env.observation_space) == {"x", "y"}
    assert set(env.reset()) == {"x", "y"} and env.action_mask.shape == (3, 2) and env.action_mask.dtype == bool
    del entries["y"]
    env = Gymnasium(lambda: Given(spaces.Dict(entries)), 3)
    assert env.observation_space == entries["x"] and env.reset().shape == (3, 2)
    masks = set()
    for _ in range(20):
        env.reset()
        masks.add(env.action_mask.tobytes())
    assert len(masks) > 3
    continuous = Gymnasium(Given(spaces.Dict(entries), spaces.Box(-1, 1)))  # there it is an entry like others
    assert set(continuous.reset()) == {"x", "action_mask"} and continuous.action_mask is None
    with pytest.raises(Incompatible, match="has no entry to observe"):
        Gymnasium(Given(spaces.Dict({"action_mask": spaces.MultiBinary(2)})))


def test_mask_of_several_components():
    parts = (np.array([1, 0], np.int8), np.array([0, 1, 1], np.int8))
    for given_mask in (parts, list(parts), np.concatenate(parts)):
        env = Gymnasium(
            lambda mask=given_mask: Given(action_space=spaces.MultiDiscrete([2, 3]), info={"action_mask": mask}), 2
        )
        check_env(env)
        assert env.action_mask.tolist() == [[True, False, False, True, True]] * 2
    mixed = spaces.Tuple((spaces.Discrete(2), spaces.Box(0, 1), spaces.Discrete(3)))
    env = Gymnasium(lambda: Given(action_space=mixed, info={"action_mask": parts}), 2)
    check_env(env)
    assert env.action_mask.tolist() == [[True, False, False, True, True]] * 2
    observed = spaces.Dict(
        {"action_mask": spaces.Tuple((spaces.MultiBinary(2), spaces.MultiBinary(3))), "x": spaces.Discrete(2)}
    )
    env = Gymnasium(lambda: Given(observed, spaces.MultiDiscrete([2, 3])), 2)
    env.reset()
    assert env.action_mask.shape == (2, 5)


def test_where_nothing_is_allowed_at_an_episode_s_end():
    class Stuck(Toy):
        def look(self):
            allowed = self.t == 0 or self.t < self.length
            return super().look()[0], {"action_mask": np.full(3, allowed, np.int8)}

    for mode in AutoresetMode:
        env = Gymnasium(SyncVectorEnv([lambda i=i: Stuck(i) for i in range(2)], autoreset_mode=mode))
        check_env(env)  # demands one allowed action in each row


def test_mask_of_the_wrong_size():
    env = Gymnasium(lambda: Given(info={"action_mask": np.ones(3, np.int8)}), 2)
    with pytest.raises(EnvError, match=r"environment 0: an action mask for Discrete\(2\) has 2 entries, got 3"):
        env.reset()


def test_a_row_without_a_mask_allows_everything():
    made = iter([{}, {"action_mask": np.array([0, 1], np.int8)}])
    env = Gymnasium(lambda: Given(info=next(made)), 2)
    env.reset()
    assert env.action_mask.tolist() == [[True, True], [False, True]]


def test_what_is_wrong_with_the_action():
    env = Gymnasium("CartPole-v1", 2)
    env.reset()
    with pytest.raises(BadInput, match=r"CartPole-v1: an action must have shape \(2,\), got \(2, 1\)"):
        env.step(np.zeros((2, 1), int))
    with pytest.raises(BadInput, match=r"an action of Discrete\(2\) must be integers, got float64"):
        env.step(np.zeros(2))


def test_an_exception_inside_names_the_environment():
    class Bad(Toy):
        def step(self, action):
            if self.index == 1:
                raise ZeroDivisionError("the floor is gone")
            return super().step(action)

    made = iter(range(3))
    env = Gymnasium(lambda: Bad(next(made)), 3)
    env.reset()
    with pytest.raises(
        EnvError, match="Bad.* environment 1: step raised ZeroDivisionError: the floor is gone"
    ) as caught:
        env.step([0, 0, 0])
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    env = Gymnasium(SyncVectorEnv([lambda: Bad(1)]))
    env.reset()
    with pytest.raises(EnvError, match="step raised ZeroDivisionError: the floor is gone"):
        env.step([0])
    with pytest.raises(EnvError, match="CartPole-v1: environment 0: step raised ResetNeeded"):
        Gymnasium("CartPole-v1").step([0])


def test_what_cannot_be_wrapped():
    with pytest.raises(BadInput, match="one environment object is one environment: give a callable"):
        Gymnasium(Toy(), 2)
    with pytest.raises(BadInput, match="expected an id, a gymnasium.Env, a VectorEnv or a callable .* got int"):
        Gymnasium(3)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="must make a gymnasium.Env, it made dict"):
        Gymnasium(dict)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="num_envs must be at least 1, got 0"):
        Gymnasium(Toy, 0)
    with pytest.raises(BadInput, match="size, render_mode can be passed with an id only"):
        Gymnasium(Toy, size=3, render_mode="rgb_array")
    with pytest.raises(BadInput, match="'Nothing-v0' is not in gymnasium's registry"):
        Gymnasium("Nothing-v0")
    toy = Toy()
    with pytest.raises(BadInput, match="the same environment object twice"):
        Gymnasium(lambda: toy, 2)
    made = iter(range(2, 4))
    with pytest.raises(EnvError, match="do not have the same spaces"):
        Gymnasium(lambda: Given(spaces.Box(-1, 1, (next(made),))), 2)


def test_options_reach_the_environment():
    env = Gymnasium("CartPole-v1", max_episode_steps=7, sutton_barto_reward=True)
    assert env.max_episode_steps == 7 and Gymnasium("CartPole-v1", max_episode_steps=-1).max_episode_steps is None
    env.reset()
    steps = [env.step(np.array([t % 2])) for t in range(7)]
    assert all(step.reward[0] == 0 for step in steps) and steps[-1].truncated[0]


def test_render():
    assert Gymnasium("CartPole-v1").render() is None
    env = Gymnasium("CartPole-v1", 2, render_mode="rgb_array")
    env.reset()
    picture = env.render()
    assert picture.dtype == np.uint8 and picture.shape == (400, 600, 3) and picture.std() > 0
    env.close()


def test_stepping_imports_neither_torch_nor_tensordict():
    code = """
import sys
from whorl.envs.make import make_env
import whorl.envs.check
for prefer in ("native", "gymnasium"):
    env = make_env("CartPole-v1", 2, prefer=prefer)
    env.reset()
    env.step([0, 1])
print(sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "tensordict"}))
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
