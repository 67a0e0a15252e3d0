"""The live board: a real uvicorn, asked by raw HTTP."""

from __future__ import annotations

import base64
import http.client
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from benchmarks.board import fill, invented
from whorl.apps.board import entry, serve
from whorl.apps.board.page import POLICY
from whorl.apps.board.serve import running
from whorl.errors import BadInput

pytest.importorskip("starlette", reason='needs the extra server: pip install "whorl[server]"')
pytest.importorskip("uvicorn", reason='needs the extra server: pip install "whorl[server]"')


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    root = tmp_path_factory.mktemp("serve") / "board"
    return fill(root, ["CartPole-v1"], 2, 2, 5)


@pytest.fixture(scope="module")
def url(board):
    with running(board) as url:
        yield url


def ask(url: str, path: str = "/", method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


def raw(url: str, path: bytes) -> bytes:
    """The answer to a request line that no client would send."""
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=60) as connection:
        connection.sendall(
            b"GET " + path + b" HTTP/1.1\r\nHost: " + place.netloc.encode() + b"\r\nConnection: close\r\n\r\n"
        )
        return b"".join(iter(lambda: connection.recv(65536), b""))


def add(board: Path, note: str) -> entry.Entry:
    claim, curve = invented(np.random.default_rng(7), "CartPole-v1", 0, 9, 5)
    return entry.write(board, claim | {"note": note, "gif_returns": None}, curve, b"policy", {})


def test_every_page_of_the_export_is_served(board, url):
    made = entry.entries(board)[0][0]
    types = {
        "/": "text/html; charset=utf-8",
        "/index.html": "text/html; charset=utf-8",
        "/env/CartPole-v1.html": "text/html; charset=utf-8",
        f"/run/{made.id}.html": "text/html; charset=utf-8",
        f"/media/{made.id}/best.gif": "image/gif",
        "/static/board.css": "text/css; charset=utf-8",
        "/static/whorl.svg": "image/svg+xml",
    }
    for path, kind in types.items():
        status, headers, body = ask(url, path)
        assert (status, headers["content-type"]) == (200, kind) and body, path
    assert ask(url, "/static/board.js")[1]["content-type"].split(";")[0].endswith("javascript")
    assert ask(url, f"/media/{made.id}/best.gif")[2] == (made.path / "best.gif").read_bytes()


def test_every_answer_carries_the_policy(url):
    for path, status in (("/", 200), ("/static/board.js", 200), ("/nothing", 404)):
        answer = ask(url, path)
        assert answer[0] == status
        assert answer[1]["content-security-policy"] == f"{POLICY}; frame-ancestors 'none'"
        assert answer[1]["x-content-type-options"] == "nosniff" and answer[1]["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer[1] and "server" not in answer[1]


def test_it_can_only_be_read(url):
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert ask(url, "/", method)[0] == 405
    status, headers, body = ask(url, "/", "HEAD")
    assert status == 200 and not body and int(headers["content-length"]) > 0


def test_what_has_not_changed_is_not_sent_again(url):
    _, headers, _ = ask(url)
    assert ask(url, If_None_Match=headers["etag"])[0] == 304


def test_nothing_outside_the_export_is_served(board, url):
    made = entry.entries(board)[0][0]
    secrets = [b"root:", b'"policy_sha256"', b"def export"]
    steps = [b"..", b"%2e%2e", b"%2E.", b"%252e%252e", b"..%2f", b"..%5c", b"%c0%ae%c0%ae", b"..;", b"\\..", b"....//"]
    ends = [
        b"etc/passwd",
        b"proc/self/environ",
        str(board).encode().lstrip(b"/") + b"/entries/" + made.id.encode() + b"/entry.json",
    ]
    for step in steps:
        for depth in (1, 2, 6, 12):
            for begin in (b"/", b"/env/", b"/static/", b"//"):
                for end in ends:
                    answer = raw(url, begin + b"/".join([step] * depth) + b"/" + end)
                    assert not answer.startswith(b"HTTP/1.1 200") and not any(secret in answer for secret in secrets), (
                        step,
                        end,
                    )
    for path in (
        b"/" + b"/".join(ends[2:]),
        b"/entries/",
        b"/.whorl-board/x",
        b"/%00",
        b"/index.html%00.gif",
        b"//etc/passwd",
        b"/~root/",
        b"/" + b"a" * 5000,
    ):
        answer = raw(url, path)
        assert answer.startswith((b"HTTP/1.1 40", b"HTTP/1.1 30")) and not any(
            secret in answer for secret in secrets
        ), path
    assert ask(url)[0] == 200  # and it still lives


def test_foreign_pages_are_refused(url):
    port = urlsplit(url).port
    assert ask(url, Host="evil.example")[0] == 403
    assert ask(url, Host=f"evil.example:{port}")[0] == 403
    assert ask(url, Origin="http://evil.example")[0] == 403
    assert ask(url, Sec_Fetch_Site="cross-site")[0] == 403
    assert ask(url, Host=f"localhost:{port}", Sec_Fetch_Site="none")[0] == 200


def test_a_token_is_asked_for(board):
    with running(board, token="s3cret") as url:
        status, headers, body = ask(url)
        assert status == 401 and headers["www-authenticate"].startswith("Basic") and b"CartPole" not in body
        for word, expected in (("s3cret", 200), ("wrong", 401), ("", 401)):
            basic = base64.b64encode(f"anybody:{word}".encode()).decode()
            assert ask(url, Authorization=f"Basic {basic}")[0] == expected


def test_what_is_unsafe_or_impossible_is_refused(board, url, tmp_path):
    for host in ("0.0.0.0", "::", "192.0.2.1", "some.example"):
        with pytest.raises(BadInput, match="lets other machines in, and no token was given"), running(board, host):
            pass
    with (
        pytest.raises(BadInput, match=f"cannot listen on 127.0.0.1, port {urlsplit(url).port}"),
        running(board, port=urlsplit(url).port),
    ):
        pass
    with pytest.raises(BadInput, match="is not a board: there is no folder"), running(tmp_path):
        pass


def test_without_the_extra_it_says_which(board, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with (
        pytest.raises(BadInput, match=r'serving needs uvicorn, which is missing: pip install "whorl\[server\]"'),
        running(board),
    ):
        pass


def test_a_changed_board_is_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(serve, "LOOK", 0.0)
    fill(tmp_path / "board", ["CartPole-v1"], 1, 1, 5, gifs=False)
    with running(tmp_path / "board") as url:
        assert b"1 run of 1 setting in 1 environment." in ask(url)[2]
        made = add(tmp_path / "board", "the note of the newcomer")
        assert b"2 runs of 1 setting in 1 environment." in ask(url)[2]
        assert b"the note of the newcomer" in ask(url, f"/run/{made.id}.html")[2]
        shutil.rmtree(made.path)
        assert b"1 run of 1 setting in 1 environment." in ask(url)[2]
        assert ask(url, f"/run/{made.id}.html")[0] == 404
        (tmp_path / "board" / "entries" / "stray").write_text("x")
        assert b"entries/stray is not an entry" in ask(url)[2]


def test_an_unchanged_board_is_exported_once(tmp_path, monkeypatch):
    monkeypatch.setattr(serve, "LOOK", 0.0)
    fill(tmp_path / "board", ["CartPole-v1"], 1, 1, 5, gifs=False)
    exports = []
    monkeypatch.setattr(
        serve, "export", lambda board, out, real=serve.export: (exports.append(out), real(board, out))[1]
    )
    with running(tmp_path / "board") as url:
        for _ in range(5):
            ask(url)
        assert len(exports) == 1
        add(tmp_path / "board", "more")
        for _ in range(5):
            ask(url)
        assert len(exports) == 2


def test_readers_never_see_a_board_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(serve, "LOOK", 0.0)
    fill(tmp_path / "board", ["CartPole-v1"], 1, 2, 5, gifs=False)
    wrong, stop = [], threading.Event()

    def read(url: str) -> None:
        while not stop.is_set():
            for path in ("/", "/env/CartPole-v1.html", "/static/board.css"):
                status, headers, body = ask(url, path)
                if status != 200 or len(body) != int(headers["content-length"]):
                    wrong.append((path, status, len(body)))

    with running(tmp_path / "board") as url:
        readers = [threading.Thread(target=read, args=(url,)) for _ in range(4)]
        for reader in readers:
            reader.start()
        for number in range(6):
            add(tmp_path / "board", f"number {number}")
            ask(url)
        stop.set()
        for reader in readers:
            reader.join()
        assert wrong == [] and b"8 runs of 1 setting" in ask(url)[2]


def test_a_board_that_vanishes_leaves_the_last_pages(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(serve, "LOOK", 0.0)
    fill(tmp_path / "board", ["CartPole-v1"], 1, 1, 5, gifs=False)
    with running(tmp_path / "board") as url:
        os.rename(tmp_path / "board", tmp_path / "away")
        assert ask(url)[0] == ask(url)[0] == 200
        assert capsys.readouterr().err.count("the pages are those of the board before: ") == 1
        os.rename(tmp_path / "away", tmp_path / "board")
        add(tmp_path / "board", "more")
        assert b"2 runs of 1 setting" in ask(url)[2]


def test_nothing_is_left_behind(board, tmp_path, monkeypatch):
    monkeypatch.setattr(serve.tempfile, "tempdir", str(tmp_path))
    with running(board):
        assert len(os.listdir(tmp_path)) == 1
    assert os.listdir(tmp_path) == []


def test_serve_says_where_and_ends_with_ctrl_c(board, tmp_path):
    code = "import sys; from whorl.apps.board.serve import serve; serve(sys.argv[1], port=0)"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(board)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        assert line.startswith("Leaderboard: http://127.0.0.1:"), process.stderr.read()
        assert ask(line.split()[1])[0] == 200
        process.send_signal(2)
        out, error = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, error) == (0, "") and os.listdir(tmp_path) == []
