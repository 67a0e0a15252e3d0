"""What a client of a server may take: seconds for the head of a request, seconds without reading its answer, and one of so many
connections. uvicorn itself waits for ever for all three."""

from __future__ import annotations

import asyncio
import resource
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD = 20.0  # seconds from the first byte that is due, or the first that came, until the head of a request is there
STALLED = 60.0  # seconds in which nothing of an answer was read
MOST = 512  # connections; fewer where the system allows this process few files


def most() -> int:
    """A quarter of the files that this process may have open: environments and monitors need some, too."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MOST, files // 4) if files > 0 else MOST


class Connection(H11Protocol):
    """One client's connection. Where there are too many, the one that has waited longest without asking for anything makes room: who
    opens hundreds and asks nothing locks nobody out."""

    def __init__(self, *args: Any, head: float = HEAD, most: int = MOST, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience, self._most = head, most
        self._head: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None
        self.idle_since = self.loop.time()

    @property
    def asking(self) -> bool:
        """Whether a request is under way, its answer included."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._expect_head()
        open_ones = cast("list[Connection]", [each for each in self.connections if not each.transport.is_closing()])
        if len(open_ones) > self._most:
            waiting = [each for each in open_ones if not each.asking]
            min(waiting, key=lambda each: each.idle_since).transport.abort()  # this one, where all others ask

    def data_received(self, data: bytes) -> None:
        if self._head is None and not self.asking:
            self._expect_head()
        super().data_received(data)
        if self.asking:
            self._head = _off(self._head)

    def on_response_complete(self) -> None:
        self.idle_since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading = self.loop.call_later(STALLED, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reading = _off(self._reading)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head, self._reading = _off(self._head), _off(self._reading)
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._head = self.loop.call_later(self._patience, self.transport.abort)


def _off(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    if timer is not None:
        timer.cancel()
    return None
