"""The fast twin of `Deterministic`: equal to its `act` but for float32 rounding."""

from __future__ import annotations

import math

import numpy as np

from whorl.jit import jit
from whorl.policies.actors.mlp import Given, Memory, Network, Rows
from whorl.policies.policy import Acted, Actor


@jit
def _bounded(unit: Rows, low: Rows, high: Rows, noise: Rows, warming: bool, action: Rows) -> None:
    """low + (high - low) / 2 * (clip(unit + noise) + 1), or uniform by `noise` while warming."""
    for i in range(unit.shape[0]):
        for d in range(unit.shape[1]):
            z = np.float32(math.erf(noise[i, d] * math.sqrt(0.5))) if warming else unit[i, d] + noise[i, d]
            z = min(max(z, np.float32(-1)), np.float32(1))
            action[i, d] = low[d] + (high[d] - low[d]) / 2 * (z + 1)


def deterministic(
    network: Network, low: Rows, high: Rows, warming: Rows, num_envs: int, spread: float, decay: float
) -> Actor:
    """What is added is spread * z, or where there is a carry x <- decay * x + spread * z. `warming` is looked at in every call."""
    action, nothing = (np.zeros((num_envs, len(low)), np.float32) for _ in range(2))
    scale, keep = np.float32(spread), np.float32(decay)
    decided = {"action": action}

    def act(observation: Rows, carry: Memory, is_first: Rows, noise: Given, action_mask: Given = None) -> Acted:
        _, unit = network(observation)
        np.tanh(unit, out=unit)
        if noise is None:
            _bounded(unit, low, high, nothing, False, action)
            return decided, carry
        added = scale * noise
        if carry is not None:
            added = np.where(is_first[:, None], np.float32(0), carry["ou"]) * keep + added
            carry = {"ou": added}
        uniform = bool(warming)
        _bounded(unit, low, high, noise if uniform else added, uniform, action)
        return decided, carry

    return act
