"""The door of both servers: who may ask, from where, how much. Pure ASGI, in front of the application.

A server on loopback is not private: every web page that the user opens can send requests to it. So a request must name this
server in its Host header (a page that rebinds its own name to 127.0.0.1 cannot), must not come from a foreign page (Origin,
Sec-Fetch-Site), and must carry the token where there is one. Cross-origin access is never granted.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any

from whorl.errors import BadInput

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
Fields = dict[bytes, list[bytes]]  # header, lower case -> its values
Refusal = tuple[int, str] | None  # status and message

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
PATIENCE = 60.0  # seconds until the body of a request must be there
DRAIN = 16 << 20  # bytes of a refused body that are read away, so that its sender sees the answer and not a broken pipe
HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


def check_bind(host: str, token: str | None) -> None:
    """Raises BadInput for an address that other machines reach, unless there is a token; and for an empty token.

    Loopback is 127.0.0.0/8, ::1 and localhost. Any other name counts as reachable: it is not looked up.
    """
    if token is None and not loopback(host):
        raise BadInput(
            f"serving on {host!r} lets other machines in, and no token was given: give one (--token), "
            "or serve on 127.0.0.1"
        )
    _check_token(token)


def own_hosts(host: str, port: int) -> list[str]:
    """The values of a Host header that mean the server bound to `host` and `port`.

    Loopback has three names. An address that means all interfaces is also this machine's name; the address of the
    interface that a connection came in at needs no entry (see `Guard`).
    """
    if host in ("", "0.0.0.0", "::"):
        names = [*LOOPBACK, socket.gethostname()]
    else:
        own = f"[{host}]" if ":" in host else host
        names = [own, *LOOPBACK] if loopback(host) else [own]
    names = list(dict.fromkeys(name.lower() for name in names))
    return [f"{name}:{port}" for name in names] + (names if port == 80 else [])  # clients leave port 80 out


class Guard:
    """ASGI middleware. Refuses, in this order and as JSON {"message": ...}:

    403  a Host header that is neither in `hosts` (`host[:port]`, any case) nor the address the connection came in at
         (a name can be rebound, an address cannot)
    403  an Origin that is not http(s):// and one of those hosts; a Sec-Fetch-Site other than same-origin and none
    401  a missing or wrong token, where there is one: HTTP Basic with the token as password (any user name), or Bearer
    400  a Content-Length that is no number; 413 a body of more than `max_body` bytes, announced or in chunks
    408  a body that is not there after `patience` seconds

    The application gets the body whole, in one message. Every answer carries HEADERS; `headers` replaces and adds, and what the
    application itself sets stays, except Access-Control-*, which nobody sets. WebSockets are refused.
    Raises BadInput for an empty token.
    """

    def __init__(
        self,
        app: App,
        token: str | None,
        hosts: Sequence[str],
        max_body: int = 1 << 20,
        headers: Mapping[str, str] | None = None,
        patience: float = PATIENCE,
    ) -> None:
        _check_token(token)
        self.app = app
        self._token = None if token is None else token.encode()
        self._hosts = frozenset(host.lower() for host in hosts)
        self._max_body, self._patience = max_body, patience
        merged = HEADERS | {name.lower(): value for name, value in (headers or {}).items()}
        self._headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in merged.items()]

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        send, fields = self._with_headers(send), _fields(scope["headers"])
        refused = (
            _foreign(fields, self._hosts | _arrived_at(scope)) or self._without_token(fields) or self._oversize(fields)
        )
        if refused:
            if refused[0] == 413 and b"expect" not in fields:  # who waits for "100 Continue" has sent nothing yet
                with contextlib.suppress(TimeoutError):
                    await self._read(receive)
            return await _answer(send, *refused)
        if b"content-length" in fields or b"transfer-encoding" in fields:
            try:
                body, size = await self._read(receive)
            except TimeoutError:
                return await _answer(
                    send, 408, f"the body of the request did not come within {self._patience:g} seconds"
                )
            if body is None:
                return None  # the client went away
            if size > self._max_body:
                return await _answer(send, *self._too_large())
            receive = _replay(body, receive)
        return await self.app(scope, receive, send)

    async def _read(self, receive: Receive) -> tuple[bytes | None, int]:
        async with asyncio.timeout(self._patience):
            return await _read(receive, self._max_body)

    def _without_token(self, fields: Fields) -> Refusal:
        given = fields.get(b"authorization", [])
        if self._token is None or (len(given) == 1 and hmac.compare_digest(_secret(given[0]), self._token)):
            return None
        return 401, "this server needs its token: HTTP Basic with the token as password, or Authorization: Bearer TOKEN"

    def _oversize(self, fields: Fields) -> Refusal:
        length = fields.get(b"content-length", [b"0"])
        if len(length) != 1 or not length[0].isdigit() or len(length[0]) > 18:
            return 400, "Content-Length must be one number, the bytes of the body"
        return self._too_large() if int(length[0]) > self._max_body else None

    def _too_large(self) -> tuple[int, str]:
        return 413, f"the body is too large: at most {self._max_body} bytes are taken"

    def _with_headers(self, send: Send) -> Send:
        async def wrapped(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                present = {name.lower() for name, _ in given}
                given += [(name, value) for name, value in self._headers if name not in present]
                closed = [each for each in given if not each[0].lower().startswith(b"access-control-")]
                message = {**message, "headers": closed}
            await send(message)

        return wrapped


# ------------------------------------------------------------------------------------------------- who asks


def _check_token(token: str | None) -> None:
    if token is not None and not token.strip():
        raise BadInput("the token is empty, so anybody would have it: give a long one, or none at all on 127.0.0.1")


def loopback(host: str) -> bool:
    """Whether only this machine reaches `host`. A name other than localhost is not looked up: it counts as reachable."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _foreign(fields: Fields, hosts: frozenset[str]) -> Refusal:
    """403 unless the request was meant for one of `hosts` and no foreign page sent it."""
    host, origin, site = (_texts(fields, name) for name in (b"host", b"origin", b"sec-fetch-site"))
    if len(host) != 1 or host[0] not in hosts:
        return 403, f"foreign Host {_shown(host)}: this server answers to {_shown(sorted(hosts))}"
    if origin and not {f"{scheme}://{each}" for scheme in ("http", "https") for each in hosts}.issuperset(origin):
        return 403, f"foreign Origin {_shown(origin)}: pages of other servers may not use this one"
    if not {"same-origin", "none"}.issuperset(site):
        return 403, f"foreign Sec-Fetch-Site {_shown(site)}: pages of other servers may not use this one"
    return None


def _arrived_at(scope: MutableMapping[str, Any]) -> frozenset[str]:
    """The Host values that mean the local address of this connection."""
    host, port = scope.get("server") or ("", None)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return frozenset()
    name = f"[{address}]" if address.version == 6 else str(address)
    return frozenset((f"{name}:{port}", name) if port == 80 else (f"{name}:{port}",))


def _secret(authorization: bytes) -> bytes:
    """The password of HTTP Basic, or what follows Bearer; empty for anything else."""
    scheme, _, rest = authorization.strip().partition(b" ")
    if scheme.lower() == b"bearer":
        return rest.strip()
    if scheme.lower() != b"basic":
        return b""
    try:
        return base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


# ------------------------------------------------------------------------------------------------- headers, bodies, answers


def _fields(headers: Iterable[tuple[bytes, bytes]]) -> Fields:
    fields: Fields = {}
    for name, value in headers:
        fields.setdefault(name.lower(), []).append(value.strip())
    return fields


def _texts(fields: Fields, name: bytes) -> list[str]:
    return [value.decode("latin-1").lower() for value in fields.get(name, [])]


async def _read(receive: Receive, limit: int) -> tuple[bytes | None, int]:
    """The body and its size, of which not more than `limit` bytes are kept and DRAIN more are read; None if the client went away."""
    body, size, more = bytearray(), 0, True
    while more and size <= limit + DRAIN:
        message = await receive()
        if message["type"] != "http.request":
            return None, size
        part, more = message.get("body", b""), message.get("more_body", False)
        size += len(part)
        if size <= limit:
            body += part
    return bytes(body), size


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body in one message, then what the connection says."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def _shown(values: Iterable[str]) -> str:
    """For a message: the values, cut where that gets long."""
    text = ", ".join(map(ascii, values)) or "(none)"
    return text if len(text) <= 200 else text[:200] + "..."


async def _answer(send: Send, status: int, message: str) -> None:
    body = json.dumps({"message": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="whorl", charset="UTF-8"'))
    if status in (408, 413):
        headers.append((b"connection", b"close"))  # what is left of the body is not wanted
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
