"""The original clients of gym-http-api, replayed: the bytes that each one sends, and what each one needs to go on.

A `Client` is how one language writes requests and which answers it takes. `play` goes through the calls it has. The facts are
from the sources of the 13 bindings in the repository and of the two external libraries that its R and Julia examples use.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs the extra server: pip install 'whorl[server]'")

Headers = dict[str, str]
JSON = {"Content-Type": "application/json"}


# --------------------------------------------------------------------------------------------- what each takes


def good(answer: Any) -> None:
    assert 200 <= answer.status < 300, answer


def json_object(answer: Any) -> dict[str, Any]:
    assert isinstance(answer.json, dict), answer
    return answer.json


def python_takes(call: str, answer: Any) -> None:
    """ServerError where status is not 200 and there is a message; unparseable but good is {}."""
    good(answer)
    if call == "create":
        assert "instance_id" in answer.json


def lua_takes(call: str, answer: Any) -> None:
    """Never raises: what is no JSON becomes nil, and is then indexed where the call has a result."""
    if call in RESULTS:
        assert json_object(answer)[RESULTS[call]] is not None


def cpp_takes(call: str, answer: Any) -> None:
    """Status 200 and nothing else; an object; bounds as long as the shape says; a flat observation."""
    assert answer.status == 200, answer
    json_object(answer)
    if call == "observation_space":
        info = answer.json["info"]
        assert len(info["low"]) == len(info["high"]) == math.prod(info["shape"])
    if call in ("reset", "step"):
        assert all(isinstance(x, int | float) for x in answer.json["observation"])


def rust_takes(call: str, answer: Any) -> None:
    """Panics on other spaces than Discrete and Box, n and shape that are no integers, observations that are no arrays."""
    good(answer)
    if call == "action_space":
        assert answer.json["info"]["name"] == "Discrete" and type(answer.json["info"]["n"]) is int
    if call == "observation_space":
        info = answer.json["info"]
        assert info["name"] == "Box" and all(type(n) is int for n in info["shape"])
        assert {type(x) for x in info["low"] + info["high"]} <= {int, float}
    if call in ("reset", "step"):
        assert {type(x) for x in answer.json["observation"]} <= {int, float}
    if call == "step":
        assert type(answer.json["reward"]) is float and type(answer.json["done"]) is bool and "info" in answer.json


def go_takes(call: str, answer: Any) -> None:
    """Ignores the status; a top-level `message` is an error, whatever came with it; numbers must be finite."""
    if answer.body:
        try:
            value = answer.json
        except ValueError:
            assert call == "shutdown", answer
            return
        assert not value.get("message"), answer
        if call in ("reset", "step"):
            observation = value["observation"]
            assert observation and {type(x) for x in observation} <= {int, float} and np.isfinite(observation).all()


def javascript_takes(call: str, answer: Any) -> None:
    """axios rejects what is not 2xx."""
    good(answer)
    if call in RESULTS:
        assert RESULTS[call] in json_object(answer)


def haskell_takes(call: str, answer: Any) -> None:
    """servant: the Content-Type must match the route's; info an object, reward a number."""
    good(answer)
    kind = answer.headers["content-type"].split(";")[0]
    empty = ("monitor_start", "monitor_close", "close", "upload", "shutdown")
    assert kind == ("text/html" if call in empty else "application/json"), answer
    if call == "step":
        assert isinstance(answer.json["info"], dict) and isinstance(answer.json["reward"], float)


def swift_takes(call: str, answer: Any) -> None:
    """Aborts the process unless the status is 200 or 204; casts whole objects to one type of value."""
    assert answer.status in (200, 204), answer
    if call == "create":
        assert all(isinstance(value, str) for value in answer.json.values())
    if call in ("contains", "observation_contains"):
        assert all(isinstance(value, bool) for value in answer.json.values())
    if call == "list":
        strings = [text for table in answer.json.values() for pair in table.items() for text in pair]
        assert strings and all(isinstance(text, str) for text in strings)
    if call == "step":
        assert isinstance(answer.json["info"], dict)
    if call == "observation_space":
        assert all(isinstance(x, int | float) for x in answer.json["info"]["low"] + answer.json["info"]["high"])


def r_takes(call: str, answer: Any) -> None:
    """204, or exactly application/json: errors too."""
    assert answer.status == 204 or answer.headers["content-type"] == "application/json" or call == "shutdown"
    good(answer)


def julia_takes(call: str, answer: Any) -> None:
    assert answer.status in (200, 204), answer


def json_or_nothing(call: str, answer: Any) -> None:
    """2xx, and an object wherever the call has a result (MATLAB, Ruby, Clojure, Wolfram)."""
    good(answer)
    if call in RESULTS:
        assert RESULTS[call] in json_object(answer)


RESULTS = {
    "create": "instance_id",
    "list": "all_envs",
    "reset": "observation",
    "step": "observation",
    "action_space": "info",
}
RESULTS |= {"sample": "action", "contains": "member", "observation_space": "info", "observation_contains": "member"}


# --------------------------------------------------------------------------------------------- how each asks


@dataclass(frozen=True)
class Client:
    name: str
    takes: Callable[[str, Any], None]
    empty: bytes = b""  # body of the calls without parameters
    get: Headers = field(default_factory=dict)
    post: Headers = field(default_factory=lambda: dict(JSON))
    get_body: bytes | None = None  # None: GET carries none
    path: Callable[[str, str], str] = lambda call, path: path
    headers: Callable[[str], Headers] = lambda call: {}  # further ones of one call
    step: dict[str, Any] = field(default_factory=dict)  # further fields
    monitor: dict[str, Any] = field(default_factory=lambda: {"force": True, "resume": False, "video_callable": False})
    upload: dict[str, Any] = field(default_factory=lambda: {"algorithm_id": None})
    lacks: frozenset[str] = frozenset()  # calls it does not have
    server: dict[str, Any] = field(default_factory=dict)  # what the server must be started with


def without_slash(*calls: str) -> Callable[[str, str], str]:
    return lambda call, path: path.rstrip("/") if call in calls or not calls else path


HTML_CALLS = ("monitor_start", "monitor_close", "close", "upload", "shutdown")
REQUESTS = {"User-Agent": "python-requests/2.11.0", "Accept-Encoding": "gzip, deflate", "Accept": "*/*"}
REQUESTS |= {"Connection": "keep-alive", "Content-type": "application/json"}
LUA = {"User-Agent": "LuaSocket 3.0-rc1", "TE": "trailers", "Connection": "close, TE"}
AXIOS = {"Accept": "application/json, text/plain, */*", "User-Agent": "axios/0.14.0", "Connection": "close"}
GO = {"User-Agent": "Go-http-client/1.1", "Accept-Encoding": "gzip"}
CURL = {"Accept": "*/*", "Content-Type": "application/json"}
RUBY = {
    "Accept": "*/*",
    "Accept-Encoding": "gzip, deflate",
    "User-Agent": "rest-client/2.0.0 (linux-gnu x86_64) ruby/2.3.1p112",
}
HTTR = {"User-Agent": "libcurl/7.43.0 r-curl/1.2 httr/1.2.1", "Accept-Encoding": "gzip, deflate"}
HTTR |= {"Accept": "application/json, text/xml, application/xml, */*"}
APPLE = {"Accept": "*/*", "Accept-Language": "en-us", "User-Agent": "gym-swift/1 CFNetwork/811.4.18 Darwin/16.5.0"}
MATLAB = {"User-Agent": "MATLAB 9.1.0.441655 (R2016b)", "Accept": "*/*", "Connection": "close"}
WOLFRAM = {"User-Agent": "Wolfram HTTPClient 11.1", "Accept": "*/*"}

CLIENTS = [
    Client("Python", python_takes, b"null", REQUESTS, REQUESTS),
    Client(
        "Lua",
        lua_takes,
        b'""',
        LUA,
        {**LUA, "content-type": "application/json"},
        step={"render": False, "video_callable": False},
        monitor={"force": "true", "resume": "false", "video_callable": "false"},
        upload={"algorithm_id": ""},
        path=lambda call, path: path[:-1] if call == "contains" else path,  # it leaves the value out
    ),
    Client("Go", go_takes, b"{}", GO, {**GO, **JSON}, lacks=frozenset({"contains", "observation_contains"})),
    Client(
        "JavaScript",
        javascript_takes,
        b"",
        AXIOS,
        {**AXIOS, "Content-Type": "application/json;charset=utf-8"},
        headers=lambda call: {} if call in ("create", "step", "monitor_start", "upload") else {"Content-Type": ""},
        lacks=frozenset({"sample", "contains", "observation_contains"}),
    ),
    Client(
        "R",
        r_takes,
        b"",
        HTTR,
        {**HTTR, **JSON},
        get_body=b"{}",
        step={"instance_id": "0", "render": False},
        path=lambda call, path: path + "/" if call in ("contains", "sample", "observation_contains") else path,
    ),
    Client("Ruby", json_or_nothing, b'""', RUBY, {**RUBY, **JSON}),
    Client(
        "Haskell",
        haskell_takes,
        b"",
        {"Accept": "application/json", "Accept-Encoding": "gzip"},
        {"Accept": "application/json", "Content-Type": "application/json", "Accept-Encoding": "gzip"},
        path=without_slash(),
        headers=lambda call: {"Accept": "text/html"} if call in HTML_CALLS else {},
    ),
    Client(
        "C++",
        cpp_takes,
        b"",
        CURL,
        CURL,
        path=without_slash("action_space", "observation_space"),
        lacks=frozenset({"contains", "observation_contains", "list", "upload", "shutdown"}),
        server={"empty_as_json": True},
    ),
    Client(
        "Rust",
        rust_takes,
        b"null",
        {"Accept": "*/*", "Connection": "keep-alive"},
        {"Accept": "*/*", "Connection": "keep-alive", **JSON},
        lacks=frozenset({"contains", "observation_contains"}),
    ),
    Client(
        "MATLAB",
        json_or_nothing,
        b"[]",
        MATLAB,
        {**MATLAB, "Content-Type": "application/json; charset=UTF-8"},
        monitor={"force": True, "resume": False, "video_callable": []},
        upload={"algorithm_id": []},
    ),
    Client("Swift", swift_takes, b"", {**APPLE, **JSON}, {**APPLE, **JSON}),
    Client(
        "Clojure",
        json_or_nothing,
        b"",
        {
            "Connection": "close",
            "User-Agent": "Apache-HttpClient/4.5.2 (Java/1.8.0_101)",
            "Accept-Encoding": "gzip, deflate",
        },
        path=without_slash("shutdown"),
        monitor={"force": True, "resume": False, "video-callable": False},
    ),
    Client("Wolfram", json_or_nothing, b"{}", WOLFRAM, {**WOLFRAM, **JSON}),
    Client("Julia", julia_takes, b"{}", {"Accept": "application/json", **JSON}, get_body=b"{}"),
]


class Caller:
    """One client at work: writes the bytes of its calls, and holds every answer against what it takes."""

    def __init__(self, client: Client, http: Any, connect: Any) -> None:
        self.client, self._http, self._connect = client, http, connect

    def __call__(self, call: str, method: str, path: str, fields: dict[str, Any] | None = None) -> Any:
        client = self.client
        path = client.path(call, path)
        kind = dict(client.get if method == "GET" else client.post)
        kind.update(client.headers(call))
        headers = {"Host": f"127.0.0.1:{self._http.port}", **{name: value for name, value in kind.items() if value}}
        body = client.get_body if method == "GET" else client.empty if fields is None else json.dumps(fields).encode()
        if body is not None:
            headers["Content-Length"] = str(len(body))
        head = "".join(
            [f"{method} {path} HTTP/1.1\r\n", *(f"{name}: {value}\r\n" for name, value in headers.items()), "\r\n"]
        )
        connection = self._http
        if "close" in headers.get("Connection", ""):
            connection = self._connect(f"http://127.0.0.1:{self._http.port}")
        answer = connection.exchange(head.encode() + (body or b""))
        if connection is not self._http:
            connection.close()
        client.takes(call, answer)
        return answer

    def has(self, call: str) -> bool:
        return call not in self.client.lacks


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_every_call_of_the_original(client: Client, start: Any, connect: Any, tmp_path: Any, until: Any) -> None:
    http = start(root=tmp_path, allow_shutdown=True, **client.server)
    call = Caller(client, http, connect)
    id = call("create", "POST", "/v1/envs/", {"env_id": "CartPole-v0"}).json["instance_id"]
    here = f"/v1/envs/{id}"
    if call.has("list"):
        assert call("list", "GET", "/v1/envs/").json["all_envs"] == {id: "CartPole-v0"}
    assert call("action_space", "GET", f"{here}/action_space/").json["info"]["n"] == 2
    assert call("observation_space", "GET", f"{here}/observation_space/").json["info"]["shape"] == [4]
    if call.has("contains"):
        expected = client.name != "Lua"
        assert call("contains", "GET", f"{here}/action_space/contains/1").json == {"member": expected}
    if call.has("observation_contains"):
        given = {"name": "Box", "shape": [4]}
        assert call("observation_contains", "POST", f"{here}/observation_space/contains", given).json == {
            "member": True
        }
    directory = "/tmp/random-agent-results"
    call("monitor_start", "POST", f"{here}/monitor/start/", {"directory": directory, **client.monitor})
    for _ in range(2):
        assert len(call("reset", "POST", f"{here}/reset/").json["observation"]) == 4
        done = False
        while not done:
            action = call("sample", "GET", f"{here}/action_space/sample").json["action"] if call.has("sample") else 1
            done = call("step", "POST", f"{here}/step/", {"action": action, **client.step}).json["done"]
    call("monitor_close", "POST", f"{here}/monitor/close/")
    (stats,) = (tmp_path / "random-agent-results").glob("openaigym.*.stats.json")
    assert len(json.loads(stats.read_text())["episode_lengths"]) == 2
    call("close", "POST", f"{here}/close/")
    assert http.listed() == {}
    if call.has("upload"):
        call("upload", "POST", "/v1/upload/", {"training_dir": directory, "api_key": "key", **client.upload})
    if call.has("shutdown"):
        assert call("shutdown", "POST", "/v1/shutdown/").body == b"Server shutting down"


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_errors_reach_every_client(client: Client, start: Any) -> None:
    """Status 400 and JSON: Python, Go and Wolfram read the message, R the content type, the others the status."""
    http = start(**client.server)
    caller = Caller(client, http, None)
    caller.client = Client(client.name, lambda call, answer: None, client.empty, client.get, JSON, client.get_body)
    for answer, words in (
        (caller("create", "POST", "/v1/envs/", {"env_id": "bad string"}), "malformed environment ID"),
        (caller("reset", "POST", "/v1/envs/bad_id/reset/"), "Instance_id"),
        (caller("step", "POST", "/v1/envs/bad_id/step/", {"action": 0}), "Instance_id"),
    ):
        assert answer.status == 400 and words in answer.message


def test_cpp_fails_on_204_unless_the_server_is_asked(start: Any) -> None:
    """As with the original; hence the option."""
    cpp = next(client for client in CLIENTS if client.name == "C++")
    http = start()
    id = http.create("CartPole-v0")
    with pytest.raises(AssertionError):
        Caller(cpp, http, None)("monitor_close", "POST", f"/v1/envs/{id}/monitor/close/")


@pytest.mark.parametrize("name", ["C++", "Rust", "Go"])
def test_flatten_for_clients_that_read_flat_numbers_only(name: str, start: Any) -> None:
    client = next(client for client in CLIENTS if client.name == name)
    http = start(**client.server)
    call = Caller(client, http, None)
    for env_id in ("FrozenLake-v0", "Blackjack-v0"):
        id = call("create", "POST", "/v1/envs/", {"env_id": env_id, "flatten": True}).json["instance_id"]
        observation = call("reset", "POST", f"/v1/envs/{id}/reset/").json["observation"]
        space = http.get(f"/v1/envs/{id}/observation_space").json["info"]
        assert space["shape"] == [len(observation)] == [len(space["low"])]
        call("close", "POST", f"/v1/envs/{id}/close/")


@pytest.mark.parametrize("action", [0.5, [0.5]], ids=["MATLAB", "others"])
def test_matlab_sends_a_vector_of_one_as_a_number(start: Any, action: Any) -> None:
    matlab, http = next(client for client in CLIENTS if client.name == "MATLAB"), start()
    connect = type(http)
    call = Caller(matlab, http, connect)
    id = call("create", "POST", "/v1/envs/", {"env_id": "Pendulum-v0", "seed": 1}).json["instance_id"]
    call("reset", "POST", f"/v1/envs/{id}/reset/")
    env = gymnasium.make("Pendulum-v1")
    env.reset(seed=1)
    expected, reward, *_ = env.step(np.array([0.5], np.float32))
    got = call("step", "POST", f"/v1/envs/{id}/step/", {"action": action}).json
    assert (got["observation"], got["reward"]) == (expected.tolist(), float(reward))


# --------------------------------------------------------------------------------------------- the Python client


class ServerError(Exception):
    pass


class PythonClient:
    """The calls of the original's Python client, over raw requests."""

    def __init__(self, http: Any) -> None:
        self._call = Caller(Client("Python", lambda call, answer: None, b"null", REQUESTS, REQUESTS), http, None)

    def _send(self, method: str, path: str, fields: dict[str, Any] | None = None) -> Any:
        answer = self._call("", method, path, fields)
        if answer.status != 200 and answer.body and "message" in answer.json:
            raise ServerError(answer.json["message"])
        good(answer)
        try:
            return answer.json
        except ValueError:
            return {}

    def env_create(self, env_id: Any, **more: Any) -> str:
        return self._send("POST", "/v1/envs/", {"env_id": env_id, **more})["instance_id"]

    def env_list_all(self) -> dict[str, str]:
        return self._send("GET", "/v1/envs/")["all_envs"]

    def env_reset(self, id: str) -> Any:
        return self._send("POST", f"/v1/envs/{id}/reset/")["observation"]

    def env_step(self, id: str, action: Any, render: bool = False) -> list[Any]:
        got = self._send("POST", f"/v1/envs/{id}/step/", {"action": action, "render": render})
        return [got["observation"], got["reward"], got["done"], got["info"]]

    def env_action_space_info(self, id: str) -> Any:
        return self._send("GET", f"/v1/envs/{id}/action_space/")["info"]

    def env_action_space_sample(self, id: str) -> Any:
        return self._send("GET", f"/v1/envs/{id}/action_space/sample")["action"]

    def env_action_space_contains(self, id: str, x: Any) -> bool:
        return self._send("GET", f"/v1/envs/{id}/action_space/contains/{x}")["member"]

    def env_observation_space_info(self, id: str) -> Any:
        return self._send("GET", f"/v1/envs/{id}/observation_space/")["info"]

    def env_observation_space_contains(self, id: str, params: Any) -> bool:
        return self._send("POST", f"/v1/envs/{id}/observation_space/contains", params)["member"]

    def env_monitor_start(self, id: str, directory: Any, force: bool = False, resume: bool = False) -> None:
        fields = {"directory": directory, "force": force, "resume": resume, "video_callable": False}
        self._send("POST", f"/v1/envs/{id}/monitor/start/", fields)

    def env_monitor_close(self, id: str) -> None:
        self._send("POST", f"/v1/envs/{id}/monitor/close/")

    def env_close(self, id: str) -> None:
        self._send("POST", f"/v1/envs/{id}/close/")

    def upload(self, training_dir: Any, algorithm_id: Any = None, api_key: Any = "key") -> None:
        fields = {"training_dir": training_dir, "algorithm_id": algorithm_id, "api_key": api_key}
        self._send("POST", "/v1/upload/", fields)


@pytest.fixture
def client(http: Any) -> PythonClient:
    return PythonClient(http)


class TestTheOriginalsTests:
    """Its 16 tests (tests/test_api.py), restated."""

    def test_create_destroy(self, client: PythonClient) -> None:
        id = client.env_create("CartPole-v0")
        assert id in client.env_list_all()
        client.env_close(id)
        assert id not in client.env_list_all()

    def test_action_space_discrete(self, client: PythonClient) -> None:
        info = client.env_action_space_info(client.env_create("CartPole-v0"))
        assert info["name"] == "Discrete" and info["n"] == 2

    def test_action_space_sample(self, client: PythonClient) -> None:
        action = client.env_action_space_sample(client.env_create("CartPole-v0"))
        assert 0 <= action < 2

    def test_action_space_contains(self, client: PythonClient) -> None:
        id = client.env_create("CartPole-v0")
        assert [client.env_action_space_contains(id, x) for x in (0, 1, 2)] == [True, True, False]

    def test_observation_space_box(self, client: PythonClient) -> None:
        info = client.env_observation_space_info(client.env_create("CartPole-v0"))
        assert info["name"] == "Box" and info["shape"] == [4] and len(info["low"]) == len(info["high"]) == 4

    def test_observation_space_contains(self, client: PythonClient) -> None:
        id = client.env_create("CartPole-v0")
        for params in ({"name": "Box"}, {"shape": (4,)}, {"name": "Box", "shape": (4,)}):
            assert client.env_observation_space_contains(id, params) is True

    def test_reset(self, client: PythonClient) -> None:
        assert len(client.env_reset(client.env_create("CartPole-v0"))) == 4
        assert client.env_reset(client.env_create("FrozenLake-v0")) == 0

    def test_step(self, client: PythonClient) -> None:
        id = client.env_create("CartPole-v0")
        client.env_reset(id)
        observation, reward, done, info = client.env_step(id, 0)
        assert len(observation) == 4
        assert type(reward) is float and type(done) is bool and type(info) is dict
        id = client.env_create("FrozenLake-v0")
        client.env_reset(id)
        observation, reward, done, info = client.env_step(id, 0)
        assert type(observation) is int

    def test_monitor_start_close_upload(self, client: PythonClient) -> None:
        id = client.env_create("CartPole-v0")
        client.env_monitor_start(id, "/tmp/gym-results", force=True)
        client.env_reset(id)
        client.env_step(id, 1)
        client.env_reset(id)
        client.env_monitor_close(id)
        client.env_close(id)
        client.upload("/tmp/gym-results")

    def test_bad_instance_id(self, client: PythonClient) -> None:
        calls: list[Callable[[], Any]] = [
            lambda: client.env_reset("bad_id"),
            lambda: client.env_step("bad_id", 1),
            lambda: client.env_action_space_info("bad_id"),
            lambda: client.env_observation_space_info("bad_id"),
            lambda: client.env_monitor_start("bad_id", "/tmp/x"),
            lambda: client.env_monitor_close("bad_id"),
            lambda: client.env_close("bad_id"),
        ]
        for call in calls:
            with pytest.raises(ServerError, match="Instance_id"):
                call()

    def test_missing_param_env_id(self, client: PythonClient) -> None:
        with pytest.raises(ServerError, match="A required request parameter 'env_id' was not provided"):
            client.env_create(None)

    def test_missing_param_action(self, client: PythonClient) -> None:
        id = client.env_create("CartPole-v0")
        client.env_reset(id)
        with pytest.raises(ServerError, match="A required request parameter 'action' was not provided"):
            client.env_step(id, None)

    def test_missing_param_monitor_directory(self, client: PythonClient) -> None:
        id = client.env_create("CartPole-v0")
        with pytest.raises(ServerError, match="A required request parameter 'directory' was not provided"):
            client.env_monitor_start(id, None)

    def test_missing_param_upload_directory(self, client: PythonClient) -> None:
        with pytest.raises(ServerError, match="A required request parameter 'training_dir' was not provided"):
            client.upload(None)

    def test_empty_param_api_key(self, client: PythonClient) -> None:
        with pytest.raises(ServerError, match="api_key"):
            client.upload("/tmp/gym-results", api_key="")

    def test_create_malformed(self, client: PythonClient) -> None:
        with pytest.raises(ServerError, match="malformed environment ID"):
            client.env_create("bad string")


@pytest.mark.parametrize("env_id", ["CartPole-v0", "FrozenLake-v0", "Pendulum-v0", "Acrobot-v1", "Taxi-v1"])
def test_a_random_agent_gets_what_it_gets_in_process(client: PythonClient, env_id: str) -> None:
    """The original's example agent, with fewer episodes: same seed, same samples, same returns and observations, bit for bit."""
    from whorl.apps.gym_server.ids import single

    episodes, steps = 4, 200
    env = single(env_id)
    env.action_space.seed(42)
    expected = []
    for episode in range(episodes):
        seen = [env.reset(seed=42 if episode == 0 else None)[0]]
        total = 0.0
        for _ in range(steps):
            observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            seen.append(observation)
            total += float(reward)
            if terminated or truncated:
                break
        expected.append((total, np.asarray(seen).tolist()))

    id, got = client.env_create(env_id, seed=42), []
    client.env_monitor_start(id, "/tmp/random-agent-results", force=True)
    for _ in range(episodes):
        seen, total = [client.env_reset(id)], 0.0
        for _ in range(steps):
            observation, reward, done, _ = client.env_step(id, client.env_action_space_sample(id), render=True)
            seen.append(observation)
            total += reward
            if done:
                break
        got.append((total, seen))
    client.env_monitor_close(id)
    client.upload("/tmp/random-agent-results", algorithm_id="random")
    client.env_close(id)
    assert got == expected
