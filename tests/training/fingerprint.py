"""SHA-256 of all that a run must reproduce: parameters, optimizer, normalizers, streams, environment state, logged metrics."""

import hashlib
import json
from pathlib import Path

from whorl.training import checkpoint

CLOCK = ("time/fps",)


def fingerprint(path: Path) -> str:
    digest = hashlib.sha256()
    tensors, state = checkpoint.load(checkpoint.newest(path / "checkpoints"))
    for group in sorted(tensors):
        for name in sorted(tensors[group]):
            digest.update(f"{group}.{name}".encode())
            digest.update(tensors[group][name].numpy().tobytes())
    numbers = {key: state[key] for key in ("collector", "buffer", "optimizers", "window")}
    digest.update(json.dumps(numbers, sort_keys=True).encode())
    for line in (path / "metrics.jsonl").read_text().splitlines():
        row = {k: v for k, v in json.loads(line).items() if k not in CLOCK and not k.startswith("eval/")}
        if len(row) > 1:
            digest.update(json.dumps(row, sort_keys=True).encode())
    digest.update((path / "episodes.csv").read_bytes())
    return digest.hexdigest()
