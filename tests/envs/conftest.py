"""Servers that the tests of the HTTP client share."""

from __future__ import annotations

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
