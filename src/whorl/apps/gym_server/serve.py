"""Binding and running the server: `serve` blocks, `running` is a server in a thread."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whorl.apps.guard import Guard, check_bind, loopback, own_hosts
from whorl.apps.gym_server.settings import Settings
from whorl.apps.listen import address, in_thread, listening, needed, server
from whorl.errors import BadInput

if TYPE_CHECKING:
    from uvicorn import Server

KEEP_ALIVE = 120  # seconds that a connection may rest between two requests: clients compute in between


def serve(ready: Callable[[str], None] | None = None, **settings: Any) -> None:
    """Serve environments over HTTP until Ctrl-C, or a shutdown by a client where that is allowed. See `Settings`.

    ready: called with the server's address once it listens.
    Raises BadInput for an address that other machines reach without a token, a port in use, numbers that mean nothing, and
    without the extra `server`.
    """
    prepared, sockets, url = _prepared(Settings(**settings))
    print(f"Server starting at: {url}", flush=True)
    if ready:
        ready(url)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn has stopped by then, and raises it again
        prepared.run(sockets)


@contextlib.contextmanager
def running(ready: Callable[[str], None] | None = None, **settings: Any) -> Iterator[str]:
    """The same in a thread, on a free port unless one is given; gives the address. At the end every environment is closed."""
    prepared, sockets, url = _prepared(Settings(**{"port": 0, **settings}))
    with in_thread(prepared, sockets, f"gym server {url}"):
        if ready:
            ready(url)
        yield url


def _prepared(settings: Settings) -> tuple[Server, list[socket.socket], str]:
    """A uvicorn server that has not started, its listening sockets, its address."""
    check_bind(settings.host, settings.token)
    for name in settings.allow_hosts:
        if settings.token is None and not loopback(re.sub(r":\d*$", "", name).strip("[]")):
            raise BadInput(
                f"answering to the name {name!r} lets other machines in, through a tunnel or a proxy, and no token was given: "
                "give one (--token)"
            )
    for name in ("max_envs", "idle", "patience"):
        if not getattr(settings, name) > 0:
            raise BadInput(f"{name} must be above 0, got {getattr(settings, name)}")
    _, app = needed("uvicorn", "whorl.apps.gym_server.app")
    root = _own_folder() if settings.root is None else settings.root.resolve()
    sockets = listening(settings.host, settings.port)
    port = sockets[0].getsockname()[1]

    def stop() -> None:
        prepared.should_exit = True

    hosts = [*own_hosts(settings.host, port), *settings.allow_hosts]
    guarded = Guard(app.application(settings, root, stop), settings.token, hosts)
    prepared = server(guarded, lifespan="on", timeout_keep_alive=KEEP_ALIVE)
    return prepared, sockets, address(settings.host, port)


def _own_folder() -> Path:
    """A folder in the system's temporary one that is this user's and nobody else's."""
    folder = Path(tempfile.gettempdir()) / f"whorl-gym-{getattr(os, 'getuid', getpass.getuser)()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if folder.is_symlink() or not folder.is_dir() or (hasattr(os, "getuid") and status.st_uid != os.getuid()):
        raise BadInput(f"{folder} is not a folder of yours: say where monitors may write (--root)")
    return folder
