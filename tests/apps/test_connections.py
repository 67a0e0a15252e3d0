"""Clients that hold their connections: real sockets against real servers, which go on answering everybody else."""

from __future__ import annotations

import contextlib
import http.client
import socket

import pytest

pytest.importorskip("uvicorn", reason="needs the extra server: pip install 'whorl[server]'")

from whorl.apps.board.serve import running as board
from whorl.apps.guard import Guard, own_hosts
from whorl.apps.gym_server.serve import running as gym_server
from whorl.apps.listen import in_thread, listening, server

LARGE = b"x" * (64 << 20)  # more than the sockets between a server and a client hold


async def application(scope, receive, send):
    body = LARGE if scope["path"] == "/large" else b"here"
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@contextlib.contextmanager
def serving(patience: float = 60.0, **options):
    """The port of a server."""
    sockets = listening("127.0.0.1", 0)
    port = sockets[0].getsockname()[1]
    guarded = Guard(application, None, own_hosts("127.0.0.1", port), patience=patience)
    with in_thread(server(guarded, lifespan="off", **options), sockets, "test"):
        yield port


def opened(stack: contextlib.ExitStack, port: int, sent: bytes = b"") -> socket.socket:
    client = stack.enter_context(contextlib.closing(socket.create_connection(("127.0.0.1", port))))
    client.sendall(sent)
    return client


def answered(client: socket.socket) -> bool:
    """Waits for the whole answer of the application."""
    answer = b""
    while not answer.endswith(b"\r\n\r\nhere"):
        part = client.recv(65536)
        if not part:
            return False
        answer += part
    return True


def gone(client: socket.socket) -> bool:
    """Waits until the server has ended the connection without an answer."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def asked(port: int, path: str = "/") -> int:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status


def test_a_head_that_does_not_come():
    with serving(head=0.2) as port, contextlib.ExitStack() as stack:
        host = f"Host: 127.0.0.1:{port}\r\n\r\n".encode()
        silent, begun = opened(stack, port), opened(stack, port, b"GET / HTTP/1.1\r\nHost")
        kept = opened(stack, port, b"GET / HTTP/1.1\r\n" + host)
        assert answered(kept)
        kept.sendall(b"GET /")  # and on the same connection no more of the next
        assert gone(silent) and gone(begun) and gone(kept)
        refused = opened(stack, port, b"POST / HTTP/1.1\r\nContent-Length: 9\r\nHost: elsewhere\r\n\r\n")
        assert refused.recv(65536).startswith(b"HTTP/1.1 403")
        with contextlib.suppress(OSError):  # the rest of a body that nobody reads, for ever
            while True:
                refused.sendall(b" ")
        assert asked(port) == 200


def test_a_body_that_does_not_come():
    with serving(patience=0.2) as port, contextlib.ExitStack() as stack:
        head = f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode()
        for body in (b"Content-Length: 9\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"):
            client = opened(stack, port, head + body)
            answer = b"".join(iter(lambda client=client: client.recv(65536), b""))  # to the end of the connection
            assert answer.startswith(b"HTTP/1.1 408") and b"did not come within 0.2 seconds" in answer
        large = opened(stack, port, head + b"Content-Length: 99999999\r\n\r\nhalf")
        assert b"".join(iter(lambda: large.recv(65536), b"")).startswith(b"HTTP/1.1 413")
        assert asked(port) == 200


def test_an_answer_that_nobody_reads(monkeypatch):
    monkeypatch.setattr("whorl.apps.connections.STALLED", 0.2)
    with serving() as port, contextlib.ExitStack() as stack:
        client = opened(stack, port, f"GET /large HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        with pytest.raises(ConnectionResetError):
            while True:  # a write to a connection that is still there
                client.send(b" ")
        assert asked(port) == 200


def test_who_asks_nothing_makes_room():
    with serving(most=20) as port, contextlib.ExitStack() as stack:
        kept = opened(stack, port, f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        assert answered(kept)
        half_open = [opened(stack, port, b"GET") for _ in range(100)]
        assert [asked(port) for _ in range(3)] == [200] * 3
        assert gone(kept) and all(map(gone, half_open[:80]))  # those that had waited longest
        client = opened(stack, port, f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        assert answered(client)


@pytest.mark.parametrize("running", [gym_server, board])
def test_both_servers_answer_among_hundreds_of_half_open_connections(running, tmp_path):
    (tmp_path / "entries").mkdir()
    given = {"root": tmp_path} if running is gym_server else {"board": tmp_path}
    with running(**given) as url, contextlib.ExitStack() as stack:
        port = int(url.rpartition(":")[2])
        for _ in range(600):
            opened(stack, port, b"G")
        assert asked(port, "/v1/envs/" if running is gym_server else "/") == 200
