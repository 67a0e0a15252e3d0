"""Servers that the tests of the HTTP client share."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from tests.envs.http_servers import original


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """The URL of whorl's server."""
    for module in ("starlette", "uvicorn"):
        pytest.importorskip(module, reason="needs the extra server: pip install 'whorl[server]'")
    from whorl.apps.gym_server.serve import running

    with running(root=tmp_path_factory.mktemp("monitors"), max_envs=200) as url:
        yield url


@pytest.fixture(scope="session")
def old():
    """(URL, instances) of a server as the original was."""
    with original() as server:
        yield server


@pytest.fixture
def standins(monkeypatch):
    """`standins("gym")`: from now on, until the test is over, `import gym` brings the one of tests/standins."""
    found: dict[str, ModuleType | None] = {}

    def instead(module: str) -> None:
        monkeypatch.syspath_prepend(Path(__file__).parents[1] / "standins")
        found[module] = sys.modules.pop(module, None)
        import_module(module)

    yield instead
    for module, real in found.items():
        for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
            del sys.modules[name]
        sys.modules |= {} if real is None else {module: real}
