"""Random requests, from fixed seeds, against a running gym server: documented answers only, and it lives."""

from __future__ import annotations

import contextlib
import copy
import http.client
import json
import logging
import os
import re
import socket
import urllib.parse

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

pytest.importorskip("uvicorn", reason="needs the extra server: pip install 'whorl[server]'")
pytest.importorskip("starlette", reason="needs the extra server: pip install 'whorl[server]'")

from tests.apps.gym_server.hostile import DOCUMENTED, ROUTES, ask, listed, make, make_vector
from whorl.apps.gym_server.serve import running

REQUESTS = 3000 if "WHORL_KILLS" in os.environ else 500  # make faults
KINDS = {
    "Discrete": spaces.Discrete(3, start=-1),
    "Box": spaces.Box(-1, 1, (2, 2), np.float32),
    "Bytes": spaces.Box(0, 255, (3,), np.uint8),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiBinary": spaces.MultiBinary(3),
    "Text": spaces.Text(5),
    "Tuple": spaces.Tuple([spaces.Discrete(2), spaces.Box(-1, 1, (1,))]),
    "Dict": spaces.Dict({"a": spaces.Discrete(2), "b": spaces.MultiBinary([2, 2])}),
}


class Kind(gymnasium.Env):
    """Observations are samples; every 20th step ends the episode; an info that JSON cannot hold as it is."""

    metadata = {"render_modes": []}

    def __init__(self, space):
        self.observation_space = self.action_space = copy.deepcopy(space)
        self.observation_space.seed(0)
        self.at = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {"odd": [np.float32("nan"), np.int64(1), object(), {1: b"x"}]}

    def step(self, action):
        assert self.action_space.dtype != np.float32 or np.isfinite(action).all()
        self.at += 1
        return self.observation_space.sample(), 1.0, False, self.at % 20 == 0, {}


@pytest.fixture
def kinds():
    for name, space in KINDS.items():
        gymnasium.register(f"Kind{name}-v0", lambda space=space: Kind(space))
    yield
    for name in KINDS:
        del gymnasium.registry[f"Kind{name}-v0"]


class Noise:
    """Random requests from one seed: plausible, damaged and absurd."""

    # fmt: off
    WORDS = ["env_id", "seed", "action", "render", "directory", "force", "resume", "video_callable", "training_dir", "api_key",
             "algorithm_id", "num_envs", "max_episode_steps", "flatten", "bounds", "name", "shape", "low", "n", "dtype", "x"]
    SCALARS = [None, True, False, 0, 1, -1, 2, 3, 7, 0.5, -0.0, 1e308, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, "", "0", "true",
               "clip", "strict", "d", "a/b", "..", "/tmp/x", "é\ud800\0", "x" * 300, "CartPole-v1", "Box", "float32", [], {}, [[]]]
    PARTS = ["nothing", "%00", "..", "%2f", "é", " ", "a" * 200, "1.5", "[1,2]", "1e999", "NaN", "-1", "%22x%22", "{", "9" * 5000]
    ENDS = ["/", "//", "/x", "%2f", "?json=1", "?a=%00", "#x", ";x"]
    # fmt: on

    def __init__(self, seed):
        self.draw = np.random.default_rng(seed)
        self.ids, self.vectors = ["nothing"], ["0" * 32]

    def one(self, of):
        return of[int(self.draw.integers(len(of)))]

    def value(self, depth=0):
        kind = self.draw.random()
        if kind < 0.6 or depth > 4:
            return self.one(self.SCALARS)
        if kind < 0.85:
            return [self.value(depth + 1) for _ in range(self.draw.integers(4))]
        return {self.one(self.WORDS): self.value(depth + 1) for _ in range(self.draw.integers(4))}

    def body(self):
        kind = self.draw.random()
        if kind < 0.1:
            return None
        if kind < 0.2:
            return self.draw.bytes(int(self.draw.integers(60)))
        ready = {word: self.value() for word in self.WORDS if self.draw.random() < 0.4}
        if self.draw.random() < 0.5:
            ready["env_id"] = self.one(
                ["CartPole-v1", "Pendulum-v0", "FrozenLake-v0", *(f"Kind{name}-v0" for name in KINDS)]
            )
        if self.draw.random() < 0.2:
            ready = self.value()
        text = json.dumps(ready).encode()
        if kind < 0.3:
            text = text.replace(b"1", self.one([b"NaN", b"-Infinity", b"1e999", b"-1e999", b"01", b"1" * 5000]))
        if kind < 0.35:
            text = text[: int(self.draw.integers(len(text) + 1))]
        return text

    def path(self):
        path = self.one(ROUTES)[1]
        known = self.vectors if "vectors" in path else self.ids
        path = path.replace("{id}", self.one(known if self.draw.random() < 0.9 else self.PARTS))
        path = path.replace("{x:path}", self.one(self.PARTS))
        path += self.one(self.ENDS) if self.draw.random() < 0.1 else ""
        return urllib.parse.quote(path, safe="/%?=#;[]{}")

    def method(self, path):
        usual = [m for m, p in ROUTES if re.fullmatch(re.sub("{[^}]*}", "[^/]+", p), path.rstrip("/"))]
        odd = ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "FOO"]
        return self.one(usual if usual and self.draw.random() < 0.9 else odd)

    def headers(self):
        name, value = self.one(["Content-Type", "Accept", "X-Empty-As-JSON"]), self.one(["", "1", "text/html", "\xe9"])
        return {name: value} if self.draw.random() < 0.2 else {}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(root=tmp_path_factory.mktemp("root")) as url:
        yield url


@pytest.mark.fault
def test_random_requests_break_nothing(tmp_path, kinds, caplog):
    noise, seen = Noise(20), {}
    with running(root=tmp_path, max_envs=24) as url:
        at = urllib.parse.urlsplit(url)
        connection = http.client.HTTPConnection(at.hostname, at.port)
        for number in range(REQUESTS):
            if number % 250 == 0:
                noise.ids = ["nothing", *(make(url, f"Kind{name}-v0") for name in KINDS), make(url, "FrozenLake-v0")]
                noise.vectors = ["0" * 32, make_vector(url)]
            path, body = noise.path(), noise.body()
            method, headers = noise.method(path), noise.headers()
            with contextlib.suppress(http.client.HTTPException):
                connection.request(method, path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
            request = (number, method, path[:200], (body or b"")[:300])
            assert answer.status in DOCUMENTED, (request, answer.status, data)
            seen[answer.status] = seen.get(answer.status, 0) + 1
            if answer.status >= 400 and method != "HEAD":
                assert list(json.loads(data)) == ["message"], (request, data)
            elif answer.getheader("content-type") == "application/json" and method != "HEAD":
                assert isinstance(json.loads(data, parse_constant=pytest.fail), dict), request
            if number % 250 == 249:
                for id in listed(url):
                    assert ask(url, "POST", f"/v1/envs/{id}/close/")[0] == 204
                ask(url, "DELETE", f"/whorl/v1/vectors/{noise.vectors[1]}")
        connection.close()
        alive = make(url)
        assert ask(url, "POST", f"/v1/envs/{alive}/reset/")[0] == 200
    assert {200, 204, 400, 404, 405} <= set(seen) and seen[200] > REQUESTS // 12, seen
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_bytes_that_are_no_http_break_nothing(server):
    draw, at = np.random.default_rng(21), urllib.parse.urlsplit(server)
    head = (
        f"POST /v1/envs/ HTTP/1.1\r\nHost: {at.netloc}\r\nContent-Length: 24\r\n\r\n".encode()
        + b'{"env_id":"nothing-v0"}\n'
    )
    for number in range(300):
        data = bytearray(head)
        for _ in range(int(draw.integers(1, 20))):
            data[int(draw.integers(len(data)))] = int(draw.integers(256))
        data = bytes(draw.bytes(100)) if number % 10 == 0 else bytes(data[: int(draw.integers(1, len(data) + 1))])
        with socket.create_connection((at.hostname, at.port)) as connection, contextlib.suppress(ConnectionError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            first = connection.recv(4096)
            assert not first or int(first.split()[1]) < 500, (data, first)
    assert ask(server, "POST", f"/v1/envs/{make(server)}/reset/")[0] == 200
