"""What the id of an environment means: a name of Gymnasium's registry or of a native world, or the URL of one on a server.

An id is looked up and never interpreted: it imports no module. Imports no adapter and no HTTP client. Installed packages bring ids by
the entry-point group `whorl.envs`: `Maze-v0 = "package.module:Maze"` is what Gymnasium's registry then has, and imports when it is made.
"""

from __future__ import annotations

import difflib
from importlib.metadata import entry_points
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import gymnasium

from whorl.envs import native
from whorl.errors import BadInput

TOKEN = "WHORL_GYM_TOKEN"  # the environment variable that holds a server's token


class Place(NamedTuple):
    """A URL taken apart."""

    base: str  # "http://host:port", without credentials
    path: str  # without the first slash
    token: str | None  # the password


def place(url: str) -> Place:
    """Raises BadInput, without showing the password, for what is not the URL of a server or of an environment on one."""
    example = "expected a URL such as http://127.0.0.1:5000/CartPole-v1"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # whose text may hold a part of the password
        raise BadInput(f"{example}, got one whose host or port cannot be read; a password needs %2F for /") from None
    if (
        parts.scheme not in ("http", "https")
        or not host
        or not host.isprintable()
        or " " in host
        or parts.query
        or parts.fragment
    ):
        raise BadInput(f"{example}, with neither query nor fragment, got {parts.scheme}://{host or ''}{parts.path}")
    if parts.username and parts.password is None:
        raise BadInput(f"{example}; a token is its password, as in http://user:TOKEN@{host}, got a user name alone")
    name = f"[{host}]" if ":" in host else host
    base = f"{parts.scheme}://{name}" + (f":{port}" if port is not None else "")
    return Place(base, unquote(parts.path).strip("/"), None if parts.password is None else unquote(parts.password))


def is_url(id: str) -> bool:
    """Whether an environment's id is the URL of one on a server."""
    return id.lower().startswith(("http://", "https://"))


def environment_behind(id: str) -> str:
    """The environment's id behind a URL; any other id as it is."""
    return place(id).path if is_url(id) else id


def check_no_token(id: str) -> None:
    """Raises BadInput for a URL with a password: what is trained in is written into the run's folder."""
    if is_url(id) and place(id).token is not None:
        raise BadInput(
            "the URL of an environment must not hold a token, because it is written into the run's folder: set the "
            f"environment variable {TOKEN} instead"
        )


def namespace(id: str) -> str:
    """What stands before the slash: "ALE" of "ALE/Pong-v5"; "" where there is none."""
    return id.partition("/")[0] if "/" in id else ""


def entry_point(id: str) -> str:
    """Where Gymnasium finds the class, as text; "" for an id that is not in its registry."""
    spec = gymnasium.registry.get(id)
    return str(spec.entry_point) if spec else ""


def register_installed() -> None:
    """Enter the ids of the entry points `whorl.envs` into Gymnasium's registry. Nothing of the packages is imported."""
    for entry in entry_points(group="whorl.envs"):
        if entry.name not in gymnasium.registry:
            gymnasium.register(entry.name, entry.value)


def known_envs() -> dict[str, str]:
    """Every id that `make_env` takes -> "native" or "gymnasium". Some of Gymnasium's need an extra."""
    register_installed()
    return {**dict.fromkeys(gymnasium.registry, "gymnasium"), **dict.fromkeys(native.WORLDS, "native")}


def near(id: str) -> list[str]:
    """Known ids that look like this one, the nearest first; at most three."""
    known = {name.lower(): name for name in known_envs()}
    return [known[name] for name in difflib.get_close_matches(id.lower(), known, n=3)]


def newest(id: str) -> str:
    """The id of the highest version that Gymnasium has of a registered one."""
    spec = gymnasium.registry[id]
    same = [each for each in gymnasium.registry.values() if (each.namespace, each.name) == (spec.namespace, spec.name)]
    return max(same, key=lambda each: each.version or -1).id
