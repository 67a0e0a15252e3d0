"""Every way to lose an environment over HTTP says what happened, where, and what to do. Real servers, real sockets."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager, suppress
from http.client import HTTPResponse

import gymnasium
import numpy as np
import pytest

import whorl
from tests.envs.http_servers import registered, spoiling
from tests.envs.same_walk import assert_same_walk, equal
from tests.training.fingerprint import fingerprint
from whorl.apps.cli import main
from whorl.envs.adapters import gym_client
from whorl.envs.adapters.gym_client import Connection, GymClient
from whorl.envs.adapters.gymnasium import Gymnasium
from whorl.envs.adapters.http import Http
from whorl.envs.adapters.http_vector import packed, space, unpacked
from whorl.envs.ids import TOKEN, place
from whorl.envs.make import make_env
from whorl.errors import BadInput, EnvError
from whorl.training.loggers import Logger


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)


# ------------------------------------------------------------------------------------------------ servers that fail


def test_unreachable():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(EnvError, match=f"{url} cannot be reached .*refused.*: start the server there"):
        Http(f"{url}/CartPole-v1")
    with pytest.raises(EnvError, match="http://no..host cannot be reached"):
        Http("http://no..host/CartPole-v1")


def test_the_command_line_says_so_too(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["train", "ppo", "http://127.0.0.1:1/CartPole-v1", "--runs", str(tmp_path)])
    assert caught.value.code == EnvError.exit_code == 1 and not list(tmp_path.iterdir())
    assert "whorl: http://127.0.0.1:1 cannot be reached" in capsys.readouterr().err


def test_an_answer_that_comes_one_byte_at_a_time_ends_with_the_time():
    """Every byte comes well within the time-out, all of them never."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip():
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b" " * 1000000:
                    connection.sendall(bytes([byte]))
                    time.sleep(0.01)

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        connection = Connection(f"http://127.0.0.1:{listener.getsockname()[1]}", None, timeout=0.8)
        with pytest.raises(EnvError, match="no answer within 0.8 seconds"):
            connection.ask("GET", "/")
        thread.join()  # it was told, too


@contextmanager
def saying(text: bytes | None):
    """The URL of a server that answers every connection with the same bytes and closes it; with None it says nothing."""
    listener = socket.create_server(("127.0.0.1", 0))
    held = []

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            held.append(connection)
            if text is not None:
                connection.recv(65536)
                connection.sendall(text)
                connection.close()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    for each in (*held, listener):
        each.close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"no answer within 0\.2 seconds: the server hangs, or its environment is slower than that"),
        (b"SSH-2.0-OpenSSH\r\n", "the answer is not HTTP .*Is this a gym HTTP server"),
        (b"", "the connection was lost before the answer came .*Was the server stopped.*whorl resume"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789", "the answer broke off after 10 of 100 bytes"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000000\r\n\r\n",
            "has 10000000000000 bytes, at most 67108864 were",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nx", "the connection was lost before"),
        (b"HTTP/1.1 503 X\r\nContent-Length: 4\r\n\r\nbusy", "the server answered 503: 'busy'"),
        (b'HTTP/1.1 200 X\r\nContent-Length: 32\r\n\r\n{"server":"whorl","protocol": 2}', "speaks protocol 2"),
    ],
)
def test_what_is_no_gym_server(text, message):
    with saying(text) as url, pytest.raises(EnvError, match=f"(GET )?{url}.*{message}"):
        Http(f"{url}/CartPole-v1", timeout=0.2 if text is None else 60)


def test_a_page_of_another_server():
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<html></html>"
    with saying(page) as url, pytest.raises(EnvError, match="expected a JSON object, the answer is '<html></html>'"):
        Http(f"{url}/CartPole-v1")


def only(what, change):
    """A spoiler of the answers to the route that ends so."""
    return lambda method, path, status, body: (
        change(status, body) if path.rstrip("/").endswith(what) else (status, body)
    )


STEP_BYTES = 1 + 2 * 16 + 2 * (4 + 1 + 1)  # of two CartPoles, none of which ended
VECTOR_FAILURES = [
    (lambda s, b: (s, b + b"\0"), f"malformed: it has {STEP_BYTES + 1} bytes, {STEP_BYTES} were expected"),
    (lambda s, b: (s, b[:-1]), f"it ends after {STEP_BYTES - 1} bytes"),
    (lambda s, b: (s, b""), "its flags are b''"),
    (lambda s, b: (s, b"\x08" + b[1:]), r"its flags are b'\\x08'"),
    (lambda s, b: (s, b"\x01" + b[1:]), f"it ends after {STEP_BYTES} bytes"),
    (lambda s, b: (s, b[:-1] + b"\2"), "a flag is neither 0 nor 1"),
    (lambda s, b: (s, bytes(1 << 20)), "has 1048576 bytes, at most 65536 were expected"),
    (lambda s, b: (s, b'{"observation": []}'), "malformed"),
    (lambda s, b: (500, b'{"message": "kaputt"}'), "the server answered 500: kaputt"),
    (
        lambda s, b: (404, b'{"message": "no such vector"}'),
        r"CartPole-v1 is gone.* 404: no such vector.*reset\(seed\) makes it",
    ),
    (lambda s, b: None, "the connection was lost before the answer came"),
]


@pytest.mark.parametrize(("change", "message"), VECTOR_FAILURES)
def test_vector_step_that_fails(change, message, base):
    spoiled = {"on": False}
    spoil = only("/step", lambda s, b: change(s, b) if spoiled["on"] else (s, b))
    with spoiling(base, spoil) as url:
        env, local = Http(f"{url}/CartPole-v1", 2), make_env("CartPole-v1", 2)
        assert equal(env.reset(), local.reset())
        assert_same_walk(env, local, 3)
        spoiled["on"] = True
        with pytest.raises(EnvError, match=message) as caught:
            env.step(np.zeros(2, np.int64))
        assert url in str(caught.value)
        with pytest.raises(
            BadInput, match=r"reset\(\) before step\(\): nothing was begun yet, or the last call failed"
        ):
            env.step(np.zeros(2, np.int64))
        spoiled["on"] = False
        assert equal(env.reset(4), local.reset(4))
        assert_same_walk(env, local, 100)
        env.close()


V1_FAILURES = [
    (lambda r: "<html>", "expected a JSON object, the answer is '\"<html>\"'"),
    (lambda r: {key: r[key] for key in ("reward", "done", "info")}, "malformed: it has no 'observation'"),
    (lambda r: r | {"observation": [1.0, 2.0]}, r"expected observations of .*float32 of shape \(2, 4\), got"),
    (lambda r: r | {"observation": [None] * 4}, "got something else"),
    (lambda r: r | {"observation": ["1"] * 4}, "expected observations of"),
    (lambda r: r | {"reward": "1"}, "expected a number as reward and a bool as done, got '1' and"),
    (lambda r: r | {"done": 0}, "expected a number as reward and a bool as done, got 1.0 and 0"),
]


@pytest.mark.parametrize(("change", "message"), V1_FAILURES)
def test_v1_step_that_is_malformed(change, message, base):
    spoil = only("/step", lambda s, b: (s, json.dumps(change(json.loads(b))).encode()))
    with spoiling(base, spoil) as url:
        env = Http(f"{url}/CartPole-v1", 2, protocol="v1")
        env.reset(0)
        with pytest.raises(EnvError, match=message) as caught:
            env.step(np.zeros(2, np.int64))
        assert url in str(caught.value)
        env.close()


@pytest.mark.parametrize(
    ("route", "change", "message"),
    [
        ("/vectors", {"vector_id": "../../v1/shutdown"}, "does not describe an environment"),
        (
            "/vectors",
            {"observation_space": {"type": "Box", "dtype": "float32", "shape": [1 << 40], "low": "", "high": ""}},
            "does not",
        ),
        ("/vectors", {"observation_space": {"type": "MultiBinary", "n": [1 << 20, 1 << 20]}}, "does not describe"),
        (
            "/vectors",
            {"observation_space": {"type": "MultiBinary", "n": [1 << 26]}},
            "a step of it would take .* bytes, at most",
        ),
        ("/vectors", {"action_space": {"type": "Graph"}}, "a space of the type 'Graph'"),
        ("/vectors", {"action_space": []}, "does not describe"),
        ("/vectors", {"action_space": {"type": "MultiDiscrete", "nvec": [2, 0]}}, "does not describe"),
        ("/vectors", {"max_episode_steps": "500"}, "'500' is no number"),
        ("/action_space", {"info": {"name": "Discrete"}}, "does not describe a space"),
        (
            "/observation_space",
            {"info": {"name": "Box", "shape": [4], "low": [0], "high": [1] * 4}},
            "expected 4 numbers",
        ),
        ("/observation_space", {"info": 3}, "does not describe a space"),
    ],
)
def test_descriptions_that_make_no_sense(route, change, message, base):
    spoil = only(route, lambda s, b: (s, json.dumps(json.loads(b) | change).encode()))
    with spoiling(base, spoil) as url, pytest.raises(EnvError, match=message):
        Http(f"{url}/CartPole-v1", 2, protocol="auto" if route == "/vectors" else "v1")


@pytest.mark.parametrize("protocol", ["vector", "v1"])
def test_a_step_without_an_answer(protocol, base):
    over = threading.Event()

    def spoil(method, path, status, body):
        if path.rstrip("/").endswith("/step"):
            over.wait()
        return status, body

    with spoiling(base, spoil) as url:
        env = Http(f"{url}/CartPole-v1", 2, protocol=protocol)
        env.reset(0)
        for connection in getattr(env._remote, "_connections", None) or [env._remote._connection]:
            connection.timeout = 0.2  # only now: what came before may take its time
        with pytest.raises(EnvError, match=f"{url}/.*/step/?: no answer within 0.2 seconds: the server hangs"):
            env.step(np.zeros(2, np.int64))
        over.set()


def test_patience_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv(gym_client.TIMEOUT, "0.2")
    message = f"no answer within 0.2 seconds.* set the environment variable {gym_client.TIMEOUT} to more seconds"
    with saying(None) as url:
        for call in (lambda: Http(f"{url}/CartPole-v1"), GymClient(url).env_list_all):
            with pytest.raises(EnvError, match=message):
                call()
    for wrong in ("soon", "0", "nan"):
        monkeypatch.setenv(gym_client.TIMEOUT, wrong)
        with pytest.raises(BadInput, match=f"{gym_client.TIMEOUT} must be a number of seconds above 0, got '{wrong}'"):
            GymClient(url)


@pytest.mark.parametrize("protocol", ["vector", "v1"])
def test_closing_does_not_wait_for_a_server_that_hangs(protocol, base, monkeypatch):
    monkeypatch.setattr(gym_client, "CLOSING", 0.2)
    over = threading.Event()

    def spoil(method, path, status, body):
        if method == "DELETE" or path.endswith("/close/"):
            over.wait()
        return status, body

    with spoiling(base, spoil) as url:
        env = Http(f"{url}/CartPole-v1", 2, protocol=protocol, timeout=100_000)
        env.reset(0)
        env.close()
        over.set()


@pytest.fixture
def interrupt(monkeypatch):
    """Make the next answer be interrupted, as Ctrl-C does."""

    def once():
        class Interrupted(HTTPResponse):
            def begin(self):
                monkeypatch.setattr(gym_client, "HTTPResponse", HTTPResponse)
                raise KeyboardInterrupt

        monkeypatch.setattr(gym_client, "HTTPResponse", Interrupted)

    return once


@pytest.mark.parametrize("protocol", ["vector", "v1"])
def test_an_interrupted_call_leaves_no_answer_behind(protocol, base, interrupt):
    env, local = Http(f"{base}/FrozenLake-v1", 2, protocol=protocol), Gymnasium("FrozenLake-v1", 2)
    env.reset(0)
    interrupt()
    with pytest.raises(KeyboardInterrupt):
        env.step(np.zeros(2, np.int64))
    with pytest.raises(BadInput, match="the last call failed"):
        env.step(np.zeros(2, np.int64))
    assert equal(env.reset(4), local.reset(4))
    assert_same_walk(env, local, 20)
    env.close()


def test_an_interrupted_call_of_the_client_leaves_no_answer_behind(base, interrupt):
    client, env = GymClient(base), gymnasium.make("CartPole-v1")
    instance = client.env_create("CartPole-v1", seed=0)
    assert client.env_reset(instance) == env.reset(seed=0)[0].tolist()
    env.step(1)
    interrupt()
    with pytest.raises(KeyboardInterrupt):
        client.env_step(instance, 1)
    assert client.env_action_space_info(instance)["n"] == 2
    assert client.env_step(instance, 0)[0] == env.step(0)[0].tolist()
    client._connection.send("GET", "/v1/envs/")  # an alarm between the two
    assert client.env_step(instance, 0)[0] == env.step(0)[0].tolist()
    client.env_close(instance)


@pytest.mark.parametrize("protocol", ["vector", "v1"])
def test_an_environment_that_comes_back_as_another(protocol, base):
    class Changing(Crashing):
        size = 2

        def __init__(self):
            self.observation_space = gymnasium.spaces.Box(-1, 1, (self.size,), np.float32)

        def reset(self, **options):
            return np.zeros(self.size, np.float32), {}

    with registered("HttpChanging-v0", Changing):
        env = Http(f"{base}/HttpChanging-v0", 2, protocol=protocol)
        env.reset(0)
        free(env)
        Changing.size = 3
        for _ in range(2):
            with pytest.raises(EnvError, match="HttpChanging-v0 came back with other spaces than it had"):
                env.reset(0)
            with pytest.raises(EnvError, match="is gone"):
                env.reset()
        Changing.size = 2
        assert env.reset(0).shape == (2, 2)
        env.close()


def test_invented_steps_are_passed_on(base):
    """No environment behind `make_env` invents steps today; the flag is read all the same."""
    spoil = only("/step", lambda s, b: (s, bytes([b[0] | 2]) + b[1:] + b"\1\0"))
    with spoiling(base, spoil) as url:
        env = Http(f"{url}/CartPole-v1", 2)
        env.reset(0)
        step = env.step(np.zeros(2, np.int64))
        assert step.valid.tolist() == [True, False] and step.valid.dtype == bool
        env.close()


class Crashing(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        if action:
            raise RuntimeError("out of fuel")
        return np.zeros(2, np.float32), 0.0, False, False, {}


@pytest.mark.parametrize("protocol", ["vector", "v1"])
def test_an_environment_that_crashes(protocol, base):
    with registered("HttpCrashing-v0", Crashing):
        env = Http(f"{base}/HttpCrashing-v0", 2, protocol=protocol)
        env.reset(0)
        env.step(np.array([0, 0]))
        with pytest.raises(EnvError, match="answered 500: .*RuntimeError: out of fuel"):
            env.step(np.array([0, 1]))
        env.reset(0)  # the server lives
        env.step(np.array([0, 0]))
        env.close()


@pytest.mark.parametrize("protocol", ["vector", "v1"])
def test_an_environment_that_the_server_gave_up(protocol, base):
    """A seed begins everything anew, so `reset(seed)` may make it again; anything else must say that it is gone."""
    env, local = Http(f"{base}/FrozenLake-v1", 2, protocol=protocol), Gymnasium("FrozenLake-v1", 2)
    env.reset(), local.reset()
    free(env)
    with pytest.raises(
        EnvError, match=r"is gone.*a larger --idle.*reset\(seed\) makes it again; a run goes on .*whorl resume"
    ):
        env.step(np.zeros(2, np.int64))
    with pytest.raises(EnvError, match="is gone"):
        env.reset()
    assert equal(env.reset(9), local.reset(9))
    assert assert_same_walk(env, local, 100) > 0
    free(env)
    assert equal(env.reset(9), local.reset(9))
    env.close()


def free(env):
    """What the server does with an environment that is idle for too long."""
    connection = Connection(place(env.id).base, None, 60)
    if isinstance(env._remote._at, str):
        assert connection.ask("DELETE", env._remote._at)[0] == 204
    else:
        for at in env._remote._at:
            assert connection.ask("POST", f"{at}close/", {})[0] == 204
    connection.close()


# ------------------------------------------------------------------------------------------------ files of arrays


def test_states_are_checked_before_memory_is_taken():
    arrays = {"state": np.arange(6.0).reshape(2, 3).T, "seed": np.int64(3), "flags": np.zeros((0, 2), bool)}
    back = unpacked(packed(arrays))
    assert list(back) == list(arrays) and all((back[key] == arrays[key]).all() for key in arrays)
    data = packed({"state": np.zeros(4)})
    for spoiled, message in (
        (data[:40], "not a zip file"),
        (data.replace(b"(4,)", b"(9,)"), "CRC|does not lie in"),
        (packed({"state": np.zeros(0)}).replace(b"(0,)", b"(9,)"), "CRC|does not lie in"),
    ):
        with pytest.raises(Exception, match=message):  # BadZipFile or ValueError: EnvError where it is used
            unpacked(spoiled)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("state.npy", bytes(1 << 24))
    with pytest.raises(ValueError, match="must be stored, not compressed"):
        unpacked(file.getvalue())
    claims = (
        b"\x93NUMPY\x01\x00v\x00"
        + b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117)
        + b"\n"
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("state.npy", claims)
    with pytest.raises(ValueError, match="does not lie in 0 bytes"):
        unpacked(file.getvalue())
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        packed({"state": np.array([None])})


def test_a_state_and_a_picture_that_are_none(base):
    for route, call in (("/state", "state"), ("/render", "render")):
        with spoiling(base, only(route, lambda s, b: (s, b[:-30]))) as url:
            env = Http(f"{url}/CartPole-v1", 2)
            env.reset(0)
            with pytest.raises(EnvError, match="malformed: it is not a"):
                getattr(env, call)()
            env.close()


def test_spaces_come_back():
    assert space({"type": "MultiBinary", "n": [3]}) == gymnasium.spaces.MultiBinary(3)
    assert space({"type": "MultiDiscrete", "nvec": [2, 3], "start": [0, 0]}) == gymnasium.spaces.MultiDiscrete([2, 3])
    nested = space(
        {"type": "Dict", "spaces": [["b", {"type": "Discrete", "n": 2}], ["a", {"type": "Discrete", "n": 3}]]}
    )
    assert list(nested.spaces) == ["b", "a"]


# ------------------------------------------------------------------------------------------------ runs


def start_server(port: int, root) -> subprocess.Popen:
    """whorl's server as a process of its own, once it answers."""
    code = "import sys, pathlib, whorl.apps.gym_server.serve as s; s.serve(port=int(sys.argv[1]), root=pathlib.Path(sys.argv[2]))"
    process = subprocess.Popen([sys.executable, "-c", code, str(port), str(root)], stdout=subprocess.DEVNULL)
    while True:
        assert process.poll() is None, "the server did not start"
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return process
        except OSError:
            time.sleep(0.05)


class Kills(Logger):
    """A logger that kills a process once so many steps are over."""

    def __init__(self, process, step):
        self.process, self.step = process, step

    def log(self, step, metrics):
        if step >= self.step:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.mark.fault
def test_a_server_killed_in_mid_run(base, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "total_steps": 3000,
        "num_envs": 4,
        "eval_every": 0,
        "checkpoint_every": 500,
        "log_every": 500,
        "quiet": True,
    }
    whole = whorl.train("ppo", "CartPole-v1", runs=tmp_path / "whole", **common)
    server = start_server(port, tmp_path)
    try:
        with pytest.raises(EnvError, match=f"http://127.0.0.1:{port}.*(was lost|cannot be reached)"):
            url = f"http://127.0.0.1:{port}/CartPole-v1"
            whorl.train("ppo", url, runs=tmp_path / "http", loggers=[Kills(server, 1500)], **common)
        broken = tmp_path / "http" / "last"
        with pytest.raises(EnvError, match="cannot be reached"):
            whorl.resume(broken, quiet=True, env=url)
        server = start_server(port, tmp_path)
        whorl.resume(broken, quiet=True, env=url)
        assert fingerprint(broken) == fingerprint(whole.path)
    finally:
        server.kill()
        server.wait()
