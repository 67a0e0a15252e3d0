"""What the handlers of all routes share, and what they read from a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from whorl.apps.guard import loopback
from whorl.apps.gym_server.instances import Instances
from whorl.apps.gym_server.settings import Settings
from whorl.apps.gym_server.wire import INVALID, parsed
from whorl.errors import BadInput


@dataclass(frozen=True)
class Service:
    """`request.app.state.service`."""

    settings: Settings
    root: Path  # the folder that monitors write in and uploads are read from
    instances: Instances
    stop: Callable[[], None]  # the whole server


def service(request: Request) -> Service:
    return request.app.state.service


def client(request: Request) -> str | None:
    """The process that asks, as whorl's client says it."""
    return request.headers.get("x-whorl-client")


async def fields(request: Request) -> dict[str, Any]:
    """The body as an object; `[]` and `""`, which some languages write for an empty one, count as such.

    Raises BadInput for anything else, and HTTPException 415 where the server is not on loopback and the body is not
    announced as JSON: pages may send anything else across origins.
    """
    kind = request.headers.get("content-type", "")
    if not loopback(service(request).settings.host) and "json" not in kind.lower():
        raise HTTPException(415, f"expected Content-Type: application/json, got {kind[:100]!r}")
    body = parsed(await request.body())
    if body == "" or body == []:
        return {}
    if not isinstance(body, dict):
        raise BadInput(INVALID)
    return body
