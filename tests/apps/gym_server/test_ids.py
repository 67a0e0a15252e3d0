"""Which ids may be made: what is registered, retired names, nothing that an id could smuggle in."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

pytest.importorskip("starlette", reason="needs the extra server: pip install 'whorl[server]'")

from tests.cases import each
from whorl.apps.gym_server.ids import Native, register_libraries, resolved, single
from whorl.envs import native
from whorl.envs.make import make_env
from whorl.errors import BadInput

MALFORMED = "^Attempted to look up malformed environment ID '"


def hostile() -> list[Any]:
    """200 things that are no ids."""
    modules = (
        "os",
        "antigravity",
        "this",
        "turtledemo",
        "idlelib",
        "http.server",
        "xmlrpc",
        "wsgiref",
        "lib2to3",
        "cgi",
    )
    forms = (
        "{}:CartPole-v1",
        "{}",
        "{}:{}",
        "{}.Env-v0",
        "{}/Env-v0",
        "{}:Env",
        "ALE/{}",
        "file:{}",
        "{}:",
        ":{}",
        "{}-v1",
    )
    ids: list[Any] = [form.format(module, module) for module in modules for form in forms]
    ids += [
        f"{up}{name}"
        for up in ("../", "../../", "/", "..\\", "~/", "%2e%2e/", "C:\\")
        for name in ("etc/passwd", "x-v0")
    ]
    ids += [
        "CartPole-v1\0",
        "CartPole-v1\n",
        " CartPole-v1",
        "CartPole-v1 ",
        "cartpole-v1",
        "CartPole",
        "CartPole-v",
        "-v1",
    ]
    ids += [
        "СartPole-v1",
        "CartPole-v１",
        "CartPole‐v1",
        "\u202eCartPole-v1",
        "CartPole-v1\ufeff",
        "🤖-v0",
        "\ud800",
        "é" * 50,
    ]
    ids += [
        "A" * 10_000,
        "CartPole-v1" * 1000,
        "-v" + "9" * 9000,
        "a/" * 5000,
        ":" * 200,
        "[" * 99,
        "*",
        "?",
        "CartPole-*",
    ]
    ids += [
        "CartPole-v99",
        "CartPole-v999999999999",
        "CartPole-v-1",
        "CartPole-v1.0",
        "HalfCheetah-v99",
        "Pong-ram-v99",
    ]
    ids += [
        "GymV21Environment-v0",
        "GymV26Environment-v0",
        "phys2d/Nothing-v0",
        "tabular/",
        "ALE/",
        "ALE/../x",
        "/",
        "//",
    ]
    ids += [
        "__import__('os')",
        "os.system('true')",
        "${7*7}",
        "{{7*7}}",
        "{env_id}",
        "%s%n",
        "' OR 1=1 --",
        "<script>",
        "`id`",
    ]
    ids += [1, 1.5, True, {"id": "CartPole-v1"}, ["CartPole-v1"], {"entry_point": "os:system"}, [[]], -1]
    ids += [f"whorl.envs.native.{file}" for file in ("cartpole:CartPole", "probes:ProbeAction")]
    ids += [
        "http://127.0.0.1:1/CartPole-v1",
        "https://example.org/CartPole-v1",
        "HTTP://[::1]/CartPole-v1",
    ]  # make_env takes them
    ids += [f"module{i}:Env{i}-v0" for i in range(200 - len(ids))]
    return ids


def test_200_hostile_ids_import_nothing_and_create_nothing(http: Any) -> None:
    http.post("/v1/envs/", {"env_id": "nothing"})  # what a refusal itself needs is imported by now
    before, registered = set(sys.modules), set(gymnasium.registry)
    ids = hostile()
    assert len(ids) == 200
    for id in ids:
        message = http.post("/v1/envs/", {"env_id": id}).message
        assert message.startswith("Attempted to look up malformed environment ID '"), (id, message)
        assert len(message) < 600
        answer = http.post("/whorl/v1/vectors", {"env_id": id, "num_envs": 2})
        assert answer.status == 400 and answer.message.startswith("Attempted to look up malformed environment ID '")
    assert http.listed() == {}
    # two of the ids are registered: Gymnasium's adapters for older Gyms, which say what they need
    assert {name for name in set(sys.modules) - before if not name.startswith("gymnasium")} == set()
    assert set(gymnasium.registry) == registered


def test_an_id_says_why_it_is_refused() -> None:
    with pytest.raises(BadInput, match=MALFORMED + "CartPol-v1': there is .*CartPole-v1"):
        single("CartPol-v1")
    with pytest.raises(BadInput, match=MALFORMED + r"os:CartPole-v1': an id is a string of at most 100 letters"):
        single("os:CartPole-v1")
    with pytest.raises(BadInput, match=MALFORMED + r"A{100}\.\.\.': an id is a string"):
        single("A" * 10_000)


RETIRED = {
    "CartPole-v0": "CartPole-v0",  # still there
    "Pendulum-v0": "Pendulum-v1",
    "FrozenLake-v0": "FrozenLake-v1",
    "FrozenLake8x8-v0": "FrozenLake8x8-v1",
    "Blackjack-v0": "Blackjack-v1",
    "CliffWalking-v0": "CliffWalking-v1",
    "LunarLander-v2": "LunarLander-v3",
    "LunarLanderContinuous-v2": "LunarLanderContinuous-v3",
    "BipedalWalker-v2": "BipedalWalker-v3",
    "BipedalWalkerHardcore-v2": "BipedalWalkerHardcore-v3",
    "CarRacing-v0": "CarRacing-v3",
    "HalfCheetah-v1": "HalfCheetah-v5",
    "HalfCheetah-v2": "HalfCheetah-v5",
    "Humanoid-v3": "Humanoid-v5",
    "InvertedDoublePendulum-v1": "InvertedDoublePendulum-v5",
    "HalfCheetah-v4": "HalfCheetah-v4",
    "CartPole-v1": "CartPole-v1",
}


def test_retired_ids_are_those_of_today() -> None:
    for asked, today in each(RETIRED.items()):
        assert resolved(asked) == (today, {})


def test_taxi_is_the_newest_there_is() -> None:
    newest = max(id for id in gymnasium.registry if id.startswith("Taxi-v"))
    assert {resolved(f"Taxi-v{version}")[0] for version in (1, 2)} == {newest}


def test_a_version_that_is_still_registered_stands_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = gymnasium.registry["FrozenLake-v1"]
    monkeypatch.setitem(gymnasium.registry, "FrozenLake-v0", spec)
    assert resolved("FrozenLake-v0") == ("FrozenLake-v0", {})


@pytest.mark.parametrize("id", ["Pendulum-v0", "FrozenLake-v0", "Taxi-v1", "Blackjack-v0"])
def test_retired_ids_are_listed_as_they_were_asked_for(http: Any, id: str) -> None:
    made = http.create(id)
    assert http.listed() == {made: id}
    http.reset(made)


@pytest.mark.box2d
@pytest.mark.parametrize("id", ["LunarLander-v2", "BipedalWalker-v2"])
def test_retired_box2d(id: str) -> None:
    env = single(id)
    env.reset(seed=0)
    env.close()


@pytest.mark.mujoco
@pytest.mark.parametrize("id", ["HalfCheetah-v2", "InvertedPendulum-v1"])
def test_retired_mujoco(id: str) -> None:
    env = single(id)
    assert env.reset(seed=0)[0].ndim == 1
    env.close()


def test_atari_names() -> None:
    pytest.importorskip("ale_py", reason="needs ale-py")
    register_libraries()
    assert resolved("ALE/Pong-v5") == ("ALE/Pong-v5", {})
    picture, memory = single("Pong-v0"), single("Pong-ram-v0")
    assert picture.observation_space.shape == (210, 160, 3) and memory.observation_space.shape == (128,)
    for env in (picture, memory):
        assert env.spec is not None
        assert env.spec.kwargs["repeat_action_probability"] == 0.25 and env.spec.kwargs["frameskip"] == (2, 5)
        env.close()


def test_allowed_patterns() -> None:
    for asked in ("CartPole-v1", "Pendulum-v0", "Pendulum-v1"):
        assert resolved(asked, ("CartPole-*", "Pendulum-v1"))
    for refused in ("MountainCar-v0", "cartpole-v1", "GridWorld-v0"):
        with pytest.raises(BadInput, match=MALFORMED + f"{refused}': this server makes CartPole-\\*, Pendulum-v1$"):
            resolved(refused, ("CartPole-*", "Pendulum-v1"))


def test_a_missing_package_is_named(world: Any) -> None:
    def needs_more() -> gymnasium.Env:
        raise gymnasium.error.DependencyNotInstalled("fancy is not installed, run `pip install fancy`")

    id = world(needs_more)
    with pytest.raises(BadInput, match=MALFORMED + f"{id}': it cannot be made here: fancy is not installed"):
        single(id)


def test_an_environment_without_json_form_is_refused_and_closed(world: Any) -> None:
    closed = []

    class Graphs(gymnasium.Env):
        observation_space = spaces.Graph(spaces.Box(0, 1, (2,)), None)
        action_space = spaces.Discrete(2)

        def close(self) -> None:
            closed.append(True)

    with pytest.raises(BadInput, match=MALFORMED + ".*': it cannot be made here: a Graph space has no JSON form"):
        single(world(Graphs))
    assert closed == [True]


def test_native_worlds_step_as_gymnasium_environments() -> None:
    """Equal to the batched world of one, whose observation after an end is the next episode's first."""
    for id in each(sorted(set(native.WORLDS) - set(gymnasium.registry))):
        env, world = single(id), make_env(id, 1, 5)
        assert isinstance(env, Native)
        env.action_space.seed(0)
        observation, _ = env.reset(seed=5)
        expected: Any = _first(world.reset(5))
        ends = 0
        for _ in range(200):
            np.testing.assert_equal(observation, expected)
            action = env.action_space.sample()
            step = world.step(np.asarray(action)[None])
            observation, reward, terminated, truncated, info = env.step(action)
            np.testing.assert_equal(observation, _first(step.next_observation))
            assert (reward, terminated, truncated) == (step.reward[0], step.terminated[0], step.truncated[0])
            assert ("action_mask" in info) == (world.action_mask is not None)
            expected = _first(step.observation)
            if terminated or truncated:
                ends += 1
                observation, _ = env.reset()
            else:
                observation = _first(step.observation)
        assert ends > 0
        env.close()


def _first(observation: Any) -> Any:
    return {k: v[0].copy() for k, v in observation.items()} if isinstance(observation, dict) else observation[0].copy()


def test_native_world_begins_anew_in_mid_episode_and_with_a_seed() -> None:
    env = single("BitFlipping8-v0")
    first = env.reset(seed=3)[0]["desired_goal"]
    second = env.reset()[0]["desired_goal"]
    assert not np.array_equal(first, second)
    while not env.step(0)[3]:
        pass
    np.testing.assert_array_equal(env.reset(seed=3)[0]["desired_goal"], first)
    with pytest.raises(BadInput, match="expected an environment of one"):
        Native(make_env("GridWorld-v0", 2))


def test_unseeded_native_worlds_differ() -> None:
    goals = [single("BitFlipping15-v0").reset()[0]["desired_goal"].tobytes() for _ in range(4)]
    assert len(set(goals)) > 1


def test_the_mask_is_in_info(http: Any) -> None:
    id = http.create("GridWorld-v0")
    assert http.post(f"/v1/envs/{id}/reset/").json == {
        "observation": 0,
        "info": {"action_mask": [False, True, True, False]},
    }


def test_flatten(http: Any) -> None:
    id = http.create("Blackjack-v0", flatten=True, seed=0)
    space = http.get(f"/v1/envs/{id}/observation_space/").json["info"]
    assert space["name"] == "Box" and space["shape"] == [45] and len(space["low"]) == 45
    observation = http.reset(id)
    assert len(observation) == 45 and sum(observation) == 3
    id = http.create("BitFlipping8-v0", flatten="true")
    assert np.shape(http.reset(id)) == (24,)


def test_pictures_can_be_drawn_where_the_environment_has_them(world: Any) -> None:
    assert single("CartPole-v1").render_mode == "rgb_array"

    class Blind(gymnasium.Env):
        observation_space = action_space = spaces.Discrete(2)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert single(world(Blind)).render_mode is None
