"""A run's parts on disk and back: one group of tensors and one entry of `state.json` for each, under its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from whorl.batch import Part
from whorl.training import checkpoint


def save(folder: Path, progress: int, parts: Mapping[str, Part]) -> Path:
    """Publish the checkpoint `folder/step_{progress}`. Raises what `checkpoint.save` does."""
    states = {name: part.state() for name, part in parts.items()}
    tensors = {name: arrays for name, (arrays, _) in states.items()}
    return checkpoint.save(folder, progress, tensors, {name: numbers for name, (_, numbers) in states.items()})


def load(path: Path, parts: Mapping[str, Part]) -> dict[str, bool]:
    """Bring the parts back: name -> whether it is exactly as it was. A part that the checkpoint does not know stays as it is.

    Raises what `checkpoint.load` does, and BadInput for a part of another size.
    """
    tensors, numbers = checkpoint.load(path)
    return {name: part.load_state(tensors[name], numbers[name]) for name, part in parts.items() if name in numbers}
