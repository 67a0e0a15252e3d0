"""What the server is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that `serve` and `running` take, as keywords."""

    # where to listen; 127.0.0.1 and localhost mean ::1 too
    host: str = "127.0.0.1"
    # 0 takes a free one
    port: int = 5000
    # HTTP Basic password (or Bearer) that every request must carry; needed off loopback
    token: str | None = None
    # further names that requests may call this server by, as host:port: of a tunnel or a proxy
    allow_hosts: Sequence[str] = ()
    # patterns of ids that may be made, as of file names; none = all that are registered
    allow: Sequence[str] = ()
    # whether POST /v1/shutdown/ stops the server
    allow_shutdown: bool = False
    # where monitors write and uploads are read; None: a folder of the user's in /tmp
    root: Path | None = None
    # environments open at a time; a vector counts all of its own
    max_envs: int = 64
    # seconds after its last call until an environment is closed
    idle: float = 600.0
    # seconds that a call may take
    patience: float = 60.0
    # answer 200 {} instead of 204, for clients that take 200 only (the C++ one)
    empty_as_json: bool = False
    # hand a step after the end of an episode on to the environment, instead of refusing it
    lenient: bool = False
