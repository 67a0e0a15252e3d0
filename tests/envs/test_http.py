"""The HTTP client against real servers: what comes over HTTP is what the same environment gives in process, to the bit."""

from __future__ import annotations

import json
import threading

import gymnasium
import numpy as np
import pytest

import whorl
from tests.envs.http_servers import original, registered, spoiling
from tests.envs.same_walk import assert_same_walk, equal
from tests.training.fingerprint import fingerprint
from whorl.apps.cli import main
from whorl.envs.adapters.gym_client import Connection, GymClient
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.adapters.http import Http
from whorl.envs.check import check_env
from whorl.envs.ids import TOKEN, check_no_token, environment_behind, place
from whorl.envs.make import make_env
from whorl.errors import BadInput, EnvError, Incompatible
from whorl.training.catalog import find

whorls = "whorl's"


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)


# ------------------------------------------------------------------------------------------------ equal to in process


@pytest.mark.parametrize(
    ("id", "steps"),
    [
        ("CartPole-v1", 2000),  # native
        ("FrozenLake-v1", 2000),  # Gymnasium's; Discrete observations
        ("Pendulum-v1", 750),  # Box actions, time limits
        ("Taxi-v4", 750),  # action masks
        ("Blackjack-v1", 200),  # a Dict of discrete parts
        ("BitFlipping8-v0", 200),  # a Dict of Boxes
    ],
)
def test_vector_protocol_equals_in_process(id, steps, base):
    remote, local = Http(f"{base}/{id}", 8, seed=3, protocol="vector"), make_env(id, 8, seed=3)
    assert (remote.observation_space, remote.action_space) == (local.observation_space, local.action_space)
    assert remote.max_episode_steps == local.max_episode_steps
    assert remote.reward_threshold == local.reward_threshold
    for seed in (None, 11, None):  # the constructor's, a new one, and on with its streams
        assert equal(remote.reset(seed), local.reset(seed))
        assert assert_same_walk(remote, local, steps // 3) > 0
    assert remote.id == f"{base}/{id}" and repr(remote) == f"{base}/{id} (http, 8 at once, on cpu)"
    remote.close()


@pytest.mark.parametrize("server", ["whorl's", "original"])
@pytest.mark.parametrize("id", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1"])
def test_v1_protocol_equals_the_gymnasium_adapter(id, server, base, old):
    remote = Http(f"{base if server == whorls else old[0]}/{id}", 4, seed=3, protocol="v1")
    local = Gymnasium(id, 4, seed=3)
    assert (remote.observation_space, remote.action_space) == (local.observation_space, local.action_space)
    for seed in (None, 11, None):  # the original takes a seed with a new instance only
        assert equal(remote.reset(seed), local.reset(seed))
        assert assert_same_walk(remote, local, 250) > 0
    remote.close()


def test_v1_action_masks(base):
    remote, local = Http(f"{base}/Taxi-v4", 3, seed=1, protocol="v1"), Gymnasium("Taxi-v4", 3, seed=1)
    assert equal(remote.reset(), local.reset()) and equal(remote.action_mask, local.action_mask)
    assert remote.action_mask is not None
    assert assert_same_walk(remote, local, 250) > 0
    remote.close()


class Shifted(gymnasium.Env):
    """Counts on from -2: its spaces do not start at 0."""

    observation_space = gymnasium.spaces.Discrete(6, start=-2)
    action_space = gymnasium.spaces.Discrete(3, start=5)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at = int(self.np_random.integers(2)) - 2
        return self.at, {}

    def step(self, action):
        assert 5 <= action <= 7
        self.at = min(self.at + int(action) - 5, 3)
        return self.at, float(action), self.at == 3, False, {}


@pytest.mark.parametrize("protocol", ["vector", "v1"])
def test_discrete_spaces_that_do_not_start_at_0(protocol, base):
    with registered("HttpShifted-v0", Shifted):
        remote, local = Http(f"{base}/HttpShifted-v0", 3, protocol=protocol), Gymnasium("HttpShifted-v0", 3)
        assert remote.action_space == local.action_space and remote.observation_space == local.observation_space
        assert equal(remote.reset(1), local.reset(1))
        assert assert_same_walk(remote, local, 50) > 0
        remote.close()


def test_which_protocol(base, old):
    assert Http(f"{base}/Pendulum-v1").reward_threshold is None
    env = Http(f"{old[0]}/Pendulum-v1", max_episode_steps=7)  # not whorl's: /v1, and the limit is counted here
    env.reset()
    cut = [bool(env.step(np.zeros((1, 1), np.float32)).truncated[0]) for _ in range(21)]
    assert [t for t, c in enumerate(cut) if c] == [6, 13, 20] and env.max_episode_steps == 7
    env.close()
    with pytest.raises(
        BadInput, match="is not a server of whorl's, so it has no protocol 'vector': use 'v1', or 'auto'"
    ):
        Http(f"{old[0]}/Pendulum-v1", protocol="vector")
    with pytest.raises(BadInput, match="protocol must be 'auto', 'vector' or 'v1', got 'V1'"):
        Http(f"{base}/Pendulum-v1", protocol="V1")


def test_v1_sends_all_requests_before_it_reads_an_answer(base):
    """The proxy gives no answer to a step before all have asked: one request after the other would wait for ever."""
    all_asked = threading.Barrier(4, timeout=60)

    def spoil(method, path, status, body):
        if path.endswith(("/step/", "/reset/")):
            all_asked.wait()
        return status, body

    with spoiling(base, spoil) as url:
        remote = Http(f"{url}/CartPole-v1", 4, protocol="v1", max_episode_steps=3)
        local = Gymnasium("CartPole-v1", 4, max_episode_steps=3)
        assert equal(remote.reset(1), local.reset(1))
        assert assert_same_walk(remote, local, 8) == 8  # all end at once, and are reset together
        remote.close()


def test_time_limit_on_the_server(base):
    remote, local = (make_env(id, 2, max_episode_steps=9) for id in (f"{base}/CartPole-v1", "CartPole-v1"))
    assert remote.max_episode_steps == 9
    assert equal(remote.reset(5), local.reset(5))
    assert assert_same_walk(remote, local, 50) > 0
    remote.close()


def test_state_goes_both_ways(base):
    remote, local = Http(f"{base}/CartPole-v1", 4, seed=1), make_env("CartPole-v1", 4, seed=1)
    assert equal(remote.reset(), local.reset())
    assert_same_walk(remote, local, 40)
    state, standing = remote.state(), local.step(np.zeros(4, np.int64)).observation.copy()
    assert equal(remote.step(np.zeros(4, np.int64)).observation, standing)
    assert_same_walk(remote, local, 40)
    other = Http(f"{base}/CartPole-v1", 4, seed=7)  # needs no reset before
    here, there = other.load_state(state), make_env("CartPole-v1", 4)
    assert equal(here, there.load_state(state))
    assert equal(other.state(), state) and equal(there.state(), state)
    assert assert_same_walk(other, there, 200) > 0
    with pytest.raises(BadInput, match="answered 400: expected .*float64 of shape"):
        other.load_state(make_env("CartPole-v1", 3).state())
    other.close()
    frozen = Http(f"{base}/FrozenLake-v1")
    assert frozen.state() is None
    with pytest.raises(BadInput, match="cannot save its state"):
        frozen.load_state(state)


def test_seeds_of_numpy(base):
    env = make_env(base.replace("http", "HTTP") + "/CartPole-v1", 2, seed=np.int64(3))  # whatever the case
    local = make_env("CartPole-v1", 2, seed=3)
    assert equal(env.reset(), local.reset())
    assert equal(env.reset(np.uint32(5)), local.reset(5))
    env.close()
    client = GymClient(base)
    instance = client.env_create("CartPole-v1", seed=np.int64(3))
    assert client.env_reset(instance, seed=np.int32(5)) == gymnasium.make("CartPole-v1").reset(seed=5)[0].tolist()
    with pytest.raises(BadInput, match="must be of numbers, texts, lists and dicts, to be sent as JSON .*'set'"):
        client.env_step(instance, {1})
    client.env_close(instance)


def test_pictures(base, old):
    remote, local = Http(f"{base}/CartPole-v1", 2, seed=1), make_env("CartPole-v1", 2, seed=1)
    assert equal(remote.reset(), local.reset())
    assert equal(remote.render(), local.render()) and remote.render().ndim == 3
    frozen = make_env(f"{base}/FrozenLake-v1", render_mode="rgb_array"), Http(f"{base}/FrozenLake-v1")
    for env in frozen:
        env.reset(0)
    assert frozen[0].render().dtype == np.uint8 and frozen[1].render() is None
    with pytest.raises(BadInput, match=r"gym-http-api \(/v1\) has no pictures"):
        Http(f"{old[0]}/FrozenLake-v1", render_mode="rgb_array")
    with pytest.raises(BadInput, match="render_mode must be None or 'rgb_array', got 'human'"):
        Http(f"{base}/FrozenLake-v1", render_mode="human")


@pytest.mark.parametrize("protocol", ["vector", "v1"])
@pytest.mark.parametrize("id", ["CartPole-v1", "Pendulum-v1"])
def test_keeps_the_contract(id, protocol, base):
    env = Http(f"{base}/{id}", 3, protocol=protocol)
    check_env(env, steps=250)
    env.close()


def test_the_original_server_keeps_the_contract():
    with original() as (url, instances):
        env = Http(f"{url}/CartPole-v1", 3)
        check_env(env, steps=60)
        assert len(instances) == 3  # those that seeded resets replaced were freed
        env.close()
        assert not instances


def test_closing_frees_and_is_harmless_twice(base):
    client = GymClient(base)
    before = client.env_list_all()
    env = Http(f"{base}/CartPole-v1", 3, protocol="v1")
    assert len(client.env_list_all()) == len(before) + 3
    vector = Http(f"{base}/CartPole-v1", 3)
    vector.reset()
    for each in (env, vector):
        each.close()
        each.close()
        with pytest.raises(BadInput, match="was closed: make a new one"):
            each.reset(0)
    assert client.env_list_all() == before
    connection = Connection(base, None, 60)
    assert connection.ask("GET", f"{vector._remote._at}/render")[0] == 404


# ------------------------------------------------------------------------------------------------ what was asked wrongly


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "http://127.0.0.1:5000",
            "names a server: add the environment's id, such as http://127.0.0.1:5000/CartPole-v1",
        ),
        (
            "http://127.0.0.1:99999/X-v0",
            "expected a URL such as http://127.0.0.1:5000/CartPole-v1, got one whose host or port cannot",
        ),
        ("http://u:secret/word@127.0.0.1/X-v0", "a password needs %2F for /"),
        ("http:///CartPole-v1", "expected a URL such as"),
        ("http://a b/CartPole-v1", "expected a URL such as"),
        ("http://host/CartPole-v1?x=1", "with neither query nor fragment"),
        ("ftp://host/CartPole-v1", "expected a URL such as"),
        ("http://secret@127.0.0.1/X-v0", "a token is its password, as in http://user:TOKEN@127.0.0.1"),
    ],
)
def test_wrong_urls(url, message):
    with pytest.raises(BadInput, match=message) as caught:
        Http(url)
    assert "secret" not in str(caught.value)


def test_wrong_numbers_and_options(base):
    with pytest.raises(BadInput, match="num_envs must be at least 1, got 0"):
        Http(f"{base}/CartPole-v1", 0)
    with pytest.raises(BadInput, match="max_episode_steps must be at least 1, got 0"):
        Http(f"{base}/CartPole-v1", max_episode_steps=0)
    with pytest.raises(
        BadInput, match="has no option speed, only render_mode, max_episode_steps, protocol and timeout"
    ):
        make_env(f"{base}/CartPole-v1", speed=3)
    for options in ({"device": "cuda"}, {"prefer": "gymnasium"}):
        with pytest.raises(BadInput, match="stepped there: leave device and prefer out"):
            make_env(f"{base}/CartPole-v1", **options)
    env = make_env(
        f"{base}/CartPole-v1", prefer=Http.origin
    )  # as asynchronous workers ask for the environments of their run
    assert env.origin == "http"
    env.close()
    with pytest.raises(BadInput, match="seed must be 0 or more, got -1"):
        Http(f"{base}/CartPole-v1", seed=-1, protocol="v1")


@pytest.mark.parametrize("protocol", ["vector", "v1"])
def test_unknown_environment(protocol, base):
    with pytest.raises(BadInput, match=f"{base}.* 400: Attempted to look up malformed environment ID 'CartPol-v1'"):
        Http(f"{base}/CartPol-v1", protocol=protocol)


def test_spaces_that_v1_does_not_carry(base):
    with pytest.raises(
        Incompatible, match="observation space of .*Blackjack-v1 is a Tuple space, .* only Box and Discrete"
    ):
        Http(f"{base}/Blackjack-v1", protocol="v1")


@pytest.mark.parametrize("protocol", ["vector", "v1"])
def test_wrong_actions(protocol, base):
    env = Http(f"{base}/CartPole-v1", 3, protocol=protocol)
    with pytest.raises(BadInput, match=r"reset\(\) before step\(\)"):
        env.step(np.zeros(3, np.int64))
    env.reset(0)
    for action, message in (
        (np.zeros(2, np.int64), r"expected actions int64 of shape \(3,\), got int64 of \(2,\)"),
        (np.zeros(3), r"got float64 of \(3,\)"),
        (np.array([0, 2, 1]), r"an action of Discrete\(2\) cannot be 2 \(environment 1\)"),
        (np.array([0, 1, -1]), r"cannot be -1 \(environment 2\)"),
    ):
        with pytest.raises(BadInput, match=message):
            env.step(action)
    env.step(np.zeros(3, np.int32))  # nothing was sent before, so it goes on
    env.close()
    box = Http(f"{base}/Pendulum-v1", protocol="v1")
    box.reset(0)
    with pytest.raises(BadInput, match="holds NaN or infinity, which JSON cannot carry"):
        box.step(np.full((1, 1), np.nan, np.float32))
    box.close()


# ------------------------------------------------------------------------------------------------ tokens


def test_tokens(base, tmp_path, monkeypatch):
    from whorl.apps.gym_server.serve import running

    with running(root=tmp_path, token="open sesame:/") as url:
        host = url.removeprefix("http://")
        with pytest.raises(BadInput, match=f"answered 401: .*put it into the environment variable {TOKEN}"):
            Http(f"{url}/CartPole-v1")
        with pytest.raises(BadInput, match="401") as caught:
            Http(f"http://u:wrong@{host}/CartPole-v1")
        assert "wrong" not in str(caught.value)
        env = Http(f"http://u:open%20sesame%3A%2F@{host}/CartPole-v1")
        assert env.id == f"{url}/CartPole-v1" and "sesame" not in repr(env)
        env.reset(0)
        env.close()
        monkeypatch.setenv(TOKEN, "open sesame:/")
        env = Http(f"{url}/CartPole-v1", 2, protocol="v1")
        env.reset(0)
        env.close()
        assert GymClient(url).env_list_all() == {}
        with pytest.raises(EnvError, match="401"):
            GymClient(url, token="other").env_list_all()


def test_a_run_refuses_a_url_with_a_token(tmp_path):
    with pytest.raises(BadInput, match=f"must not hold a token.* set the environment variable {TOKEN}") as caught:
        whorl.train("ppo", "http://u:sesame@127.0.0.1:1/CartPole-v1", runs=tmp_path)
    assert "sesame" not in str(caught.value) and not list(tmp_path.iterdir())
    with pytest.raises(BadInput, match="must not hold a token"):
        check_no_token("HTTP://u:sesame@127.0.0.1:1/CartPole-v1")
    check_no_token("http://127.0.0.1:1/CartPole-v1")
    check_no_token("CartPole-v1")


def test_addresses():
    assert place("https://u:p%40ss@[::1]:8000/ALE/Pong-v5") == ("https://[::1]:8000", "ALE/Pong-v5", "p@ss")
    assert environment_behind("http://h/ALE/Pong-v5") == "ALE/Pong-v5"
    assert environment_behind("Https://h/ALE/Pong-v5") == "ALE/Pong-v5"
    assert environment_behind("ALE/Pong-v5") == "ALE/Pong-v5"
    assert find("ppo", "http://h:1/CartPole-v1") is find("ppo", "CartPole-v1")


# ------------------------------------------------------------------------------------------------ runs


def test_training_equals_in_process(base, tmp_path):
    common = {"total_steps": 2048, "num_envs": 8, "seed": 2, "eval_episodes": 3, "quiet": True}
    remote = whorl.train("ppo", f"{base}/CartPole-v1", runs=tmp_path / "http", **common)
    local = whorl.train("ppo", "CartPole-v1", runs=tmp_path / "local", **common)
    returns = [(run.path / "episodes.csv").read_bytes() for run in (remote, local)]
    assert returns[0] == returns[1] and len(returns[0].splitlines()) > 50
    assert fingerprint(remote.path) == fingerprint(local.path)
    settings = json.loads((remote.path / "config.json").read_text())
    assert settings["env"] == f"{base}/CartPole-v1"
    assert whorl.load(remote.path, env=f"{base}/CartPole-v1").evaluate(3).returns.mean() > 0


@pytest.mark.learning
def test_ppo_over_http_reaches_475(base, tmp_path):
    main(["train", "ppo", f"{base}/CartPole-v1", "--num-envs", "8", "--runs", str(tmp_path), "--quiet"])
    assert json.loads((tmp_path / "last" / "eval.json").read_text())["best"]["mean"] >= 475
