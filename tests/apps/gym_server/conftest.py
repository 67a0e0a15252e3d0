"""A real server on a free port, a connection to it that shows every byte, and environments that misbehave."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import gymnasium
import pytest

from whorl.apps.gym_server.serve import running


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which must be strict JSON."""
        return json.loads(self.body, parse_constant=_never)

    @property
    def message(self) -> str:
        """The text of an error, which must be a JSON object with nothing else, without a traceback."""
        assert self.status >= 400 and self.headers["content-type"] == "application/json", self
        assert list(self.json) == ["message"] and "Traceback" not in self.json["message"], self
        return self.json["message"]


def _never(token: str) -> None:
    raise AssertionError(f"{token} in an answer")


class Http:
    """One kept-alive connection. `exchange` sends bytes as they are; `ask` writes a plain request."""

    def __init__(self, url: str) -> None:
        self.host, self.port = urlsplit(url).hostname or "", urlsplit(url).port or 0
        self.name = f"127.0.0.1:{self.port}"
        self._socket = socket.create_connection((self.host, self.port), timeout=120)
        self._file = self._socket.makefile("rb")

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def exchange(self, request: bytes, head: bool = False) -> Answer:
        self._socket.sendall(request)
        status = self._file.readline()
        assert status.startswith(b"HTTP/1.1 "), status
        headers = {}
        while (line := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        code = int(status.split()[1])
        bare = head or code == 204
        return Answer(code, headers, b"" if bare else self._file.read(int(headers["content-length"])))

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """body: bytes as they are, or a value that is sent as JSON; None sends none."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lines = {"Host": self.name, "Content-Type": "application/json", "Content-Length": str(len(content))}
        lines.update(headers or {})
        head = "".join([f"{method} {path} HTTP/1.1\r\n", *(f"{k}: {v}\r\n" for k, v in lines.items()), "\r\n"])
        return self.exchange(head.encode("latin-1") + content, head=method == "HEAD")

    def get(self, path: str) -> Answer:
        return self.ask("GET", path)

    def post(self, path: str, body: Any = None) -> Answer:
        return self.ask("POST", path, body)

    def create(self, env_id: str, **fields: Any) -> str:
        answer = self.post("/v1/envs/", {"env_id": env_id, **fields})
        assert answer.status == 200, answer
        return answer.json["instance_id"]

    def reset(self, id: str, **fields: Any) -> Any:
        answer = self.post(f"/v1/envs/{id}/reset/", fields)
        assert answer.status == 200, answer
        return answer.json["observation"]

    def step(self, id: str, action: Any, **fields: Any) -> Answer:
        return self.post(f"/v1/envs/{id}/step/", {"action": action, **fields})

    def listed(self) -> dict[str, str]:
        return self.get("/v1/envs/").json["all_envs"]


@pytest.fixture(scope="session")
def connect() -> type[Http]:
    """The class of connections, for tests that need more than one."""
    return Http


@pytest.fixture(scope="session")
def server_extra() -> None:
    for module in ("starlette", "uvicorn"):
        pytest.importorskip(module, reason="needs the extra server: pip install 'whorl[server]'")


@pytest.fixture
def start(server_extra: None) -> Iterator[Callable[..., Http]]:
    """start(**settings): a server with these settings, and a connection to it."""
    with contextlib.ExitStack() as stack:

        def begin(**settings: Any) -> Http:
            http = Http(stack.enter_context(running(**settings)))
            stack.callback(http.close)
            return http

        yield begin


@pytest.fixture(scope="session")
def _shared(server_extra: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(root=tmp_path_factory.mktemp("root")) as url:
        yield url


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder that monitors may write to, with room around it to look for what they should not have written."""
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def server(_shared: str) -> str:
    """The address of a server that tests share."""
    return _shared


@pytest.fixture
def http(_shared: str) -> Iterator[Http]:
    """A connection to a server that tests share; what a test leaves open is closed."""
    http = Http(_shared)
    yield http
    http.close()
    cleaner = Http(_shared)  # the server may have closed the other
    for id in cleaner.listed():
        cleaner.post(f"/v1/envs/{id}/close/")
    assert cleaner.listed() == {}
    cleaner.close()


@pytest.fixture
def world() -> Iterator[Callable[..., str]]:
    """world(maker, **spec): an id for it in Gymnasium's registry, until the end of the test."""
    ids = []

    def register(maker: Callable[..., gymnasium.Env], **spec: Any) -> str:
        id = f"WhorlTest{len(ids)}-v0"
        gymnasium.register(id, entry_point=maker, **spec)
        ids.append(id)
        return id

    yield register
    for id in ids:
        del gymnasium.registry[id]


@pytest.fixture(scope="session")
def until() -> Callable[[Callable[[], bool]], None]:
    """until(condition): wait for it; a minute is a guard against waiting for ever, not a bound."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            time.sleep(0.01)

    return wait
