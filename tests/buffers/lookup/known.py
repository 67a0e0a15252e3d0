"""Rollouts of a native world with random ends and rows that stood, and what lookups should make of them, worked row by row."""

from __future__ import annotations

import numpy as np
import torch

from whorl import batch
from whorl.transforms.make import make_env

LANES = 4


def played(steps: int, chunk: int, *transforms, lanes: int = LANES, seed: int = 0, stand: float = 0.1):
    """Rollouts [chunk, lanes] of CartPole under random actions, a tenth of the rows not stepped (mask False)."""
    env = make_env("CartPole-v1", lanes, seed=seed, transforms=[*transforms, {"name": "time_limit", "steps": 25}])
    rng, here, first = np.random.default_rng(seed), env.reset(), np.ones(lanes, bool)
    rows: list[dict] = []
    for _ in range(steps):
        moves, action = rng.random(lanes) >= stand, rng.integers(0, 2, lanes)
        row = {"observation": np.array(here), "is_first": first.copy(), "action": action, "mask": moves}
        row["version"] = np.zeros(lanes, int)
        step = env.step(action, moves)
        following = {"observation": step.next_observation, "reward": step.reward}
        following |= {"terminated": step.terminated, "truncated": step.truncated}
        rows.append(row | {f"next.{key}": np.array(value) for key, value in following.items()})
        ended = step.terminated | step.truncated
        here, first = step.observation, np.where(moves, ended, first)
        if len(rows) == chunk:
            flat = {key: torch.from_numpy(np.stack([row[key] for row in rows])) for key in rows[0]}
            after = {key[5:]: flat.pop(key) for key in list(flat) if key.startswith("next.")}
            yield batch.make({**flat, "next": after}, (chunk, lanes))
            rows = []


def live(storage) -> torch.Tensor:
    low, high = storage.live()
    return torch.tensor([k * storage.lanes + e for e in range(storage.lanes) for k in range(low[e], high[e])])
