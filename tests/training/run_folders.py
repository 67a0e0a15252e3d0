"""Run folders that tests write or change by hand: config.json as whorl would write it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from whorl import options
from whorl.training.settings import Settings
from whorl.training.written import write_config

CONFIG = {"discount": 0.99, "hidden": [64, 64], "feed": {"steps": 5}}  # of the agent


def write(
    path: Path, config: dict[str, Any] | None = None, progress: str = "environment steps", **settings: Any
) -> Path:
    """Writes a config.json with these settings; what is not given has its default."""
    whole = options.to_json(Settings(**settings)) | {
        "progress": progress,
        "config": CONFIG if config is None else config,
    }
    write_config(path, whole)
    return path


def change(path: Path, config: dict[str, Any] | None = None, **settings: Any) -> None:
    """Writes a config.json that is there again, as a resume with other settings does."""
    data = json.loads((path / "config.json").read_text())
    data = {key: value for key, value in data.items() if key not in ("sha256", "earlier")}
    write_config(path, data | settings | ({} if config is None else {"config": data["config"] | config}))
