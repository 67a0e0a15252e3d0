"""What every test shares: one thread per process, reproducible hypothesis, skips that say why."""

from __future__ import annotations

import os
import socket

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; xdist brings the processes

import pytest
from hypothesis import settings

from tests import seeds

# Examples come from the test's name: a red run stays red. With another WHORL_TEST_SEED they come from --hypothesis-seed.
# No deadline: how long an example takes is not its result.
settings.register_profile("whorl", deadline=None, derandomize=seeds.DATA == 0, print_blob=True)
settings.load_profile("whorl")


def pytest_runtest_setup(item: pytest.Item) -> None:
    extras = (
        ("box2d", "Box2D"),
        ("mujoco", "mujoco"),
        ("dmc", "dm_control"),
        ("envpool", "envpool"),
        ("atari", "ale_py"),
    )
    for extra, module in extras:
        if item.get_closest_marker(extra):
            pytest.importorskip(module, reason=f"needs the extra {extra}: pip install 'whorl[{extra}]'")


@pytest.fixture(scope="session")
def ipv6() -> None:
    """Skips where this machine has no ::1. Only the machine is asked, so that a server that does not listen there fails."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError as missing:
        pytest.skip(f"no IPv6 on this machine: {missing}")
