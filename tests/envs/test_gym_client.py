"""The original Python client's calls, against whorl's server and against one that behaves as the original did."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from tests.envs.http_servers import spoiling
from whorl.envs.adapters.gym_client import GymClient
from whorl.envs.ids import TOKEN
from whorl.errors import BadInput, EnvError

whorls = "whorl's"


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)


@pytest.mark.parametrize("server", ["whorl's", "original"])
def test_a_session_of_the_original_client(server, base, old):
    url = base if server == whorls else old[0]
    client = GymClient(url)
    before = client.env_list_all()
    instance = client.env_create("CartPole-v1")
    assert client.env_list_all() == before | {instance: "CartPole-v1"}
    assert client.env_action_space_info(instance)["name"] == "Discrete"
    assert client.env_action_space_info(instance)["n"] == 2
    assert [client.env_action_space_contains(instance, x) for x in (0, 1, 2)] == [True, True, False]
    info = client.env_observation_space_info(instance)
    assert (info["name"], info["shape"], len(info["low"]), len(info["high"])) == ("Box", [4], 4, 4)
    assert client.env_observation_space_contains(instance, {"name": "Box", "shape": (4,)}) is True
    assert client.env_observation_space_contains(instance, {"name": "Discrete"}) is False
    for _ in range(3):
        observation, done = client.env_reset(instance), False
        assert len(observation) == 4
        while not done:
            action = client.env_action_space_sample(instance)
            observation, reward, done, info = client.env_step(instance, action, render=server == whorls)
            assert (type(reward), type(done), type(info), len(observation)) == (float, bool, dict, 4)
    lake = client.env_create("FrozenLake-v1")
    assert client.env_reset(lake) == 0
    assert type(client.env_step(lake, np.int64(1))[0]) is int
    client.env_close(lake)
    client.env_close(instance)
    client.close()
    assert instance not in client.env_list_all()


def test_seeds_of_the_client(base):
    client = GymClient(base)
    one, other = client.env_create("CartPole-v1", seed=0), client.env_create("CartPole-v1")
    first = client.env_reset(one)
    assert first == gymnasium.make("CartPole-v1").reset(seed=0)[0].tolist() == client.env_reset(other, seed=0)
    client.env_close(one), client.env_close(other)


def test_refusals_reach_the_client(base, monkeypatch):
    client = GymClient(base)
    for call in (
        client.env_reset, client.env_close, client.env_monitor_close, client.env_action_space_info,
        client.env_observation_space_info, lambda id: client.env_step(id, 1), lambda id: client.env_monitor_start(id, "x"),
    ):  # fmt: skip
        with pytest.raises(EnvError, match=f"POST|GET {base}/v1/envs/bad_id/.* 400: Instance_id bad_id unknown"):
            call("bad_id")
    with pytest.raises(EnvError, match="400: Attempted to look up malformed environment ID 'bad string'"):
        client.env_create("bad string")
    with pytest.raises(EnvError, match="400: A required request parameter 'env_id' was not provided"):
        client.env_create("")
    monkeypatch.delenv("OPENAI_GYM_API_KEY", raising=False)
    with pytest.raises(EnvError, match="'api_key' was not provided"):
        client.upload("somewhere")
    with pytest.raises(EnvError, match="403"):
        client.shutdown_server()
    with pytest.raises(BadInput, match="expected the URL of a server"):
        GymClient(f"{base}/CartPole-v1")
    with spoiling(base, lambda *a: (200, b"{}")) as url, pytest.raises(EnvError, match="the answer has no 'all_envs'"):
        GymClient(url).env_list_all()


def test_monitor_through_the_client(base, tmp_path, monkeypatch):
    from whorl.apps.gym_server.serve import running

    with running(root=tmp_path, allow_shutdown=True) as url:
        client = GymClient(url)
        instance = client.env_create("CartPole-v1")
        client.env_monitor_start(instance, "agent", force=True)
        client.env_reset(instance)
        while not client.env_step(instance, 0)[2]:
            pass
        client.env_monitor_close(instance)
        assert list((tmp_path / "agent").glob("openaigym.*.stats.json"))
        monkeypatch.setenv("OPENAI_GYM_API_KEY", "key")
        client.upload("agent", algorithm_id="left")
        client.shutdown_server()
