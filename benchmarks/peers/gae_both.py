"""Advantages alone, [T, N]: whorl's kernel and the faster of TorchRL's two estimators, on the same numbers."""

import sys
from pathlib import Path

from report import calls, serve

sys.path.insert(0, str(Path(__file__).parents[1]))

from gae import DISCOUNT, TRACE_DECAY, rollout, torchrl_estimators

from whorl.functional import gae


def run(who, shape, seconds=1.0, seed=0):
    rows = rollout(*shape)
    if who == "whorl":
        return calls(lambda: gae(*rows, DISCOUNT, TRACE_DECAY), seconds)
    return max((calls(f, seconds / 2) for f in torchrl_estimators(rows).values()), key=lambda found: found["value"])


if __name__ == "__main__":
    serve(run)
