"""The buffer of online agents: it holds the step that was just taken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class StreamBuffer:
    """Hands out each rollout once, as it is; nothing is copied, so it is valid until the next one is collected."""

    def __init__(self) -> None:
        self._rollout: Any = None

    def add(self, rollout: Any) -> None:
        self._rollout = rollout

    def batches(self, count: int | None = None) -> Iterator[Any]:
        if self._rollout is not None:
            yield self._rollout
        self._rollout = None

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, {}

    def load_state(self, arrays: dict[str, Any], numbers: dict[str, Any]) -> bool:
        return True
