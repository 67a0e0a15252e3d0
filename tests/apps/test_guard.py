"""The door of the servers: who is refused, with which status and message, and that nothing refused reaches the application."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import socket
import threading

import pytest

pytest.importorskip("uvicorn", reason="needs the extra server: pip install 'whorl[server]'")

import uvicorn

from tests.cases import each
from whorl.apps.guard import DRAIN, Guard, check_bind, own_hosts
from whorl.errors import BadInput

TOKEN = "correct horse: battery 鍵"
MAX_BODY = 1000


class Echo:
    """An application that remembers what reached it, answers with the body's size, and tries to open itself to foreign pages."""

    def __init__(self):
        self.seen = []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            return await send({"type": "lifespan.shutdown.complete"})
        messages = [await receive()]
        while messages[-1]["more_body"]:
            messages.append(await receive())
        self.seen.append((scope["method"], scope["path"], [len(m["body"]) for m in messages]))
        headers = [(b"content-type", b"text/plain"), (b"Access-Control-Allow-Origin", b"*")]
        headers += [(b"referrer-policy", b"origin")] if scope["path"] == "/own" else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": str(sum(len(m["body"]) for m in messages)).encode()})


@contextlib.contextmanager
def serving(host="127.0.0.1", **options):
    """(port, application) of a real server behind a Guard."""
    app = Echo()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.bind((host, 0))
        port = listener.getsockname()[1]
        options = {"token": None, "hosts": own_hosts(host, port), "max_body": MAX_BODY} | options
        server = uvicorn.Server(uvicorn.Config(Guard(app, **options), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "the server did not start"
                threading.Event().wait(0.01)
            yield port, app
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def open_server():
    with serving() as parts:
        yield parts


@pytest.fixture(scope="module")
def token_server():
    with serving(token=TOKEN) as parts:
        yield parts


def ask(port, headers=(), method="GET", path="/v1/envs/", body=None, host="127.0.0.1"):
    """(status, headers, body); `headers` are pairs and replace the Host header if they name one, or twice if they do twice."""
    connection = http.client.HTTPConnection(host, port)
    with contextlib.closing(connection):
        named = [name.lower() for name, _ in headers]
        connection.putrequest(method, path, skip_host="host" in named, skip_accept_encoding=True)
        if body is not None and "content-length" not in named:
            connection.putheader("Content-Length", str(len(body)))
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def raw(port, data, host="127.0.0.1"):
    """The first line and the body of the answer to these bytes."""
    with socket.create_connection((host, port), timeout=60) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0].decode(), body


def refused(app, port, status, words, headers=(), **request):
    before = len(app.seen)
    got, fields, body = ask(port, headers, **request)
    assert got == status, body
    assert fields["content-type"] == "application/json"
    answer = json.loads(body)
    assert list(answer) == ["message"] and words in answer["message"]
    assert len(app.seen) == before, "a refused request reached the application"
    return fields


def basic(password, user="u"):
    return [("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())]


# ------------------------------------------------------------------------------------------------- where it may listen


def test_loopback_needs_no_token():
    for host in each(["127.0.0.1", "127.8.9.10", "::1", "localhost", "LOCALHOST"]):
        check_bind(host, None)
        check_bind(host, "secret")


def test_any_other_address_needs_a_token():
    for host in each(
        [
            "0.0.0.0",
            "::",
            "",
            "192.168.1.5",
            "fe80::1",
            "2130706433",
            "127.1",
            "localhost.example.org",
            "my-machine",
            "0",
        ]
        + ["127.0.0.1.nip.io", "localhost.", "[::1]", "127.0.0.1:80", "::ffff:10.0.0.1"]
    ):
        with pytest.raises(
            BadInput, match="lets other machines in, and no token was given: give one .--token., or serve"
        ):
            check_bind(host, None)
        check_bind(host, "secret")


def test_an_empty_token_is_none():
    for token in each(["", " ", "\n"]):
        for host in ("127.0.0.1", "0.0.0.0"):
            with pytest.raises(BadInput, match="the token is empty, so anybody would have it"):
                check_bind(host, token)
        with pytest.raises(BadInput, match="the token is empty"):
            Guard(Echo(), token, ["localhost:5000"])


def test_own_hosts():
    assert own_hosts("127.0.0.1", 5000) == ["127.0.0.1:5000", "localhost:5000", "[::1]:5000"]
    assert own_hosts("127.0.0.2", 1)[0] == "127.0.0.2:1"
    assert own_hosts("::1", 5000)[0] == "[::1]:5000"
    assert own_hosts("192.168.1.5", 5000) == ["192.168.1.5:5000"]
    assert own_hosts("box", 80) == ["box:80", "box"]
    assert f"{socket.gethostname().lower()}:5000" in own_hosts("0.0.0.0", 5000)
    assert not any("0.0.0.0" in each for each in own_hosts("0.0.0.0", 5000))


# ------------------------------------------------------------------------------------------------- Host


def test_own_host_is_served(open_server):
    for host in each(["127.0.0.1:{port}", "localhost:{port}", "LocalHost:{port}", "[::1]:{port}"]):
        port, app = open_server
        assert ask(port, [("Host", host.format(port=port))])[0] == 200


def test_foreign_host_is_refused(open_server):
    for host in each(
        [
            "evil.example:{port}",
            "evil.example",
            "",
            "localhost",
            "127.0.0.1",
            "127.0.0.1:1",
            "localhost.evil.example:{port}",
        ]
        + [
            "127.0.0.1:{port}@evil.example",
            "evil.example#127.0.0.1:{port}",
            "127.0.0.1:{port}, evil.example",
            "0.0.0.0:{port}",
        ]
        + ["127.0.0.1.:{port}", "2130706433:{port}", "x" * 8000]
    ):
        port, app = open_server
        refused(app, port, 403, "foreign Host", [("Host", host.format(port=port))])


def test_the_message_says_what_the_server_answers_to_and_stays_short(open_server):
    port, app = open_server
    message = json.loads(ask(port, [("Host", "evil.example" * 500)])[2])["message"]
    assert f"this server answers to '127.0.0.1:{port}'" in message and len(message) < 500


def test_hosts_are_given_in_any_case():
    with serving(hosts=["Example.ORG:1"]) as (port, _):
        assert ask(port, [("Host", "eXample.org:1")])[0] == 200


def test_no_host_and_two_hosts_are_refused(open_server):
    port, app = open_server
    assert raw(port, b"GET /v1/envs/ HTTP/1.0\r\n\r\n")[0].split()[1] == "403"
    two = f"GET /v1/envs/ HTTP/1.1\r\nHost: localhost:{port}\r\nHost: evil.example\r\n\r\n".encode()
    assert raw(port, two)[0].split()[1] in ("400", "403")
    before = len(app.seen)
    sent = []
    scope = {"type": "http", "method": "GET", "path": "/", "server": ("127.0.0.1", port)}
    scope["headers"] = [(b"host", f"localhost:{port}".encode()), (b"host", b"evil.example")]
    asyncio.run(Guard(app, None, own_hosts("127.0.0.1", port))(scope, None, collector(sent)))
    assert sent[0]["status"] == 403 and len(app.seen) == before


def collector(sent):
    async def send(message):
        sent.append(message)

    return send


def test_the_address_of_the_connection_is_an_own_host_and_a_name_is_not():
    with serving("0.0.0.0", hosts=[], token="t") as (port, app):
        assert ask(port, basic("t"))[0] == 200
        assert ask(port, [*basic("t"), ("Host", f"127.0.0.9:{port}")], host="127.0.0.9")[0] == 200
        refused(app, port, 403, "foreign Host", [*basic("t"), ("Host", f"127.0.0.9:{port}")])
        refused(app, port, 403, "foreign Host", [*basic("t"), ("Host", f"localhost:{port}")])
        refused(app, port, 403, "foreign Host", [*basic("t"), ("Host", f"0.0.0.0:{port}")])

    sent = []
    named = {"type": "http", "server": ("name", 80), "headers": [(b"host", b"name:80")]}
    asyncio.run(Guard(app, None, [])(named, None, collector(sent)))
    assert sent[0]["status"] == 403


def test_ipv6_loopback(ipv6: None):
    with serving("::1") as (port, _):
        assert ask(port, host="::1")[0] == 200


# ------------------------------------------------------------------------------------------------- pages of other servers


def test_own_pages_and_programs_are_served(open_server):
    port, _ = open_server
    for origin in (f"http://127.0.0.1:{port}", f"http://localhost:{port}", f"HTTPS://LOCALHOST:{port}"):
        assert ask(port, [("Origin", origin), ("Sec-Fetch-Site", "same-origin")])[0] == 200
    assert ask(port, [("Sec-Fetch-Site", "none")])[0] == 200  # an address that the user typed


def test_foreign_origin_is_refused(open_server):
    for origin in each(
        ["null", "", "http://evil.example", "https://evil.example:{port}", "http://127.0.0.1:8888", "http://127.0.0.1"]
        + ["file://", "127.0.0.1:{port}", "ftp://127.0.0.1:{port}", "http://https://127.0.0.1:{port}"]
        + [
            "http://127.0.0.1:{port}.evil.example",
            "http://evil.example/http://127.0.0.1:{port}",
            "http://127.0.0.1:{port}/",
        ]
    ):
        for method in each(["GET", "POST", "OPTIONS"]):
            port, app = open_server
            refused(app, port, 403, "foreign Origin", [("Origin", origin.format(port=port))], method=method)


def test_one_foreign_origin_among_two_is_enough(open_server):
    port, app = open_server
    refused(
        app, port, 403, "foreign Origin", [("Origin", f"http://localhost:{port}"), ("Origin", "http://evil.example")]
    )


def test_foreign_fetch_site_is_refused(open_server):
    for site in each(["cross-site", "same-site", "Cross-Site", "anything", ""]):
        port, app = open_server
        refused(app, port, 403, "foreign Sec-Fetch-Site", [("Sec-Fetch-Site", site)])


def test_no_answer_grants_access_to_foreign_pages(open_server, token_server):
    for port, _ in (open_server, token_server):
        for headers in ([], [("Origin", "http://evil.example")], [("Origin", f"http://localhost:{port}")]):
            fields = ask(port, headers)[1]
            assert not [name for name in fields if name.startswith("access-control-")]
    with serving(headers={"Access-Control-Allow-Origin": "*"}) as (port, _):
        assert not [name for name in ask(port)[1] if name.startswith("access-control-")]


# ------------------------------------------------------------------------------------------------- token


def test_the_token_opens_as_password_of_any_user_and_as_bearer(token_server):
    port, _ = token_server
    for headers in (basic(TOKEN), basic(TOKEN, user=""), basic(TOKEN, user="somebody else")):
        assert ask(port, headers)[0] == 200
    with serving(token="t0ken") as (other, _):
        assert ask(other, [("authorization", "bEaReR   t0ken")])[0] == 200
        assert ask(other, [("authorization", "bAsIc " + base64.b64encode(b":t0ken").decode())])[0] == 200


def test_without_the_token_nothing_opens(token_server):
    for headers in each(
        [
            [],
            basic(""),
            basic(TOKEN[:-1]),
            basic(TOKEN + "x"),
            basic(TOKEN.upper()),
            basic("x", user=TOKEN),
            [("Authorization", "")],
            [("Authorization", "Bearer")],
            [("Authorization", "Bearer wrong")],
            [("Authorization", "Basic")],
            [("Authorization", "Basic !!! not base64 !!!")],
            [("Authorization", "Digest " + base64.b64encode(f"u:{TOKEN}".encode()).decode())],
            [("Authorization", "Basic " + base64.b64encode(TOKEN.encode()).decode()[:-2])],
            [*basic(TOKEN), *basic("wrong")],
            [*basic(TOKEN), *basic(TOKEN)],
            [("Cookie", "token=" + base64.b64encode(TOKEN.encode()).decode())],
        ]
    ):
        port, app = token_server
        for method in ("GET", "POST", "OPTIONS", "DELETE"):
            fields = refused(app, port, 401, "this server needs its token", headers, method=method)
            assert fields["www-authenticate"].startswith("Basic ")


def test_a_query_or_a_path_holds_no_token():
    with serving(token="t0ken") as (port, app):
        for path in ("/v1/envs/?token=t0ken", "/t0ken/v1/envs/"):
            refused(app, port, 401, "this server needs its token", path=path)


def test_host_and_origin_are_looked_at_before_the_token(token_server):
    port, app = token_server
    refused(app, port, 403, "foreign Host", [*basic(TOKEN), ("Host", "evil.example")])
    refused(app, port, 403, "foreign Origin", [*basic(TOKEN), ("Origin", "http://evil.example")])
    refused(app, port, 403, "foreign Host", [("Host", "evil.example"), ("Origin", "http://evil.example")])
    refused(app, port, 401, "token", method="POST", body=b"x" * (MAX_BODY + 1))  # before the body, too


# ------------------------------------------------------------------------------------------------- bodies


def chunked(port, chunks, end=b"0\r\n\r\n"):
    head = f"POST /v1/envs/ HTTP/1.1\r\nHost: localhost:{port}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return raw(port, head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + end)


def test_a_body_up_to_the_limit_arrives_whole(open_server):
    port, app = open_server
    for size in (0, 1, MAX_BODY):
        assert ask(port, method="POST", body=b"x" * size)[2] == str(size).encode()
        assert app.seen[-1] == ("POST", "/v1/envs/", [size])  # one message
    status, body = chunked(port, [b"x"] * MAX_BODY)
    assert status.split()[1] == "200" and app.seen[-1] == ("POST", "/v1/envs/", [MAX_BODY])
    assert ask(port, method="GET", body=b"null")[2] == b"4"  # a GET may carry one


@pytest.mark.parametrize("size", [MAX_BODY + 1, 3 << 20])
def test_a_larger_body_is_refused_announced_or_in_chunks(open_server, size):
    port, app = open_server
    refused(app, port, 413, f"the body is too large: at most {MAX_BODY} bytes", method="POST", body=b"x" * size)
    before = len(app.seen)
    status, body = chunked(port, [b"x" * 1000] * (size // 1000 + 1))
    assert status.split()[1] == "413" and "too large" in json.loads(body)["message"] and len(app.seen) == before


def test_an_endless_body_is_cut_off(open_server):
    port, app = open_server
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(f"POST / HTTP/1.1\r\nHost: localhost:{port}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        chunk, sent = b"10000\r\n" + b"x" * 65536 + b"\r\n", 0
        with contextlib.suppress(ConnectionError):
            while sent < 8 * DRAIN:
                connection.sendall(chunk)
                sent += 65536
        assert sent < 8 * DRAIN, "the server went on reading"


def test_a_body_that_is_only_announced_is_refused_at_once(open_server):
    port, app = open_server
    head = f"POST / HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: {10**15}\r\nExpect: 100-continue\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_a_content_length_that_is_no_number_is_refused(open_server):
    for length in each(["-1", "1e3", "0x10", "ten", "1" * 30, "1, 2", ""]):
        port, app = open_server
        before, sent = len(app.seen), []
        scope = {"type": "http", "method": "POST", "path": "/", "server": ("127.0.0.1", port)}
        scope["headers"] = [(b"host", f"localhost:{port}".encode()), (b"content-length", length.encode())]
        asyncio.run(Guard(app, None, own_hosts("127.0.0.1", port))(scope, None, collector(sent)))
        assert (
            sent[0]["status"] == 400 and "Content-Length must be one number" in json.loads(sent[1]["body"])["message"]
        )
        line = raw(port, f"POST / HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Length: {length}\r\n\r\n".encode())[0]
        assert line.split()[1] == "400" and len(app.seen) == before


def test_a_client_that_leaves_in_mid_body_harms_nobody(open_server):
    port, app = open_server
    before = len(app.seen)
    for head in ("Content-Length: 500", "Transfer-Encoding: chunked"):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(f"POST / HTTP/1.1\r\nHost: localhost:{port}\r\n{head}\r\n\r\n".encode())
    assert ask(port)[0] == 200
    assert app.seen[before:] == [("GET", "/v1/envs/", [0])]


# ------------------------------------------------------------------------------------------------- headers of answers


def test_every_answer_carries_the_security_headers(open_server, token_server):
    port, _ = open_server
    answers = [ask(port), ask(port, method="HEAD"), ask(port, [("Host", "evil.example")]), ask(token_server[0])]
    answers.append(ask(port, method="POST", body=b"x" * (MAX_BODY + 1)))
    assert [status for status, _, _ in answers] == [200, 200, 403, 401, 413]
    for _, fields, _ in answers:
        assert fields["x-content-type-options"] == "nosniff"
        assert fields["referrer-policy"] == "no-referrer"
        assert fields["cache-control"] == "no-store"
        assert fields["cross-origin-resource-policy"] == "same-origin"
        assert fields["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


def test_given_headers_replace_and_add_and_those_of_the_application_stay():
    given = {"Content-Security-Policy": "default-src 'self'", "X-More": "1"}
    with serving(headers=given) as (port, _):
        fields = ask(port)[1]
        assert fields["content-security-policy"] == "default-src 'self'" and fields["x-more"] == "1"
        assert fields["x-content-type-options"] == "nosniff" and fields["content-type"] == "text/plain"
        assert ask(port, path="/own")[1]["referrer-policy"] == "origin"
        assert ask(port, [("Host", "evil.example")])[1]["content-security-policy"] == "default-src 'self'"


def test_websockets_are_refused(open_server):
    _, app = open_server
    before, sent = len(app.seen), []
    asyncio.run(Guard(app, None, [])({"type": "websocket", "headers": []}, None, collector(sent)))
    assert sent == [{"type": "websocket.close", "code": 1008}] and len(app.seen) == before
