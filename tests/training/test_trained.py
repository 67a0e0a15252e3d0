"""What a trained policy takes and gives: the environment's own observations and actions."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

import whorl
from whorl.errors import BadInput
from whorl.policies.policy import Policy
from whorl.training.actor import TrainedActor
from whorl.training.trained import Trained

ACTIONS: dict[str, spaces.Space] = {
    "discrete": spaces.Discrete(3),
    "discrete from -1": spaces.Discrete(3, start=-1),
    "box": spaces.Box(-2, 2, (3,)),
    "box of no axis": spaces.Box(-2, 2, ()),
    "box of two axes": spaces.Box(-2, 2, (2, 2)),
    "box without bounds": spaces.Box(-np.inf, np.inf, (2,)),
    "float64 box": spaces.Box(np.array([-1.0, 0.0]), np.array([1.0, 0.1]), dtype=np.float64),
    "integer box": spaces.Box(-3, 3, (2,), np.int16),
    "multi-discrete": spaces.MultiDiscrete([3, 2]),
    "multi-discrete of two axes": spaces.MultiDiscrete([[2, 3, 4], [5, 2, 3]], start=[[0, 1, 2], [3, 4, 5]]),
    "multi-binary": spaces.MultiBinary(3),
    "multi-binary of two axes": spaces.MultiBinary((2, 2)),
    "tuple": spaces.Tuple((spaces.Discrete(2, start=4), spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2))),
    "dict": spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Dict({"c": spaces.Box(0, 5, (1,))})}),
    "mixed": spaces.Dict(
        {
            "a": spaces.Box(-1, 1, (2, 2), np.float64),
            "b": spaces.Tuple((spaces.Discrete(3, start=-1), spaces.Box(0, 9, (), np.int16), spaces.MultiBinary(2))),
        }
    ),
}
OBSERVATIONS: dict[str, spaces.Space] = {
    "box": spaces.Box(-1, 1, (2,), np.float64),
    "box of no axis": spaces.Box(-1, 1, ()),
    "box of two axes": spaces.Box(-1, 1, (2, 2)),
    "discrete": spaces.Discrete(4, start=7),
    "multi-discrete": spaces.MultiDiscrete([[2, 3], [4, 2]]),
    "image": spaces.Box(0, 255, (3,), np.uint8),
    "tuple": spaces.Tuple((spaces.Discrete(3, start=-1), spaces.Box(-1, 1, (2,)))),
    "dict": spaces.Dict({"x": spaces.Box(-1, 1, (2,)), "y": spaces.Tuple((spaces.MultiBinary(2), spaces.Discrete(2)))}),
}


class Strict(gymnasium.Env):
    """Takes nothing but what is in its action space; what it shows is drawn from its observation space."""

    def __init__(self, action: spaces.Space, observation: spaces.Space = OBSERVATIONS["box"]):
        self.action_space, self.observation_space = action, observation

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        if seed is not None:
            self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(action), action
        self.t += 1
        return self.observation_space.sample(), 0.0, False, self.t == 5, {}


def trained(path, env: gymnasium.Env, agent: str = "ppo", **fields: Any) -> Trained:
    run = whorl.train(agent, env, runs=path, total_steps=8, quiet=True, **fields)
    return whorl.load(run.path, env=env)


def small(path, action: spaces.Space, observation: spaces.Space = OBSERVATIONS["box"]) -> Trained:
    return trained(path, Strict(action, observation), feed={"steps": 8, "epochs": 1, "minibatches": 1}, hidden=(4,))


@pytest.mark.parametrize("kind", ACTIONS)
def test_an_environment_takes_what_predict_gives(tmp_path, kind):
    agent = small(tmp_path, ACTIONS[kind])
    one, many = Strict(ACTIONS[kind]), SyncVectorEnv([lambda: Strict(ACTIONS[kind])] * 3)
    for deterministic in (True, False):
        observation, _ = one.reset(seed=1)
        batch, _ = many.reset(seed=2)
        for _ in range(10):
            observation = one.step(agent.predict(observation, deterministic=deterministic))[0]
            batch = many.step(agent.predict(batch, deterministic=deterministic))[0]  # each of the three asserts


@pytest.mark.parametrize("kind", OBSERVATIONS)
def test_predict_takes_what_an_environment_shows(tmp_path, kind):
    agent = small(tmp_path, spaces.Box(-9, 9, (2,)), OBSERVATIONS[kind])
    many = SyncVectorEnv([lambda: Strict(spaces.Box(-9, 9, (2,)), OBSERVATIONS[kind])] * 3)
    batch, _ = many.reset(seed=3)
    for _ in range(3):
        actions = agent.predict(batch)
        np.testing.assert_array_equal(agent.actor(3)(batch, np.ones(3, bool)), actions)
        for i, single in enumerate(gymnasium.vector.utils.iterate(many.observation_space, batch)):
            np.testing.assert_allclose(agent.predict(single), actions[i], rtol=1e-5, atol=1e-6)
        batch = many.step(actions)[0]


@pytest.mark.parametrize(
    "kind, observation, words",
    [
        ("box", [0.0, 0.0, 0.0], r"the observation: expected the shape \(2,\), or \(N, 2\) for a batch, got \(3,\)"),
        ("box", np.zeros((0, 2)), r"or \(N, 2\) for a batch, got \(0, 2\)"),
        ("box", [0.0, np.nan], "expected finite numbers, got nan"),
        ("box", [0.0, 1e300], r"expected finite numbers, got 1e\+300"),
        ("box", ["a", "b"], "expected an array of numbers, got list of <U1"),
        ("box", [[0.0], [0.0, 1.0]], "expected an array of numbers, got list"),
        ("box", {"x": [0.0, 0.0]}, "expected an array of numbers, got dict of object"),
        ("discrete", 6, "expected whole numbers from 7 to 10, got 6"),
        ("discrete", [7, 11], "expected whole numbers from 7 to 10, got 11"),
        ("discrete", 7.5, "expected whole numbers from 7 to 10, got 7.5"),
        ("multi-discrete", [[0, 0], [0, 2]], "expected whole numbers from 0 to 1, got 2"),
        ("image", [0, 0, 256], "expected whole numbers from 0 to 255, got 256"),
        ("tuple", (0, [0.0]), r"the observation\[1\]: expected the shape \(2,\)"),
        ("tuple", (0,), "expected a tuple of 2 parts, got 1"),
        ("tuple", {"0": 0, "1": [0.0, 0.0]}, "expected a tuple of 2 parts, got a dict"),
        ("tuple", (0, np.zeros((3, 2))), r"the observation\[0\] has no batch, the observation\[1\] has 3 rows"),
        ("dict", {"x": [0.0, 0.0]}, "expected a dict with the keys 'x', 'y', got the keys 'x'"),
        ("dict", [0.0], "expected a dict with the keys 'x', 'y', got a list"),
        (
            "dict",
            {"x": [0.0, 0.0], "y": ([0, 2], 0)},
            r"the observation\['y'\]\[0\]: expected whole numbers from 0 to 1",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path_factory, kind, observation, words, agents={}):  # noqa: B006
    if kind not in agents:  # one run for each space
        agents[kind] = small(tmp_path_factory.mktemp("runs"), spaces.Discrete(2), OBSERVATIONS[kind])
    with pytest.raises(BadInput, match=words):
        agents[kind].predict(observation)


class Masked(Strict):
    """Shows which actions are allowed beside what it shows."""

    def __init__(self) -> None:
        shown = spaces.Dict({"action_mask": spaces.MultiBinary(3), "x": spaces.Box(-1, 1, (2,))})
        super().__init__(spaces.Discrete(3, start=1), shown)

    def reset(self, **kwargs: Any) -> tuple[Any, dict]:
        observation, info = super().reset(**kwargs)
        return {**observation, "action_mask": np.array([0, 1, 0], np.int8)}, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        observation, *rest = super().step(action)
        return {**observation, "action_mask": np.array([0, 1, 0], np.int8)}, *rest


def test_a_mask_in_the_observation_or_beside_it(tmp_path):
    agent = trained(tmp_path, Masked(), feed={"steps": 8, "epochs": 1, "minibatches": 1})
    for allowed in range(3):
        mask = (np.arange(3) == allowed).astype(np.int8)
        assert agent.predict({"x": [0.5, 0.5], "action_mask": mask}) == allowed + 1
        batch = {"x": np.zeros((2, 2)), "action_mask": np.stack([mask, mask])}
        assert agent.predict(batch, deterministic=False).tolist() == [allowed + 1] * 2
    free = small(tmp_path, spaces.Discrete(3))
    assert [free.predict([0.0, 0.0], np.arange(3) == i) for i in range(3)] == [0, 1, 2]
    with pytest.raises(BadInput, match=r"expected the shape \(1, 3\), one entry for each action, got \(2,\)"):
        free.predict([0.0, 0.0], [True, True])
    with pytest.raises(BadInput, match="allows no action at all"):
        free.predict([0.0, 0.0], np.zeros(3, bool))
    mixed = small(tmp_path, ACTIONS["mixed"])
    masks = [(np.arange(7) == i) | (np.arange(7) > 2) for i in range(3)]  # of all choices, in the space's order
    assert [mixed.predict([0.0, 0.0], mask)["b"][0] for mask in masks] == [-1, 0, 1]
    with pytest.raises(BadInput, match="action_mask is for discrete actions"):
        small(tmp_path, spaces.Box(-1, 1, (2,))).predict([0.0, 0.0], [True, True])


def test_drawn_actions_come_from_the_generator(tmp_path):
    agent = small(tmp_path, spaces.Box(-9, 9, (1,)))
    observation = [0.3, -0.3]

    def drawn(seed: int) -> list[float]:
        generator = torch.Generator().manual_seed(seed)
        return [float(agent.predict(observation, None, False, generator)[0]) for _ in range(3)]

    assert drawn(1) == drawn(1) != drawn(2) and len(set(drawn(1))) == 3
    own = [float(agent.predict(observation, deterministic=False)[0]) for _ in range(2)]
    assert own[0] != own[1] and agent.predict(observation) == agent.predict(observation)
    uniform = trained(tmp_path, Strict(spaces.Discrete(3, start=2)), "random")
    assert {int(uniform.predict(observation, deterministic=False)) for _ in range(50)} == {2, 3, 4}
    with pytest.raises(BadInput, match="no greedy action: pass deterministic=False"):
        uniform.predict(observation)


class Counting(Policy):
    """Its action is how many steps it has seen of the episode."""

    recurrent = True

    def initial(self, n):
        return {"steps": torch.full((n,), -1)}

    def act(self, observation, carry, is_first, noise, action_mask=None):
        steps = torch.where(is_first, 0, carry["steps"] + 1)
        return {"action": steps}, {"steps": steps}


def test_an_actor_keeps_the_memory_that_predict_refuses_to_lose(tmp_path):
    agent = small(tmp_path, spaces.Discrete(9, start=10))
    agent.policy = Counting()
    with pytest.raises(BadInput, match=r"ppo remembers its episode, and predict .*trained.actor\(n\)"):
        agent.predict([0.0, 0.0])
    actor, batch = agent.actor(2), np.zeros((2, 2))
    assert isinstance(actor, TrainedActor)
    with pytest.raises(BadInput, match="is_first: environment 1 has begun no episode yet"):
        actor(batch, [True, False])
    firsts = [[True, True], [False, False], [False, True], [False, False]]
    assert [actor(batch, first).tolist() for first in firsts] == [[10, 10], [11, 11], [12, 10], [13, 11]]
    with pytest.raises(BadInput, match=r"is_first: expected bools of shape \(2,\), got int64"):
        actor(batch, [0, 1])
    with pytest.raises(BadInput, match="this actor acts in 2 environments, got 3 observations"):
        actor(np.zeros((3, 2)), True)
    with pytest.raises(BadInput, match="expected a batch of observations"):
        actor(np.zeros(2), True)
    with pytest.raises(BadInput, match="at least 1 environment"):
        agent.actor(0)


def test_noise_that_lasts_wants_an_actor(tmp_path):
    settings = {"noise": "ou", "feed": {"batch_size": 4, "warmup": 4}}
    agent = trained(tmp_path, Strict(spaces.Box(-1, 1, (2,))), "ddpg", **settings)
    assert agent.predict([0.0, 0.0]).shape == (2,)  # greedily there is none
    with pytest.raises(BadInput, match="draws numbers that last for several steps"):
        agent.predict([0.0, 0.0], deterministic=False)
    actor = agent.actor(1, deterministic=False)
    assert actor([[0.0, 0.0]], True).tolist() != actor([[0.0, 0.0]], False).tolist()


def test_a_run_is_loaded_by_itself_and_filmed_by_a_text(tmp_path):
    run = whorl.train("ppo", "CartPole-v1", runs=tmp_path, total_steps=64, num_envs=1, eval_every=0, quiet=True)
    loaded = whorl.load(run)
    assert loaded.path == run.path.resolve()
    loaded.film(f"{tmp_path}/film.gif", seed=1)
    assert (tmp_path / "film.gif").stat().st_size
    for call in (whorl.load, whorl.resume):
        with pytest.raises(BadInput, match="a run is named by its path, a text or a Path; got int"):
            call(3)
        with pytest.raises(BadInput, match="ppo takes a PPOConfig as its config, got dict"):
            call(run, config={})
    with pytest.raises(BadInput, match=r"got dict: config=PPOConfig\(\.\.\.\), or its fields as arguments"):
        whorl.train("ppo", "CartPole-v1", config={"learning_rate": 1}, runs=tmp_path)
    for call in (
        loaded.film,
        loaded.export,
        lambda path: whorl.train(recipe=path),
        lambda path: whorl.train("ppo", "CartPole-v1", runs=path),
    ):
        with pytest.raises(BadInput, match="is named by its path, a text or a Path; got dict"):
            call({})
