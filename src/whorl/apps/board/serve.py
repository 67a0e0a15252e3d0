"""The board's pages over HTTP: exported to a temporary folder, again whenever the board has changed."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whorl.apps.board.page import POLICY, export
from whorl.apps.guard import Guard, Receive, Send, check_bind, own_hosts
from whorl.apps.listen import address, in_thread, listening, needed, server
from whorl.errors import WhorlError

if TYPE_CHECKING:
    from starlette.staticfiles import StaticFiles
    from uvicorn import Server

LOOK = 1.0  # seconds between two looks at the board
HEADERS = {"content-security-policy": f"{POLICY}; frame-ancestors 'none'", "cache-control": "no-cache"}


def serve(
    board: str | Path,
    host: str = "127.0.0.1",
    port: int = 5001,
    token: str | None = None,
    ready: Callable[[str], None] = lambda url: print(f"Leaderboard: {url}", flush=True),
) -> None:
    """Serves the pages of a board until Ctrl-C. ready: called with the address once it listens.

    Raises BadInput for an address that other machines reach without a token (a browser asks for it: any user name, the token as the
    password), a port in use, a folder that is no board, and without the extra `server`.
    """
    with _prepared(board, host, port, token) as (prepared, sockets, url):
        ready(url)
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn has stopped by then, and raises it again
            prepared.run(sockets)


@contextlib.contextmanager
def running(board: str | Path, host: str = "127.0.0.1", port: int = 0, token: str | None = None) -> Iterator[str]:
    """The same in a thread, on a free port unless one is given; gives the address."""
    with _prepared(board, host, port, token) as (prepared, sockets, url), in_thread(prepared, sockets, f"board {url}"):
        yield url


@contextlib.contextmanager
def _prepared(
    board: str | Path, host: str, port: int, token: str | None
) -> Iterator[tuple[Server, list[socket.socket], str]]:
    """A uvicorn server that has not started, its listening sockets and its address."""
    check_bind(host, token)
    _, starlette, routing = needed("uvicorn", "starlette.applications", "starlette.routing")
    with contextlib.closing(Live(board)) as live, contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(contextlib.closing(each)) for each in listening(host, port)]
        port = sockets[0].getsockname()[1]
        app = starlette.Starlette(routes=[routing.Mount("/", live)])
        guarded = Guard(app, token, own_hosts(host, port), headers=HEADERS)
        yield server(guarded, lifespan="off"), sockets, address(host, port)


class Live:
    """ASGI application: the files of the newest export, and nothing else. Raises BadInput for a folder that is no board."""

    def __init__(self, board: str | Path):
        self._board = Path(board)
        self._root = Path(tempfile.mkdtemp(prefix="whorl-board-"))
        self._exporting, self._looked, self._number = threading.Lock(), 0.0, 0
        try:
            self._files = self._exported()
        except BaseException:
            self.close()
            raise

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        from starlette.concurrency import run_in_threadpool

        files = await run_in_threadpool(self._newest)
        await files(scope, receive, send)

    def close(self) -> None:
        shutil.rmtree(self._root, ignore_errors=True)

    def _newest(self) -> StaticFiles:
        """The newest export. Who finds the board changed exports it; the others are served the last one meanwhile, and everybody
        is where that fails, until the board changes again."""
        if time.monotonic() - self._looked > LOOK and self._exporting.acquire(blocking=False):
            try:
                if self._state() != self._seen:
                    self._files = self._exported()
            except (WhorlError, OSError) as error:
                print(f"whorl: the pages are those of the board before: {error}", file=sys.stderr, flush=True)
            finally:
                self._looked = time.monotonic()
                self._exporting.release()
        return self._files

    def _exported(self) -> StaticFiles:
        from starlette.staticfiles import StaticFiles

        self._seen = self._state()  # before the export: what changes meanwhile is seen by the next look
        out = export(self._board, self._root / str(self._number))
        if self._number > 1:  # the last one stays, for requests that are under way
            shutil.rmtree(self._root / str(self._number - 2), ignore_errors=True)
        self._number += 1
        return StaticFiles(directory=out, html=True)

    def _state(self) -> list[tuple[str, int, int]]:
        """Name, size and time of every file of the board; another list whenever an entry came, went or was changed."""
        inside = self._board / "entries"
        with contextlib.suppress(OSError):  # an entry can go while it is looked at
            return sorted(
                (file.path, status.st_size, status.st_mtime_ns)
                for entry in os.scandir(inside)
                for file in (os.scandir(entry) if entry.is_dir(follow_symlinks=False) else [entry])
                for status in [file.stat(follow_symlinks=False)]
            )
        return []
