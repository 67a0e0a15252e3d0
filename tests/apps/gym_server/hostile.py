"""What the security tests share: one request, the table of routes, hostile names."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import time
import urllib.parse
from pathlib import Path

from whorl.apps.gym_server import app, vectors

KEY, TOKEN = "sk-planted-api-key-0123456789", "planted-token-9876543210"
DOCUMENTED = {200, 204, 400, 403, 404, 405, 413, 415}
# the table that the server itself is made from
ROUTES = [(method, path) for path, handlers in {**app.ROUTES, **vectors.ROUTES}.items() for method in handlers]


def ask(url, method, path, body=None, headers=()):
    """(status, headers, body as JSON or bytes). A body that is not bytes is written as JSON; a list of bytes goes in chunks."""
    at = urllib.parse.urlsplit(url)
    if body is not None and not isinstance(body, bytes | list):
        body = json.dumps(body).encode()
    chunked = isinstance(body, list)
    fields = {"Content-Type": "application/json", **dict(headers)}
    with contextlib.closing(http.client.HTTPConnection(at.hostname, at.port)) as connection:
        connection.request(method, path, iter(body) if chunked else body, fields, encode_chunked=chunked)
        answer = connection.getresponse()
        data = answer.read()
        kind = answer.getheader("content-type", "")
        return answer.status, dict(answer.getheaders()), json.loads(data) if kind == "application/json" else data


def make(url, env_id="CartPole-v1", **options):
    status, _, answer = ask(url, "POST", "/v1/envs/", {"env_id": env_id, **options})
    assert status == 200, answer
    return answer["instance_id"]


def make_vector(url, **options):
    status, _, answer = ask(url, "POST", "/whorl/v1/vectors", {"env_id": "CartPole-v1", "num_envs": 2, **options})
    assert status == 200, answer
    return answer["vector_id"]


def listed(url, **more):
    return ask(url, "GET", "/v1/envs/", **more)[2]["all_envs"]


def filled(path, instance, vector):
    """A path of the table with its parameters filled in: something is behind them."""
    return path.replace("{id}", vector if "vectors" in path else instance).replace("{x:path}", "1")


def refused(answer, status, words):
    got, fields, data = answer
    assert (got, fields["content-type"]) == (status, "application/json"), (got, data)
    assert list(data) == ["message"] and words in data["message"], data


def tree(folder):
    """Everything below a folder: kind, target or contents."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path)] = os.readlink(path)
        else:
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found


def until(condition):
    """Waits for what must come; the test's own timeout ends a wait in vain."""
    while not condition():
        time.sleep(0.01)


def basic(password):
    return "Authorization", "Basic " + base64.b64encode(f"u:{password}".encode()).decode()


# ------------------------------------------------------------------------------------------------- hostile names

# fmt: off
MODULES = ("canary", "canary.inner", "os", "antigravity", "gymnasium.envs.classic_control.cartpole", "whorl.apps.cli")
IDS = [f"{module}{mark}{name}" for module in MODULES for mark in (":", "::", ": ", ":/", " :")
       for name in ("CartPole-v1", "Canary-v0", "system", "")]
IDS += [f"{module}.{name}" for module in MODULES for name in ("CartPole-v1", "Canary-v0", "Env")]
IDS += [
    "gymnasium.envs.classic_control.cartpole:CartPoleEnv", "canary:Canary", "builtins:eval", "subprocess:Popen",
    "../CartPole-v1", "/etc/passwd", "./canary", "canary.py", "..\\canary", "file:///etc/passwd", "http://evil.example/env",
    "CartPole-v1\0", "CartPole-v1\n", "\nCartPole-v1", "CartPole-v1 ", " CartPole-v1", "CartPole-v1\r\nX: 1", "\x1b[2J", "\x7f",
    "ＣartPole-v1", "CаrtPole-v1", "CartPole-v１", "\u202eCartPole-v1", "CartPole\u200b-v1", "é", "鍵-v0", "🦊-v1", "\ud800",
    "x" * 10_000, "canary:" + "x" * 10_000, "CartPole-v1" * 1000, "CartPole-v" + "9" * 5000, "a/" * 3000, ":" * 500,
    "CartPole-v", "CartPole", "CartPole-v-1", "CartPole-v1e9", "CartPole-v01", "-v1", "/", "//", "/CartPole-v1", "CartPole/-v1",
    "canary/CartPole-v1", "ALE/canary:x", "%63artPole-v1", "CartPole%2Dv1", "$(id)", "`id`", "; id", "| id", "${jndi:x}",
    "__import__('canary')", "eval", "None", "null", "true", "*", "?artPole-v1", "CartPole-v[01]", "{env}", "%s%s%n", "'", '"',
    5, 1.5, True, ["canary:Canary-v0"], [["CartPole-v1"]], {"id": "CartPole-v1"}, {"entry_point": "canary:Canary"},
    {"id": "X-v0", "entry_point": "canary:Canary", "kwargs": {}}, {"__class__": "canary.Canary"}, {"env_id": "CartPole-v1"},
    json.dumps({"id": "X-v0", "entry_point": "canary:Canary"}),
]


def traversals(outside: Path) -> list:
    """Names that would lead out of the root, or hide where they lead, in many spellings."""
    dots = ["..", "...", "....", ". .", "..;", "．．", "‥", "%2e%2e", "%252e%252e", "%25252e%25252e", "%c0%ae%c0%ae",
            "%u002e%u002e", ".%00.", "..\0", "..\n", ".\u200b.", "..%00", "%2E.", ".%2e", "\\..", "..\\", "~", "~root", "$HOME",
            "link", "inner/link"]
    marks = ["/", "\\", "%2f", "%252f", "%5c", "%255c", "//", "/./", "∕", "%c0%af"]
    names = [f"{dot}{mark}{rest}" for dot in dots for mark in marks for rest in ("outside", "outside/results")]
    names += [f"{dot}{mark}{dot}{mark}outside" for dot in dots[:8] for mark in marks]
    names += [f"{start}{mark}..{mark}{end}" for start in ("a", "inner") for mark in marks for end in ("..", "../outside", "outside")]
    names += [*dots, *marks, "link/results", "inner/link/results", "loop", "loop/x", "file", "file/x", "dangling", "dangling/x"]
    names += [f"/..{outside}", f"{outside}/..", f"file://{outside}", f"\\\\?\\{outside}", f"C:{outside}", f"{outside}\0",
              f"{outside}%00", "C:\\outside", "c:/outside", "\\\\host\\share", "//host/share/..", "/", "//", "/..", "/.", ".", "./..",
              "a" * 300, "a/" * 400, f"{outside}", f"/{outside}", f"{outside}/"]
    quoted = urllib.parse.quote(str(outside), safe="")
    names += [quoted, urllib.parse.quote(quoted), "\ud800", "\u202e", "a\x1b[2J"]
    return [*names, "", None, 5, True, ["outside"], {"a": str(outside)}, [[".."]]]
# fmt: on
