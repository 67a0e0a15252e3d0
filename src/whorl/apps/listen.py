"""What the gym server and the live board share of being a server: sockets that listen, an address, a thread."""

from __future__ import annotations

import contextlib
import importlib
import socket
import threading
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from whorl.errors import BadInput

if TYPE_CHECKING:
    from uvicorn import Server


def listening(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen already; port 0 takes a free one. On loopback both families, since "localhost" means ::1 to some clients.

    Raises BadInput when the address cannot be had.
    """
    try:
        first = _listener(host, port)
    except (OSError, OverflowError) as error:
        raise BadInput(
            f"cannot listen on {host}, port {port} ({error}): is another server there? Port 0 takes a free one"
        ) from error
    sockets = [first]
    if host in ("127.0.0.1", "localhost"):
        with contextlib.suppress(OSError):  # no IPv6 here, or the port is taken there
            sockets.append(_listener("::1", first.getsockname()[1]))
    return sockets


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only where the protocol is named; without it every small answer waits 40 ms
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except BaseException:
        listener.close()
        raise
    return listener


def address(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


@contextlib.contextmanager
def in_thread(server: Server, sockets: list[socket.socket], name: str) -> Iterator[None]:
    """A uvicorn server that runs for as long as the block. The sockets listen already: who connects now is served in a moment."""
    thread = threading.Thread(target=server.run, args=(sockets,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def needed(*modules: str) -> list[Any]:
    """Modules that need the extra `server`. Raises BadInput without it."""
    try:
        return [importlib.import_module(module) for module in modules]
    except ModuleNotFoundError as error:
        if error.name not in ("uvicorn", "starlette"):
            raise
        raise BadInput(f'serving needs {error.name}, which is missing: pip install "whorl[server]"') from error


def server(app: Any, head: float | None = None, most: int | None = None, **options: Any) -> Server:
    """A quiet uvicorn server that has not started. head: seconds until the head of a request must be there; most: connections at a
    time (see `connections`)."""
    uvicorn, connections = needed("uvicorn", "whorl.apps.connections")
    most, head = most or connections.most(), head or connections.HEAD
    config = uvicorn.Config(
        app, http=partial(connections.Connection, head=head, most=most), backlog=max(most, 128), log_level="warning", log_config=None,
        access_log=False, server_header=False, ws="none", timeout_graceful_shutdown=5, **options,
    )  # fmt: skip
    return uvicorn.Server(config)
