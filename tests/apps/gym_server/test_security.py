"""What a hostile client, web page or file cannot do to a running gym server. Every route of its table is walked."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import logging
import os
import socket
import sys
import threading
import urllib.parse

import gymnasium
import pytest

pytest.importorskip("uvicorn", reason="needs the extra server: pip install 'whorl[server]'")
pytest.importorskip("starlette", reason="needs the extra server: pip install 'whorl[server]'")

from tests.apps.gym_server.counting import files
from tests.apps.gym_server.hostile import (
    DOCUMENTED,
    IDS,
    KEY,
    ROUTES,
    TOKEN,
    ask,
    basic,
    filled,
    listed,
    make,
    make_vector,
    refused,
    traversals,
    tree,
    until,
)
from whorl.apps.cli import main
from whorl.apps.gym_server import app, serve, vectors
from whorl.apps.gym_server.serve import running
from whorl.errors import BadInput

# ------------------------------------------------------------------------------------------------- where it listens


def listening(port):
    """The local addresses, as the kernel writes them, of the listening sockets with this port."""
    found = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/net/{name}") as table:
            rows = [line.split() for line in table.readlines()[1:]]
            found |= {row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}
    return found


@pytest.mark.skipif(not os.path.exists("/proc/net/tcp"), reason="needs Linux")
def test_it_listens_on_loopback_only_unless_told_otherwise(root):
    assert serve.Settings().host == "127.0.0.1"
    with running(root=root) as url:
        addresses = listening(urllib.parse.urlsplit(url).port)
        assert "0100007F" in addresses
        assert addresses <= {"0100007F", "00000000000000000000000001000000"}  # 127.0.0.1, ::1


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.7.7", "8.8.8.8", "my-machine.example", "127.1"])
def test_another_address_without_a_token_is_refused_before_anything_listens(host, root, monkeypatch):
    monkeypatch.setattr(socket, "create_server", lambda *args, **options: pytest.fail("it listened"))
    for start in (lambda: serve.serve(host=host, root=root), lambda: running(host=host, root=root).__enter__()):
        with pytest.raises(BadInput, match="lets other machines in, and no token was given"):
            start()


def test_further_names_of_the_server_are_named_by_its_owner(root):
    """Behind a tunnel or a proxy a request names another host and port than those the server listens on."""
    with running(root=root, allow_hosts=("gym.example:8443",), token=TOKEN) as url:
        assert ask(url, "GET", "/v1/envs/", headers=[basic(TOKEN), ("Host", "gym.example:8443")])[0] == 200
        refused(ask(url, "GET", "/v1/envs/", headers={"Host": "gym.example:8443"}), 401, "this server needs its token")
        refused(ask(url, "GET", "/v1/envs/", headers={"Host": "gym.example:8444"}), 403, "foreign Host")


@pytest.mark.parametrize("name", ["gym.example:8443", "gym.example", "[2001:db8::1]:80", "10.0.0.1"])
def test_further_names_that_others_use_need_a_token(name, root):
    with pytest.raises(BadInput, match="lets other machines in, through a tunnel or a proxy.*give one .--token"):
        running(root=root, allow_hosts=("localhost:1", name)).__enter__()


def test_further_names_of_loopback_need_none(root):
    with running(root=root, allow_hosts=("localhost:1", "127.0.0.1", "[::1]:1", "[::1]")) as url:
        assert ask(url, "GET", "/v1/envs/", headers={"Host": "localhost:1"})[0] == 200


def test_an_empty_token_is_not_taken_for_none(monkeypatch, capsys):
    monkeypatch.setenv("WHORL_GYM_TOKEN", TOKEN)
    with pytest.raises(SystemExit) as caught:
        main(["serve-gym", "--port", "0", "--token", ""])
    assert caught.value.code == BadInput.exit_code and "the token is empty" in capsys.readouterr().err


def test_the_folder_of_monitors_needs_no_user_name(tmp_path, monkeypatch):
    """In a container a user may have a number only."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("getpass.getuser", lambda: {}["no such user"])
    assert serve._own_folder().parent == tmp_path and serve._own_folder().is_dir()


def test_another_address_with_a_token_asks_for_it(root):
    with running(host="0.0.0.0", token=TOKEN, root=root) as url:
        at = url.replace("0.0.0.0", "127.0.0.1")
        refused(ask(at, "GET", "/v1/envs/"), 401, "this server needs its token")
        assert ask(at, "GET", "/v1/envs/", headers=[basic(TOKEN)])[0] == 200
        refused(ask(at, "GET", "/v1/envs/", headers=[basic(TOKEN), ("Host", "evil.example")]), 403, "foreign Host")
        as_text = [basic(TOKEN), ("Content-Type", "text/plain")]  # what a page may send without asking
        refused(ask(at, "POST", "/v1/envs/", {"env_id": "CartPole-v1"}, as_text), 415, "expected Content-Type: app")
        assert len(make_id(at)) == 32  # an id is a secret there


def make_id(url):
    status, _, answer = ask(url, "POST", "/v1/envs/", {"env_id": "CartPole-v1"}, [basic(TOKEN)])
    assert status == 200
    return answer["instance_id"]


# ------------------------------------------------------------------------------------------------- who may ask


def test_the_table_has_all_routes():
    assert len(app.ROUTES) >= 14 and len(vectors.ROUTES) >= 7 and len(ROUTES) >= 23


FOREIGN = {
    "Host": ["evil.example", "localhost", "127.0.0.1:1", "localhost.evil.example:{port}", ""],
    "Origin": ["http://evil.example", "https://localhost.evil.example", "null", "http://127.0.0.1:1", "file://"],
    "Sec-Fetch-Site": ["cross-site", "same-site"],
}


@pytest.mark.parametrize("header", FOREIGN)
def test_foreign_requests_are_refused_on_every_route(tmp_path, header):
    with running(root=tmp_path, allow_shutdown=True) as url:
        instance, vector, port = make(url), make_vector(url), urllib.parse.urlsplit(url).port
        for (method, path), value in itertools.product(ROUTES, FOREIGN[header]):
            for target in (filled(path, instance, vector), filled(path, instance, vector) + "/"):
                body = {"env_id": "CartPole-v1", "action": 1, "directory": "d", "training_dir": "d", "api_key": "k"}
                answer = ask(url, method, target, body, [(header, value.format(port=port))])
                refused(answer, 403, f"foreign {header}")
                assert not [name for name in answer[1] if name.lower().startswith("access-control-")]
        assert listed(url) == {instance: "CartPole-v1"} and ask(url, "POST", f"/v1/envs/{instance}/reset/")[0] == 200
        assert list(tmp_path.iterdir()) == []


def test_every_route_asks_for_the_token(tmp_path):
    wrong = [[], [basic("wrong")], [basic("")], [("Authorization", "Bearer wrong")], [("Cookie", f"token={TOKEN}")]]
    with running(root=tmp_path, allow_shutdown=True, token=TOKEN) as url:
        instance = make_id(url)
        fixed = [
            ("GET", "/"),
            ("GET", "/nothing"),
            ("OPTIONS", "/v1/envs/"),
            ("GET", "/docs"),
            ("GET", "/openapi.json"),
        ]
        for (method, path), headers in itertools.product([*ROUTES, *fixed], wrong):
            answer = ask(url, method, filled(path, instance, "0" * 32), {"env_id": "CartPole-v1"}, headers)
            refused(answer, 401, "this server needs its token")
            assert answer[1]["www-authenticate"].startswith("Basic ")
        assert listed(url, headers=[basic(TOKEN)]) == {instance: "CartPole-v1"} and list(tmp_path.iterdir()) == []
        for method, path in ROUTES:  # with it, each of them answers something else
            if path != "/v1/shutdown":
                answer = ask(
                    url, method, filled(path, instance, "0" * 32), None, [("Authorization", f"Bearer {TOKEN}")]
                )
                assert answer[0] in DOCUMENTED - {403}, (method, path, answer)


def test_answers_cannot_become_pages(server):
    """What a client sent comes back as JSON only, under a policy that runs nothing."""
    evil = "<script>alert(1)</script>"
    instance, quoted = make(server), urllib.parse.quote(evil, safe="")
    answers = [
        ask(server, "GET", f"/{quoted}"),
        ask(server, "POST", f"/v1/envs/{quoted}/reset/"),
        ask(server, "POST", "/v1/envs/", {"env_id": evil}),
        ask(server, "POST", f"/v1/envs/{instance}/step/", {"action": evil}),
        ask(server, "POST", f"/v1/envs/{instance}/monitor/start/", {"directory": evil}),
        ask(server, "POST", "/v1/upload/", {"training_dir": evil, "api_key": evil, "algorithm_id": evil}),
        ask(server, "GET", f"/whorl/v1/vectors/{quoted}/state"),
        ask(server, "GET", "/v1/envs/%0d%0aX-Injected:%201%0d%0a%0d%0a/action_space/"),
    ]
    for status, fields, data in answers:
        assert status in (400, 404) and fields["content-type"] == "application/json" and list(data) == ["message"]
        assert fields["x-content-type-options"] == "nosniff" and "x-injected" not in {name.lower() for name in fields}
        assert fields["content-security-policy"].startswith("default-src 'none'")


# ------------------------------------------------------------------------------------------------- environment ids


def test_200_hostile_ids_import_nothing_and_create_nothing(tmp_path, monkeypatch, root):
    work, canary = tmp_path / "work", tmp_path / "modules"
    work.mkdir()
    (canary / "canary").mkdir(parents=True)
    (canary / "canary" / "__init__.py").write_text(
        f"import gymnasium, pathlib\npathlib.Path({str(tmp_path / 'imported')!r}).touch()\n"
        "gymnasium.register('Canary-v0', 'gymnasium.envs.classic_control.cartpole:CartPoleEnv')\n"
    )
    monkeypatch.syspath_prepend(str(canary))
    monkeypatch.chdir(work)
    assert len(IDS) >= 200
    with running(root=root, max_envs=4) as url:
        for path in ("/v1/envs/", "/whorl/v1/vectors"):  # what an ordinary refusal needs is imported once
            refused(ask(url, "POST", path, {"env_id": "nothing-v0"}), 400, "malformed environment ID 'nothing-v0'")
        modules, registry, threads = set(sys.modules), set(gymnasium.registry), threading.active_count()
        before = tree(tmp_path)
        for env_id, path in itertools.product(IDS, ("/v1/envs/", "/whorl/v1/vectors")):
            answer = ask(url, "POST", path, {"env_id": env_id})
            refused(answer, 400, "malformed environment ID")
            assert len(answer[2]["message"]) < 1000
        for more in ({"kwargs": {"entry_point": "canary:C"}}, {"entry_point": "canary:C"}, {"module": "canary"}):
            made = make(url, "CartPole-v1", **more)  # unknown fields mean nothing
            assert ask(url, "POST", f"/v1/envs/{made}/close/")[0] == 204
        assert set(sys.modules) == modules and set(gymnasium.registry) == registry
        assert tree(tmp_path) == before and listed(url) == {}
        until(lambda: threading.active_count() <= threads)


def test_ids_outside_the_allowed_patterns_are_refused(root):
    with running(root=root, allow=["CartPole-*", "Pendulum-v1"]) as url:
        for env_id in ("CartPole-v0", "CartPole-v1", "Pendulum-v1", "Pendulum-v0"):
            make(url, env_id)
        for env_id, path in itertools.product(
            ["Acrobot-v1", "CartPole", "xCartPole-v1"], ["/v1/envs/", "/whorl/v1/vectors"]
        ):
            refused(ask(url, "POST", path, {"env_id": env_id}), 400, "malformed environment ID")


# ------------------------------------------------------------------------------------------------- folders


def test_500_traversal_payloads_change_nothing_outside_the_root(tmp_path, monkeypatch):
    root, outside, work = tmp_path / "deep" / "er" / "root", tmp_path / "outside", tmp_path / "deep" / "work"
    (root / "inner").mkdir(parents=True)
    (outside / "results").mkdir(parents=True)
    work.mkdir()
    monkeypatch.chdir(work)
    from tests.apps.gym_server.test_monitor_folders import recording

    for folder in (outside, outside / "results"):  # worth deleting, worth reading
        recording(folder, [1.0] * 3)
    for place in (root, root / "inner"):
        (place / "link").symlink_to(outside)
    (root / "loop").symlink_to("loop")
    (root / "dangling").symlink_to(outside / "new")
    (root / "file").write_text("keep")

    def elsewhere():
        return {path: what for path, what in tree(tmp_path).items() if not path.startswith(f"{root}/")}

    names = traversals(outside)
    assert len(names) >= 500
    before, accepted = elsewhere(), []
    with running(root=root) as url:
        instance = make(url)
        for name in names:
            started = ask(url, "POST", f"/v1/envs/{instance}/monitor/start/", {"directory": name, "force": True})
            if started[0] == 204:
                accepted.append(name)
                ask(url, "POST", f"/v1/envs/{instance}/reset/")
            else:
                refused(started, 400, "")
            uploaded = ask(url, "POST", "/v1/upload/", {"training_dir": name, "api_key": KEY})
            assert uploaded[0] == 400 or (uploaded[0] == 204 and name in accepted), (name, uploaded)
        assert ask(url, "POST", f"/v1/envs/{instance}/close/")[0] == 204
        for name in ("..", "link", "%2e%2e", "inner/link/results"):  # one by one, with the words of the refusal
            for path, body in (
                (f"/v1/envs/{make(url)}/monitor/start/", {"directory": name}),
                ("/v1/upload/", {"training_dir": name, "api_key": KEY}),
            ):
                refused(ask(url, "POST", path, body), 400, "cannot be a folder on this server")
    assert elsewhere() == before
    # an absolute path means its last part, inside
    assert sorted(map(str, accepted)) == sorted(name for name in names if name in accepted and name.startswith("/"))
    kept = {"inner", "link", "loop", "dangling", "file", *(name.rstrip("/").rsplit("/", 1)[-1] for name in accepted)}
    assert {path.name for path in root.iterdir()} == kept and (root / "file").read_text() == "keep"


def test_absolute_names_of_the_original_clients_land_inside(root, tmp_path):
    victim = tmp_path / "random-agent-results"
    victim.mkdir()
    (victim / "openaigym.manifest.0.1.manifest.json").write_text("keep")
    with running(root=root) as url:
        body = {"directory": str(victim), "force": True}
        assert ask(url, "POST", f"/v1/envs/{make(url)}/monitor/start/", body)[0] == 204
    assert (victim / "openaigym.manifest.0.1.manifest.json").read_text() == "keep"
    assert len(files(root / "random-agent-results", "openaigym.")) == 2


def test_paths_in_the_url_lead_nowhere(server):
    for path in (
        "/../../etc/passwd",
        "/v1/../../../etc/passwd",
        "/v1/envs/..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/etc/passwd",
    ):
        refused(ask(server, "GET", path), 404, "there is no route")
    for id in ("..%2f..", "%2e%2e", "..", "%00", "0" * 5000):
        assert ask(server, "POST", f"/v1/envs/{id}/reset/")[0] in (400, 404)


# ------------------------------------------------------------------------------------------------- shutdown, secrets


def test_shutdown_only_where_it_is_allowed(root, tmp_path):
    with running(root=root) as url:
        for path, body in itertools.product(
            ("/v1/shutdown/", "/v1/shutdown", "//v1//shutdown//"), (None, b"null", b"{}")
        ):
            refused(
                ask(url, "POST", path, body), 403, "this server is not stopped from outside: start it with --allow-"
            )
        refused(ask(url, "GET", "/v1/shutdown/"), 405, "GET is not for this route")
        assert listed(url) == {}
    with running(root=root, allow_shutdown=True, token=TOKEN) as url:
        refused(ask(url, "POST", "/v1/shutdown/"), 401, "this server needs its token")
        assert listed(url, headers=[basic(TOKEN)]) == {}
        status, fields, body = ask(url, "POST", "/v1/shutdown/", headers=[basic(TOKEN)])
        assert (status, body) == (200, b"Server shutting down") and fields["content-type"].startswith("text/html")
        at = urllib.parse.urlsplit(url)
        until(lambda: not answers(at.hostname, at.port))


def answers(host, port):
    try:
        socket.create_connection((host, port)).close()
    except ConnectionError:
        return False
    return True


def test_api_keys_and_tokens_are_in_no_log_and_no_file(root, tmp_path, caplog, monkeypatch):
    from whorl.apps.gym_server import app as routes

    caplog.set_level(1)
    for name in ("whorl", "uvicorn", "uvicorn.error", "uvicorn.access", "asyncio", "starlette"):
        caplog.set_level(1, logger=name)
    seen = []
    with running(root=root, token=TOKEN) as url:

        def send(body, path="/v1/upload/"):
            answer = ask(url, "POST", path, body, [basic(TOKEN)])
            seen.append(repr(answer))
            return answer[0]

        instance = make_id(url)
        assert send({"directory": "results"}, f"/v1/envs/{instance}/monitor/start/") == 204
        assert send({}, f"/v1/envs/{instance}/monitor/close/") == 204
        upload = {"training_dir": "results", "api_key": KEY}
        assert send({**upload, "algorithm_id": "mine"}) == 204
        assert json.loads((root / "results" / "upload.json").read_text())["algorithm_id"] == "mine"
        assert send({**upload, "training_dir": "missing"}) == 400
        assert send({**upload, "training_dir": None}) == 400
        assert send({**upload, "api_key": [KEY], "algorithm_id": [1]}) == 400
        assert send(json.dumps(upload).encode()[:-1]) == 400  # cut off
        assert send(upload, f"/v1/upload/{KEY}/") == 404 or True
        monkeypatch.setattr(routes, "score", lambda *args: 1 / 0)
        assert send(upload) == 500
        assert "division" not in seen[-1] and "Traceback" not in seen[-1]
        assert ask(url, "POST", "/v1/upload/", upload, [basic(TOKEN + "x")])[0] == 401
    seen.pop(-2)  # the client wrote its key into a path, which the answer names
    logs = "\n".join(logging.Formatter().format(record) for record in caplog.records)
    assert "ZeroDivisionError" in logs  # the log is looked at
    secrets = [KEY, TOKEN, basic(TOKEN)[1], base64.b64encode(KEY.encode()).decode()]
    for secret in secrets:
        assert secret not in logs and not [answer for answer in seen if secret in answer]
        assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]
