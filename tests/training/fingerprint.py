"""SHA-256 of all that a run must reproduce: parameters, optimizer, normalizers, streams, environment state, logged metrics."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch

from whorl.buffers.layout import Layout
from whorl.training import checkpoint

CLOCK = ("time/fps", "time/seconds")


def live_rows(path: Path, storage: dict):
    """Every field of the replay rows that the next batch could be drawn from, oldest first."""
    capacity = json.loads((path / "config.json").read_text())["config"]["feed"]["capacity"]
    lanes, ring, layout = storage["lanes"], storage["ring"], Layout.from_json(storage["layout"])
    file = torch.from_numpy(np.fromfile(path / "replay" / "rows.bin", np.uint8)).view(ring * lanes, -1)
    for lane, count in enumerate(storage["count"]):
        k = torch.arange(max(count - -(-capacity // lanes), 0), count)
        rows = file[k % ring * lanes + lane].contiguous()
        for field in layout.fields:
            yield layout.column(rows, field).numpy().tobytes()


def fingerprint(path: Path) -> str:
    digest = hashlib.sha256()
    tensors, state = checkpoint.load(checkpoint.newest(path / "checkpoints"))
    for group in sorted(tensors):
        for name in sorted(tensors[group]):
            digest.update(f"{group}.{name}".encode())
            digest.update(tensors[group][name].numpy().tobytes())
    storage = state["buffer"].get("storage")
    if storage:
        del storage["life"]  # how often the file of the rows was resumed
        for rows in live_rows(path, storage):
            digest.update(rows)
    del state["log"]["seconds"], state["loggers"]
    digest.update(json.dumps(state, sort_keys=True).encode())
    for line in (path / "metrics.jsonl").read_text().splitlines():
        row = {k: v for k, v in json.loads(line).items() if k not in CLOCK and not k.startswith("eval/")}
        if len(row) > 1:
            digest.update(json.dumps(row, sort_keys=True).encode())
    digest.update((path / "episodes.csv").read_bytes())
    return digest.hexdigest()
