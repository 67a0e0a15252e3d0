"""A chain in one line, for people. Imports no torch, so that a board or a list of presets is read at once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence


def described(specs: Sequence[object]) -> str:
    """Names, tables and objects, the innermost first, as `scale_action, stack_frames(count=4)`."""
    words = []
    for spec in specs:
        if isinstance(spec, Mapping):
            arguments = ", ".join(f"{key}={json.dumps(value)}" for key, value in spec.items() if key != "name")
            spec = f"{spec['name']}({arguments})" if arguments else spec["name"]
        words.append(str(spec))
    return ", ".join(words)
