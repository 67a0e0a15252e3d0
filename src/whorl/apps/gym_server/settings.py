"""What the server is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that `serve` and `running` take, as keywords, and `whorl serve-gym` as options."""

    # where it listens; 0 takes a free one
    port: int = 5000
    # 127.0.0.1 and localhost mean ::1 too; another address than this machine's own needs a token
    host: str = "127.0.0.1"
    # clients send it as the password of HTTP Basic, or as Bearer; better in WHORL_GYM_TOKEN, where `ps` cannot see it
    token: str | None = None
    # further host:port names of this server, such as those of a tunnel or a proxy
    allow_hosts: tuple[str, ...] = ()
    # patterns of environment ids, such as 'CartPole-*'; all installed ones if not given
    allow: tuple[str, ...] = ()
    # whether POST /v1/shutdown/ stops the server
    allow_shutdown: bool = False
    # the only folder that monitors write to and uploads are read from; a folder of the user's in /tmp if not given
    root: Path | None = None
    # environments at a time; a vector counts all of its own
    max_envs: int = 64
    # seconds after its last call until an environment is closed
    idle: float = 600.0
    # seconds that a call may take
    patience: float = 60.0
    # answer {} where the protocol has an empty body, for the C++ client
    empty_as_json: bool = False
    # allow a step after the end of an episode, as the original did
    lenient: bool = False
