"""The 14 routes: every path form, body, status, phrase and content type; errors as JSON; starting and stopping."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

pytest.importorskip("starlette", reason="needs the extra server: pip install 'whorl[server]'")

from tests.cases import each
from whorl.apps.gym_server import app, vectors
from whorl.apps.gym_server.serve import running, serve
from whorl.apps.listen import listening
from whorl.errors import BadInput

HTML = "text/html; charset=utf-8"


def made(http: Any, env_id: str = "CartPole-v0", **fields: Any) -> str:
    """An environment whose first episode has begun."""
    id = http.create(env_id, **fields)
    http.reset(id)
    return id


# --------------------------------------------------------------------------------------------- paths and methods


def test_there_are_the_14_routes() -> None:
    pairs = {(method, path) for path, handlers in app.ROUTES.items() for method in handlers}
    assert len(pairs) == 15  # 14, and contains without a value
    assert pairs >= {("POST", "/v1/envs"), ("GET", "/v1/envs"), ("POST", "/v1/upload"), ("POST", "/v1/shutdown")}


def paths(path: str) -> list[str]:
    return [path, path + "/", path + "//", "/" + path, path.replace("/", "//"), path.replace("/v1/", "/v1///")]


def test_every_path_form_is_the_same_route(start: Any, tmp_path: Path) -> None:
    http = start(root=tmp_path)
    id = made(http)
    here = f"/v1/envs/{id}"
    for path in paths("/v1/envs"):
        assert http.get(path).json["all_envs"] == {id: "CartPole-v0"}
        other = http.post(path, {"env_id": "CartPole-v1"}).json["instance_id"]
        assert http.post(f"{path}/{other}/close", None).status == 204
    for path in paths(f"{here}/reset"):
        assert len(http.post(path).json["observation"]) == 4
    for path in paths(f"{here}/step"):
        assert http.post(path, {"action": 0}).status == 200
        http.post(f"{here}/reset/")
    for path in paths(f"{here}/action_space") + paths(f"{here}/observation_space"):
        assert "name" in http.get(path).json["info"]
    for path in paths(f"{here}/action_space/sample"):
        assert http.get(path).json["action"] in (0, 1)
    for path in paths(f"{here}/action_space/contains/1"):
        assert http.get(path).json == {"member": True}
    for path in paths(f"{here}/observation_space/contains"):
        assert http.post(path, {"name": "Box"}).json == {"member": True}
    for path in paths(f"{here}/monitor/start"):
        assert http.post(path, {"directory": "m", "force": True}).status == 204
    for path in paths(f"{here}/monitor/close"):
        assert http.post(path).status == 204
    for path in paths("/v1/upload"):
        assert http.post(path, {"training_dir": "m", "api_key": "k"}).status == 204
    for path in paths("/v1/shutdown"):
        assert http.post(path).status == 403
    assert http.post(f"//v1//envs/{id}/close").status == 204
    assert http.listed() == {}


def test_unknown_paths_and_methods(http: Any) -> None:
    id = made(http)
    for path in (
        "/",
        "/v1",
        "/v2/envs",
        "/v1/envs/x/y",
        f"/v1/envs/{id}",
        f"/v1/envs/{id}/action_space/samples",
        "/v1/envs%00",
    ):
        answer = http.get(path)
        assert answer.status == 404 and answer.message.startswith("there is no route /")
    answer = http.get(f"/v1/envs/{id}/step/")
    assert answer.status == 405 and answer.message == "GET is not for this route" and answer.headers["allow"] == "POST"
    for method in ("PUT", "DELETE", "PATCH"):
        answer = http.ask(method, "/v1/envs/")
        assert answer.status == 405 and set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}
        assert answer.message == f"{method} is not for this route"


def test_head_and_options(http: Any) -> None:
    id = made(http)
    got, head = http.get(f"/v1/envs/{id}/action_space/"), http.ask("HEAD", f"/v1/envs/{id}/action_space/")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-type"] == "application/json"
    assert head.headers["content-length"] == got.headers["content-length"]
    answer = http.ask("OPTIONS", "/v1/envs/")
    assert answer.status == 204 and set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert http.ask("HEAD", f"/v1/envs/{id}/step/").status == 405


def test_get_may_carry_a_body(http: Any) -> None:
    id = made(http)
    for body in (b"{}", b"null", b"rubbish"):
        assert http.ask("GET", f"/v1/envs/{id}/action_space/", body).json["info"]["n"] == 2
        assert http.listed() == {id: "CartPole-v0"}  # the connection is still in step


# --------------------------------------------------------------------------------------------- bodies

NEEDLESS = [b"", b"null", b'""', b"[]", b"{}", b"garbage", b"\xff\xfe", b"[" * 1000, b'{"seed": null}', b'{"other": 1}']


@pytest.mark.parametrize("body", NEEDLESS, ids=repr)
def test_routes_that_need_no_body_take_any(start: Any, tmp_path: Path, body: bytes) -> None:
    http = start(root=tmp_path, allow_shutdown=True)
    id = http.create("CartPole-v0")
    for kind in ("application/json", "text/plain", ""):
        headers = {"Content-Type": kind}
        assert http.ask("POST", f"/v1/envs/{id}/reset/", body, headers).status == 200
        assert http.ask("POST", f"/v1/envs/{id}/monitor/close/", body, headers).status == 204
    assert http.post(f"/v1/envs/{id}/close/", body).status == 204
    assert http.post("/v1/shutdown/", body).status == 200


def test_bodies_without_a_content_type_are_read_on_loopback(http: Any) -> None:
    body = b'{"env_id": "CartPole-v0"}'
    request = f"POST /v1/envs/ HTTP/1.1\r\nHost: {http.name}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    assert http.exchange(request).json["instance_id"]
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert http.ask("POST", "/v1/envs/", body, form).json["instance_id"]


def test_bodies_that_are_no_objects(http: Any) -> None:
    for route in each(["/v1/envs/", "step/", "observation_space/contains", "monitor/start/", "/v1/upload/"]):
        path = route if route.startswith("/") else f"/v1/envs/{made(http)}/{route}"
        for body in (b"", b"null", b"{", b"[1]", b"3", b'"text"', b"NaN", b'{"action": NaN}', b"\xff"):
            answer = http.post(path, body)
            assert answer.status == 400 and answer.message == "Request is not a valid json"


def test_required_fields(http: Any) -> None:
    for route, body, name in each(
        [
            ("/v1/envs/", {}, "env_id"),
            ("/v1/envs/", {"env_id": ""}, "env_id"),
            ("/v1/envs/", {"env_id": None}, "env_id"),
            ("/v1/envs/", [], "env_id"),
            ("/v1/envs/", "", "env_id"),
            ("step/", {}, "action"),
            ("step/", {"action": None}, "action"),
            ("step/", {"action": []}, "action"),
            ("monitor/start/", {"force": True}, "directory"),
            ("/v1/upload/", {"api_key": "k"}, "training_dir"),
            ("/v1/upload/", {"training_dir": "d"}, "api_key"),
            ("/v1/upload/", {"training_dir": "d", "api_key": ""}, "api_key"),
        ]
    ):
        answer = http.post(route if route.startswith("/") else f"/v1/envs/{made(http)}/{route}", body)
        assert answer.status == 400
        assert answer.message == f"A required request parameter '{name}' was not provided"


def test_fields_of_the_wrong_kind(http: Any) -> None:
    for route, body, message in each(
        [
            ("/v1/envs/", {"env_id": "CartPole-v0", "seed": -1}, "'seed' must be an integer from 0"),
            ("/v1/envs/", {"env_id": "CartPole-v0", "seed": "one"}, "'seed' must be an integer from 0"),
            ("/v1/envs/", {"env_id": "CartPole-v0", "flatten": 7}, "flatten must be true or false"),
            ("/v1/envs/", {"env_id": "CartPole-v0", "bounds": "wide"}, "'bounds' must be one of accept, clip, strict"),
            ("reset/", {"seed": -1}, "'seed' must be an integer from 0"),
            ("step/", {"action": 5}, "the action 5 does not fit: expected an integer from 0 to 1"),
            ("step/", {"action": 0, "render": "perhaps"}, "render must be true or false"),
            ("monitor/start/", {"directory": 5}, "'directory' must be a string, got 5"),
            ("monitor/start/", {"directory": "d", "force": "perhaps"}, "force must be true or false"),
            ("monitor/start/", {"directory": "d", "video_callable": "x"}, "video_callable must be"),
            ("/v1/upload/", {"training_dir": "absent", "api_key": "k"}, "there is no folder 'absent'"),
        ]
    ):
        answer = http.post(route if route.startswith("/") else f"/v1/envs/{made(http)}/{route}", body)
        assert answer.status == 400 and answer.message.startswith(message)


def test_bodies_have_limits(http: Any) -> None:
    deep = b'{"env_id": ' + b"[" * 40 + b"]" * 40 + b"}"
    assert http.post("/v1/envs/", deep).message == "Request is not a valid json: it is nested deeper than 32 levels"
    assert http.listed() == {}
    answer = http.post("/v1/envs/", b" " * (1 << 20) + b'{"env_id": "CartPole-v0"}')
    assert answer.status == 413 and "too large" in answer.message


BAD_ID = ["reset/", "step/", "monitor/start/", "monitor/close/", "close/", "observation_space/contains"]


def test_unknown_instances(http: Any) -> None:
    for route in BAD_ID:
        answer = http.post(f"/v1/envs/bad_id/{route}", {"action": 0, "directory": "d", "name": "Box"})
        assert answer.status == 400 and answer.message == "Instance_id bad_id unknown"
    for route in ("action_space/", "action_space/sample", "action_space/contains/0", "observation_space/"):
        answer = http.get(f"/v1/envs/bad_id/{route}")
        assert answer.status == 400 and answer.message == "Instance_id bad_id unknown"
    id = made(http)
    assert http.post(f"/v1/envs/{id}/close/").status == 204
    assert http.post(f"/v1/envs/{id}/reset/").message == f"Instance_id {id} unknown"
    assert len(http.post(f"/v1/envs/{'x' * 5000}/reset/").message) < 200
    vector = http.post("/whorl/v1/vectors", {"env_id": "CartPole-v1"}).json["vector_id"]
    assert http.post(f"/v1/envs/{vector}/reset/").message == f"Instance_id {vector} unknown"
    http.ask("DELETE", f"/whorl/v1/vectors/{vector}")


# --------------------------------------------------------------------------------------------- replies


def test_replies_have_their_keys_and_nothing_else(http: Any) -> None:
    created = http.post("/v1/envs/", {"env_id": "CartPole-v0"})
    id = created.json["instance_id"]
    assert created.json == {"instance_id": id} and len(id) == 8 and int(id, 16) >= 0
    assert http.get("/v1/envs/").json == {"all_envs": {id: "CartPole-v0"}, "envs": {id: "CartPole-v0"}}
    assert set(http.post(f"/v1/envs/{id}/reset/").json) == {"observation", "info"}
    step = http.step(id, 1)
    keys = {"observation", "reward", "done", "info", "terminated", "truncated"}
    assert set(step.json) == keys and b'"reward":1.0,' in step.body and step.json["done"] is False
    assert step.json["info"] == {}
    assert b" " not in created.body + step.body
    assert set(http.get(f"/v1/envs/{id}/action_space/sample").json) == {"action"}
    for answer in (created, step, http.get("/v1/envs/")):
        assert answer.status == 200 and answer.headers["content-type"] == "application/json"


def test_empty_replies(start: Any, tmp_path: Path) -> None:
    http = start(root=tmp_path)
    id = made(http)
    posts = [(f"/v1/envs/{id}/monitor/start/", {"directory": "m"}), (f"/v1/envs/{id}/monitor/close/", None)]
    posts += [("/v1/upload/", {"training_dir": "m", "api_key": "k"}), (f"/v1/envs/{id}/close/", None)]
    for path, body in posts:
        answer = http.post(path, body)
        assert (answer.status, answer.headers["content-type"]) == (204, HTML)
        assert "content-length" not in answer.headers


def test_empty_replies_as_json_where_asked(start: Any) -> None:
    http = start()
    id = made(http)
    for ask in (
        lambda: http.post(f"/v1/envs/{id}/monitor/close/?json=1"),
        lambda: http.ask("POST", f"/v1/envs/{id}/monitor/close/", None, {"X-Empty-As-Json": "1"}),
    ):
        answer = ask()
        assert (answer.status, answer.json, answer.headers["content-type"]) == (200, {}, "application/json")
    assert http.post(f"/v1/envs/{id}/monitor/close/?json=0").status == 204
    always = start(empty_as_json=True)
    id = made(always)
    for route in ("monitor/close/", "close/"):
        answer = always.post(f"/v1/envs/{id}/{route}")
        assert (answer.status, answer.json) == (200, {})


def test_observation_space_contains_compares_properties(http: Any) -> None:
    path = f"/v1/envs/{made(http)}/observation_space/contains"
    info = http.get(path.replace("/contains", "/")).json["info"]
    for given, member in (
        ({"name": "Box"}, True),
        ({"shape": [4]}, True),
        ({"name": "Box", "shape": [4]}, True),
        (info, True),
        ({}, True),
        ({"name": "Discrete"}, False),
        ({"shape": [5]}, False),
        ({"n": 4}, False),
        ({"no such": None}, False),
    ):
        assert http.post(path, given).json == {"member": member}


def test_action_space_contains(http: Any) -> None:
    for x, member in each(
        [
            ("0", True),
            ("1", True),
            ("2", False),
            ("-1", False),
            ("1.0", True),
            ("%5B1%5D", True),
            ("one", False),
            ("", False),
        ]
        + [("%FF", False), ("null", False), ("1/2", False), ("%7B%22a%22%3A1%7D", False), ("9" * 5000, False)]
    ):
        assert http.get(f"/v1/envs/{made(http)}/action_space/contains/{x}").json == {"member": member}


def test_render_never_fails(http: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    for env_id in ("CartPole-v0", "FrozenLake-v0", "GridWorld-v0"):
        id = made(http, env_id)
        answer = http.step(id, 1, render=True)
        assert answer.status == 200 and answer.json["info"]["render"] == "not shown: this server has no window"


def test_done_is_terminated_or_truncated(http: Any, world: Any) -> None:
    def both() -> gymnasium.Env:
        class Both(gymnasium.Env):
            observation_space, action_space = spaces.Discrete(2), spaces.MultiBinary(2)

            def reset(self, **options: Any) -> Any:
                return 0, {}

            def step(self, action: Any) -> Any:
                return np.int64(1), np.float32(0.5), bool(action[0]), bool(action[1]), {"x": np.nan}

        return Both()

    id = made(http, world(both, order_enforce=False))
    for action, done in (([0, 0], False), ([1, 0], True), ([0, 1], True), ([1, 1], True)):
        http.reset(id)
        got = http.step(id, action).json
        expected = {"terminated": bool(action[0]), "truncated": bool(action[1]), "done": done}
        assert {key: got[key] for key in expected} == expected and got["info"]["x"] is None
        assert got["info"].get("TimeLimit.truncated") == (action == [0, 1] if done else None)
        assert got["observation"] == 1 and got["reward"] == 0.5


def test_nan_fails_that_call_only(http: Any, world: Any) -> None:
    class Odd(gymnasium.Env):
        observation_space, action_space = spaces.Box(-np.inf, np.inf, (2,)), spaces.Discrete(4)

        def reset(self, **options: Any) -> Any:
            return np.zeros(2), {"bad": np.inf}

        def step(self, action: Any) -> Any:
            observation = [[0, 1], [np.nan, 0], [0, 0], [np.inf, -np.inf]][action]
            return np.array(observation), [1, 1, np.nan, -np.inf][action], False, False, {}

    id = http.create(world(Odd))
    assert http.post(f"/v1/envs/{id}/reset/").json == {"observation": [0.0, 0.0], "info": {"bad": None}}
    for action, what in ((1, "observation"), (2, "reward")):
        answer = http.step(id, action)
        assert answer.status == 500 and answer.message.startswith("internal error ")
        assert f"the {what} holds NaN" in answer.message
    got = http.step(id, 3).json
    assert got["observation"] == [1e100, -1e100] and got["reward"] == -1e100
    assert http.step(id, 0).json["observation"] == [0.0, 1.0]


def test_bounds_of_actions(http: Any, world: Any) -> None:
    class Echo(gymnasium.Env):
        observation_space = action_space = spaces.Box(-1, 1, (1,), np.float32)

        def reset(self, **options: Any) -> Any:
            return np.zeros(1, np.float32), {}

        def step(self, action: Any) -> Any:
            return action, 0, False, False, {}

    env_id = world(Echo)
    assert http.step(made(http, env_id), 7).json["observation"] == [7.0]
    assert http.step(made(http, env_id, bounds="clip"), 7).json["observation"] == [1.0]
    answer = http.step(made(http, env_id, bounds="strict"), 7)
    assert answer.status == 400 and "the action 7 does not fit" in answer.message


def test_monitor(start: Any, tmp_path: Path) -> None:
    http = start(root=tmp_path)
    id = made(http, "CartPole-v0", seed=0)
    path = f"/v1/envs/{id}/monitor"
    assert http.post(f"{path}/close/").status == 204  # without one
    assert http.post(f"{path}/start/", {"directory": "/tmp/results", "force": "true", "resume": "false"}).status == 204
    assert http.step(id, 0).message == "CartPole-v0: no episode is under way: call reset"
    for length in (3, 2):  # broken off by a reset
        http.reset(id)
        for _ in range(length):
            assert http.step(id, 0).status == 200
    http.reset(id)
    assert http.post(f"{path}/close/").status == 204
    assert http.step(id, 0).status == 200  # usable without it
    stats = [json.loads(file.read_text()) for file in (tmp_path / "results").glob("openaigym.*.stats.json")]
    assert [each["episode_lengths"] for each in stats] == [[3, 2]]

    again = http.post(f"{path}/start/", {"directory": "results"})
    assert again.status == 400 and "already has monitor files" in again.message
    assert http.post(f"{path}/start/", {"directory": "results", "force": "false", "resume": "1"}).status == 204
    assert http.post(f"{path}/start/", {"directory": "other", "video-callable": 0}).status == 204  # closes the first
    assert len(list((tmp_path / "results").glob("openaigym.manifest.*"))) == 2
    assert http.post(f"/v1/envs/{id}/close/").status == 204
    answer = http.post("/v1/upload/", {"training_dir": "results", "api_key": "s3cret", "algorithm_id": ""})
    assert answer.status == 204
    assert json.loads((tmp_path / "results" / "upload.json").read_text())["episodes"] == 2
    assert not any("s3cret" in file.read_text() for file in tmp_path.rglob("*.json"))


@pytest.mark.parametrize(("given", "films"), [(True, 3), ("2", 2), (1, 3), ("true", 3), (False, 0), (0, 0), (None, 0)])
def test_videos(start: Any, tmp_path: Path, given: Any, films: int) -> None:
    http = start(root=tmp_path)
    id = http.create("CartPole-v1" if given == "2" else "GridWorld-v0")
    http.post(f"/v1/envs/{id}/monitor/start/", {"directory": "v", "video-callable": given})
    for _ in range(3):
        http.reset(id)
        http.step(id, 1)
    http.post(f"/v1/envs/{id}/close/")
    assert len(list((tmp_path / "v").glob("openaigym.video.*.meta.json"))) == films


def test_directories_stay_inside(start: Any, tmp_path: Path) -> None:
    root = tmp_path / "root"
    http = start(root=root)
    id = made(http)
    for name in ("../outside", "a/../../outside", "..", "a\\b", "%2e%2e/x", "x\0y"):
        for path, field in ((f"/v1/envs/{id}/monitor/start/", "directory"), ("/v1/upload/", "training_dir")):
            answer = http.post(path, {field: name, "api_key": "k"})
            assert answer.status == 400 and "cannot be a folder on this server" in answer.message
    assert sorted(tmp_path.iterdir()) in ([], [root])


# --------------------------------------------------------------------------------------------- the door


def test_every_route_wants_the_token(start: Any) -> None:
    http = start(token="secret", allow_shutdown=True)
    for path, handlers in {**app.ROUTES, **vectors.ROUTES}.items():
        for method in handlers:
            answer = http.ask(method, path.replace("{id}", "x").replace("{x:path}", "0"), {})
            assert answer.status == 401 and "token" in answer.message, path
    basic = {"Authorization": "Basic " + base64.b64encode(b"user:secret").decode()}
    for headers in (basic, {"Authorization": "Bearer secret"}):
        assert http.ask("GET", "/v1/envs/", None, headers).json["all_envs"] == {}


def test_foreign_pages_are_refused(http: Any) -> None:
    id = made(http)
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"}):
        answer = http.ask("POST", f"/v1/envs/{id}/close/", None, headers)
        assert answer.status == 403 and "foreign" in answer.message
    assert id in http.listed()


def test_off_loopback_ids_are_secrets_and_bodies_must_say_what_they_are(start: Any) -> None:
    http = start(host="0.0.0.0", token="secret")
    headers = {"Authorization": "Bearer secret"}
    answer = http.ask("POST", "/v1/envs/", {"env_id": "CartPole-v0"}, headers)
    assert len(answer.json["instance_id"]) == 32
    answer = http.ask("POST", "/v1/envs/", {"env_id": "CartPole-v0"}, {**headers, "Content-Type": "text/plain"})
    assert answer.status == 415 and answer.message == "expected Content-Type: application/json, got 'text/plain'"


def test_unsafe_and_impossible_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no token was given"):
        serve(host="0.0.0.0", port=0)
    with (
        running() as url,
        pytest.raises(BadInput, match=r"cannot listen on 127\.0\.0\.1, port .*is another server there\?"),
    ):
        serve(port=int(url.rsplit(":")[-1]))
    for name in ("max_envs", "idle", "patience"):
        with pytest.raises(BadInput, match=f"{name} must be above 0, got 0"):
            serve(port=0, **{name: 0})
    with pytest.raises(BadInput, match="cannot listen"):
        serve(port=99999)


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(BadInput, match=r'serving needs uvicorn, which is missing: pip install "whorl\[server\]"'):
        serve(port=0)


def test_localhost_is_both_families(start: Any, ipv6: None) -> None:
    http = start()
    with socket.create_connection(("::1", http.port), timeout=60) as connection:
        connection.sendall(
            f"GET /v1/envs/ HTTP/1.1\r\nHost: localhost:{http.port}\r\nConnection: close\r\n\r\n".encode()
        )
        assert connection.makefile("rb").read().startswith(b"HTTP/1.1 200 ")


# --------------------------------------------------------------------------------------------- start and stop


def test_answers_leave_at_once() -> None:
    """asyncio switches the delay of small packets off only for sockets that name their protocol."""
    for listener in listening("127.0.0.1", 0):
        assert listener.proto == socket.IPPROTO_TCP
        listener.close()


def test_shutdown_only_where_allowed(start: Any, until: Any) -> None:
    http = start()
    answer = http.post("/v1/shutdown/")
    assert answer.status == 403 and "--allow-shutdown" in answer.message
    http = start(allow_shutdown=True)
    id = made(http)
    answer = http.post("/v1/shutdown/", None)
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"Server shutting down", HTML)

    def refused() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", http.port)) != 0

    until(refused)
    assert id


def test_stopping_closes_environments_and_flushes_monitors(connect: Any, world: Any, tmp_path: Path) -> None:
    closed = []

    class Closes(gymnasium.Env):
        observation_space = action_space = spaces.Discrete(2)

        def reset(self, **options: Any) -> Any:
            return 0, {}

        def step(self, action: Any) -> Any:
            return 0, 1.0, True, False, {}

        def close(self) -> None:
            closed.append(self)

    env_id = world(Closes)
    with running(root=tmp_path) as url:
        http = connect(url)
        ids = [http.create(env_id) for _ in range(3)]
        http.post(f"/v1/envs/{ids[0]}/monitor/start/", {"directory": "m"})
        http.reset(ids[0])
        assert http.step(ids[0], 0).json["done"] is True
        assert closed == []
    http.close()
    assert len({id(env) for env in closed}) == len(closed) == 3
    (stats,) = (tmp_path / "m").glob("openaigym.*.stats.json")
    assert json.loads(stats.read_text())["episode_rewards"] == [1.0]


SERVE = """
import sys
from whorl.apps.gym_server.serve import serve
serve(port=0, token=sys.argv[1])
print("stopped")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_serve_says_where_it_is_and_stops_cleanly(connect: Any) -> None:
    secret = "do-not-print-me"
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, secret],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line.startswith("Server starting at: http://127.0.0.1:")
    http = connect(line.removeprefix("Server starting at: "))
    headers = {"Authorization": f"Bearer {secret}"}
    made = http.ask("POST", "/v1/envs/", {"env_id": "CartPole-v0"}, headers).json["instance_id"]
    assert http.ask("POST", f"/v1/envs/{made}/reset/", {"key": "also-secret"}, headers).status == 200
    assert http.post("/v1/upload/", {"training_dir": "x", "api_key": "also-secret"}).status == 401
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (0, "stopped\n", "")


def test_the_default_folder_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with running():
        (folder,) = tmp_path.iterdir()
        assert folder.name.startswith("whorl-gym-") and folder.stat().st_mode & 0o777 == 0o700
    folder.rmdir()
    (tmp_path / "elsewhere").mkdir()
    for put in (lambda: folder.symlink_to(tmp_path / "elsewhere"), lambda: folder.write_text("a file")):
        put()
        with pytest.raises(BadInput, match="is not a folder of yours: say where monitors may write"), running():
            pass
        folder.unlink()
