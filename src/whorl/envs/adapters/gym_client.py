"""A gym HTTP server from the client's side: one connection, and the original Python client's methods over it.

The protocol is that of OpenAI's gym-http-api (`/v1/...`, JSON); whorl's own server speaks it too.
"""

from __future__ import annotations

import base64
import io
import json
import operator
import os
import secrets
import socket
import time
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from typing import Any
from urllib.parse import quote, urlsplit

from whorl.envs.ids import TOKEN, place
from whorl.errors import BadInput, EnvError

TIMEOUT = "WHORL_GYM_TIMEOUT"  # an environment variable
PATIENCE = 120.0  # seconds that an answer may take, where nobody says otherwise
CLOSING = 5.0  # seconds that a server may take to free environments, which it does by itself too
CLIENT = secrets.token_hex(8)  # this process, to a server: while it asks for anything, none of its environments is idle
MOST = 64 << 20  # bytes of an answer whose size nothing else bounds
MAKING = 600.0  # seconds that a server may take to make environments: it may have to compile them
STALE = 1.0  # seconds: servers close idle connections, some after two, so an older one is not used again
STOPPED = "Was the server stopped? Start it again; a run goes on from its last checkpoint with `whorl resume`"
GONE = (
    "The server was started anew, or freed it because nobody asked for longer than its --idle (an evaluation or an update may "
    "take that long): start the server with a larger --idle. reset(seed) makes it again; a run goes on from its last "
    "checkpoint with `whorl resume`"
)
NO_SERVER = "Is this a gym HTTP server?"


class Connection:
    """One keep-alive connection to a server. `send` and `receive` are apart, so that many connections can be waited for at once.

    base: "http://host:port". token: None takes the one of the environment variable WHORL_GYM_TOKEN, if there is one.
    timeout: seconds until an answer must be there, all of it. None takes those of WHORL_GYM_TIMEOUT, or 120.
    Raises EnvError, naming the URL and what to do, when no answer comes or it is none.
    """

    def __init__(self, base: str, token: str | None, timeout: float | None = None) -> None:
        self.base, self.timeout = base, _patience() if timeout is None else timeout
        parts = urlsplit(base)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._http = kind(parts.hostname or "", parts.port, timeout=self.timeout)
        token = os.environ.get(TOKEN) if token is None else token
        self._head = f" HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: whorl\r\nX-Whorl-Client: {CLIENT}\r\n"
        if token:
            self._head += f"Authorization: Basic {base64.b64encode(f'whorl:{token}'.encode()).decode()}\r\n"
        self._used, self._waits = 0.0, False  # when it was used last; whether an answer has not been read
        self._waited = self.timeout  # seconds that the last call could take
        self.asked = ""  # the last request, for messages

    def send(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> None:
        self.asked = f"{method} {self.base}{path}"
        if self._waits or time.monotonic() - self._used > STALE:
            self.close()  # an answer that nobody read would be taken for the one to this request
        if self._http.sock is None:
            try:
                self._http.connect()
            except (OSError, UnicodeError) as error:
                raise EnvError(
                    f"{self.base} cannot be reached ({_reason(error)}): start the server there "
                    "(`whorl serve-gym --port PORT`) or correct the address"
                ) from error
        head = f"{method} {path}{self._head}"
        if body is not None:
            head += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        try:
            self._waits, self._waited = True, self.timeout
            self._http.sock.settimeout(self.timeout)  # for all of it, unlike that of reading
            self._http.send(head.encode() + b"\r\n" + (body or b""))  # as one packet; http.client's own request is two
        except OSError as error:
            raise self._broken(error) from error

    def receive(self, most: int = MOST, timeout: float = 0) -> tuple[int, bytes]:
        """(status, body) of the answer to what was sent. An answer above `most` bytes is refused before it is read.
        timeout: where it may take longer than the connection's. All of it must be there by then."""
        self._waited = max(timeout, self.timeout)
        try:
            with HTTPResponse(_Until(self._http.sock, self._waited)) as response:  # type: ignore[arg-type]
                response.begin()
                size = response.length
                data = response.read(most + 1) if size is None or size <= most else b""
        except (OSError, HTTPException) as error:
            raise self._broken(error) from error
        except BaseException:  # Ctrl-C: the rest of the answer is still to come
            self.close()
            raise
        if len(data) > most or (size or 0) > most:
            self.close()
            raise EnvError(
                f"{self.asked}: the answer has {size or 'too many'} bytes, at most {most} were expected. {NO_SERVER}"
            )
        if size is not None and len(data) < size:
            self.close()
            raise EnvError(f"{self.asked}: the answer broke off after {len(data)} of {size} bytes. {STOPPED}")
        self._used, self._waits = time.monotonic(), False
        if response.will_close:
            self.close()
        return response.status, data

    def ask(self, method: str, path: str, data: Any = None) -> tuple[int, bytes]:
        """The answer to one request; `data` becomes JSON."""
        self.send(method, path, None if data is None else to_json(data))
        return self.receive()

    def refusal(self, status: int, data: bytes) -> str:
        """What a bad status said, as the text of an error."""
        text = f"{self.asked}: the server answered {status}: {said(data)}"
        if status == 401:
            text += f". It wants its token: put it into the environment variable {TOKEN}"
        return text

    def close(self) -> None:
        self._waits = False
        self._http.close()

    def hurry(self) -> None:
        """Wait CLOSING seconds at most from here on, for requests whose answers matter little."""
        self.timeout = self._http.timeout = min(self.timeout, CLOSING)
        if self._http.sock:
            self._http.sock.settimeout(self.timeout)

    def _broken(self, error: Exception) -> EnvError:
        self.close()  # what comes later on it would be taken for the answer to another request
        if isinstance(error, TimeoutError):
            return EnvError(
                f"{self.asked}: no answer within {self._waited:g} seconds: the server hangs, or its environment is "
                f"slower than that (then set the environment variable {TIMEOUT} to more seconds)"
            )
        if isinstance(error, OSError | IncompleteRead):
            return EnvError(
                f"{self.asked}: the connection was lost before the answer came ({_reason(error)}). {STOPPED}"
            )
        return EnvError(f"{self.asked}: the answer is not HTTP ({_reason(error)}). {NO_SERVER}")


class _Until(io.RawIOBase):
    """What a socket receives until so many seconds are over: a time-out of its own begins anew at every byte."""

    def __init__(self, sock: socket.socket, seconds: float) -> None:
        self._sock, self._end = sock, time.monotonic() + seconds

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        return self._sock.recv_into(buffer)


def _patience() -> float:
    text = os.environ.get(TIMEOUT) or str(PATIENCE)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise BadInput(f"the environment variable {TIMEOUT} must be a number of seconds above 0, got {text!r}")
    return seconds


def to_json(data: Any) -> bytes:
    """Integers may be numpy's. Raises BadInput for what JSON cannot carry."""
    try:
        return json.dumps(data, separators=(",", ":"), allow_nan=False, default=operator.index).encode()
    except TypeError as error:
        raise BadInput(
            f"an action or parameter must be of numbers, texts, lists and dicts, to be sent as JSON ({error})"
        ) from error
    except ValueError:
        raise BadInput("an action or parameter holds NaN or infinity, which JSON cannot carry") from None


def from_json(data: bytes, asked: str) -> dict[str, Any]:
    """The JSON object of an answer. Raises EnvError if it is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise EnvError(f"{asked}: expected a JSON object, the answer is {_excerpt(data)}. {NO_SERVER}")
    return value


def said(data: bytes) -> str:
    """The `message` of an error's JSON, or how another answer begins."""
    try:
        message = json.loads(data)["message"]
    except (ValueError, RecursionError, TypeError, KeyError):
        return _excerpt(data)
    return _printable(str(message)[:1000])


def _excerpt(data: bytes) -> str:
    return repr(data[:80].decode("utf-8", "replace")) if data else "empty"


def _reason(error: Exception) -> str:
    return _printable(str(error)[:200]) or type(error).__name__


def _printable(text: str) -> str:
    """What a server says cannot write on the terminal but letters."""
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()


class GymClient:
    """The original Python client's methods, one request each, over one connection.

        client = GymClient("http://127.0.0.1:5000")
        instance = client.env_create("CartPole-v1")
        observation = client.env_reset(instance)
        observation, reward, done, info = client.env_step(instance, 1)

    base_url: of whorl's server, or of any other that speaks gym-http-api. A token is its password, or `token`, or the
    environment variable WHORL_GYM_TOKEN. timeout: seconds; by default those of WHORL_GYM_TIMEOUT, or 120.
    Raises EnvError, with the server's status and message, for everything that the server refuses or that is lost on the way.
    """

    def __init__(
        self, base_url: str = "http://127.0.0.1:5000", token: str | None = None, timeout: float | None = None
    ) -> None:
        base, path, password = place(base_url)
        if path:
            raise BadInput(f"expected the URL of a server, such as http://127.0.0.1:5000, got {base}/{path}")
        self._connection = Connection(base, password if token is None else token, timeout)

    def env_create(self, env_id: str, seed: int | None = None) -> str:
        """The id of a new instance."""
        return self._ask("POST", "/v1/envs/", _given(env_id=env_id, seed=seed), "instance_id")

    def env_list_all(self) -> dict[str, str]:
        """Instance id -> environment id, of all that the server holds."""
        return self._ask("GET", "/v1/envs/", None, "all_envs")

    def env_reset(self, instance_id: str, seed: int | None = None) -> Any:
        """The first observation of a new episode. The original server ignores the seed."""
        return self._ask("POST", _route(instance_id, "reset/"), _given(seed=seed), "observation")

    def env_step(self, instance_id: str, action: Any, render: bool = False) -> list:
        """[observation, reward, done, info]."""
        action = action.tolist() if hasattr(action, "tolist") else action
        answer = self._ask("POST", _route(instance_id, "step/"), {"action": action, "render": render})
        return [self._entry(answer, key) for key in ("observation", "reward", "done", "info")]

    def env_action_space_info(self, instance_id: str) -> dict[str, Any]:
        return self._ask("GET", _route(instance_id, "action_space/"), None, "info")

    def env_action_space_sample(self, instance_id: str) -> Any:
        return self._ask("GET", _route(instance_id, "action_space/sample"), None, "action")

    def env_action_space_contains(self, instance_id: str, x: Any) -> bool:
        """Whether the action `x` is in the action space."""
        return self._ask("GET", _route(instance_id, f"action_space/contains/{quote(str(x), safe='')}"), None, "member")

    def env_observation_space_info(self, instance_id: str) -> dict[str, Any]:
        return self._ask("GET", _route(instance_id, "observation_space/"), None, "info")

    def env_observation_space_contains(self, instance_id: str, params: dict[str, Any]) -> bool:
        """Whether the observation space has these properties, such as {"name": "Box", "shape": [4]}."""
        return self._ask("POST", _route(instance_id, "observation_space/contains"), params, "member")

    def env_monitor_start(
        self, instance_id: str, directory: str, force: bool = False, resume: bool = False, video_callable: Any = False
    ) -> None:
        """Write statistics, and videos, into a folder of the server. video_callable: False, True, or N for every N-th episode."""
        data = {"directory": directory, "force": force, "resume": resume, "video_callable": video_callable}
        self._ask("POST", _route(instance_id, "monitor/start/"), data)

    def env_monitor_close(self, instance_id: str) -> None:
        self._ask("POST", _route(instance_id, "monitor/close/"), {})

    def env_close(self, instance_id: str) -> None:
        """Free the instance."""
        self._ask("POST", _route(instance_id, "close/"), {})

    def upload(self, training_dir: str, algorithm_id: str | None = None, api_key: str | None = None) -> None:
        """Hand in a folder that a monitor wrote. api_key: by default that of the environment variable OPENAI_GYM_API_KEY."""
        api_key = os.environ.get("OPENAI_GYM_API_KEY") if api_key is None else api_key
        self._ask(
            "POST", "/v1/upload/", {"training_dir": training_dir, "algorithm_id": algorithm_id, "api_key": api_key}
        )

    def shutdown_server(self) -> None:
        self._ask("POST", "/v1/shutdown/", {})

    def close(self) -> None:
        """Close the connection. Instances stay until `env_close`, or until the server finds them idle."""
        self._connection.close()

    def _ask(self, method: str, path: str, data: Any, key: str | None = None) -> Any:
        """The answer's entry `key`. Without a key all of it: the JSON object, or nothing where the body is none."""
        status, body = self._connection.ask(method, path, data)
        if not 200 <= status < 300:
            raise EnvError(self._connection.refusal(status, body))
        if key is not None:
            return self._entry(from_json(body, self._connection.asked), key)
        return from_json(body, self._connection.asked) if body.startswith(b"{") else None

    def _entry(self, answer: Any, key: str) -> Any:
        if not isinstance(answer, dict) or key not in answer:
            raise EnvError(f"{self._connection.asked}: the answer has no {key!r}. {NO_SERVER}")
        return answer[key]


def _route(instance_id: str, end: str) -> str:
    return f"/v1/envs/{quote(str(instance_id), safe='')}/{end}"


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
