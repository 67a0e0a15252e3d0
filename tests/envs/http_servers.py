"""Servers for tests of the HTTP client: one that behaves as the original gym-http-api did, and a proxy that spoils answers."""

from __future__ import annotations

import http.client
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import gymnasium
import numpy as np


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None: ...

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + body)


class Listening(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None: ...  # the client closed while we were writing


@contextmanager
def serving(handler: type[Handler]) -> Iterator[str]:
    """The base URL of a server of `handler`, on a free port of loopback."""
    server = Listening(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Refusal(Exception):
    pass


class Original(Handler):
    """gym-http-api of 2016 over Gymnasium's environments: `done` and `info` only, a seed at creation only (0 does not count),
    the body of a reset is never looked at. `envs` belongs to the class: make a subclass for each server."""

    envs: dict[str, gymnasium.Env]
    seeds: dict[str, int]

    def do_GET(self) -> None:
        self.route("GET")

    def do_POST(self) -> None:
        self.route("POST")

    def route(self, method: str) -> None:
        data = self.body()
        try:
            result = self.result(method, self.path, data)
        except Refusal as refusal:
            return self.answer(400, json.dumps({"message": str(refusal)}).encode())
        except Exception as error:
            return self.answer(500, f"<h1>{type(error).__name__}</h1>".encode(), "text/html")
        if result is NotImplemented:
            return self.answer(404, b"<h1>Not Found</h1>", "text/html")
        if result is None:
            return self.answer(204, b"", "text/html; charset=utf-8")
        self.answer(200, json.dumps(result).encode())

    def result(self, method: str, path: str, data: bytes) -> Any:
        if path == "/v1/envs/":
            return self.create(json.loads(data)) if method == "POST" else {"all_envs": self.listed()}
        if not path.startswith("/v1/envs/"):
            return NotImplemented
        instance, _, what = path.removeprefix("/v1/envs/").partition("/")
        if instance not in self.envs:
            raise Refusal(f"Instance_id {instance} unknown")
        env = self.envs[instance]
        if what == "reset/":
            return {"observation": jsonable(env.reset(seed=self.seeds.pop(instance, None))[0])}
        if what == "step/":
            return self.step(env, json.loads(data))
        if what == "close/":
            self.envs.pop(instance).close()
            return None
        if what in ("action_space/", "observation_space/"):
            return {"info": described(getattr(env, what[:-1]))}
        if what == "action_space/sample":
            return {"action": jsonable(env.action_space.sample())}
        if what.startswith("action_space/contains/"):
            return {"member": bool(env.action_space.contains(int(what.rpartition("/")[2])))}
        if what == "observation_space/contains":
            info = described(env.observation_space)
            return {"member": all(info[key] == value for key, value in json.loads(data).items())}
        return NotImplemented

    def create(self, data: dict) -> dict:
        try:
            env = gymnasium.make(data["env_id"])
        except gymnasium.error.Error:
            raise Refusal(f"Attempted to look up malformed environment ID '{data['env_id']}'") from None
        instance = uuid.uuid4().hex[:8]
        self.envs[instance] = env
        if data.get("seed"):
            self.seeds[instance] = data["seed"]
        return {"instance_id": instance}

    def listed(self) -> dict:
        return {instance: env.spec.id for instance, env in self.envs.items() if env.spec}

    def step(self, env: gymnasium.Env, data: dict) -> dict:
        action = data["action"]
        action = action if isinstance(action, int) else np.array(action, env.action_space.dtype)
        observation, reward, terminated, truncated, _ = env.step(action)
        done = terminated or truncated
        info = {"TimeLimit.truncated": bool(truncated and not terminated)} if done else {}
        return {"observation": jsonable(observation), "reward": float(reward), "done": bool(done), "info": info}


def jsonable(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def described(space: Any) -> dict:
    info: dict[str, Any] = {"name": type(space).__name__}
    if info["name"] == "Discrete":
        info["n"] = int(space.n)
    if info["name"] == "Box":
        low, high = (np.nan_to_num(end.astype(float), posinf=1e100, neginf=-1e100) for end in (space.low, space.high))
        info |= {"shape": list(space.shape), "low": low.ravel().tolist(), "high": high.ravel().tolist()}
    return info


@contextmanager
def original() -> Iterator[tuple[str, dict[str, gymnasium.Env]]]:
    """(base URL, instances) of an original server."""
    envs: dict[str, gymnasium.Env] = {}
    with serving(type("Server", (Original,), {"envs": envs, "seeds": {}})) as base:
        yield base, envs


# What becomes of an answer: (method, path, status, body) -> (status, body); None: the connection is cut without one
Spoil = Callable[[str, str, int, bytes], tuple[int, bytes] | None]


@contextmanager
def spoiling(base: str, spoil: Spoil) -> Iterator[str]:
    """The URL of a proxy in front of the server at `base`, whose answers `spoil` may change."""
    parts = urlsplit(base)

    class Proxy(Handler):
        def forward(self) -> None:
            inner = http.client.HTTPConnection(parts.hostname or "", parts.port)
            headers = {key: value for key, value in self.headers.items() if key.lower() != "host"}
            inner.request(self.command, self.path, self.body(), headers)
            response = inner.getresponse()
            spoiled = spoil(self.command, self.path, response.status, response.read())
            inner.close()
            if spoiled is None:
                self.close_connection = True
                return
            self.answer(*spoiled)

        do_GET = do_POST = do_PUT = do_DELETE = forward

    with serving(Proxy) as proxy:
        yield proxy


@contextmanager
def registered(id: str, kind: type[gymnasium.Env]) -> Iterator[None]:
    """Gymnasium's registry with one more, which servers in this process can make."""
    gymnasium.register(id, kind)
    try:
        yield
    finally:
        del gymnasium.registry[id]
