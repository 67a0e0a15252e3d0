"""Hindsight replay on 15 bits (Andrychowicz et al. 2017, section 4.1): the share of episodes that reach their goal, with and without.

    python benchmarks/bit_flipping.py [--seeds 5]        trains, and writes results/bit_flipping.{json,md}

One seed after the other, with the preset of the pair; only `feed.relabel` differs. The last policy is scored greedily over 1,000 fresh
episodes. An episode that reaches its goal ends there, so its return is above -15.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import whorl
from whorl.training import folder

RESULTS = Path(__file__).parent.parent / "results"
ENV, EPISODES = "BitFlipping15-v0", 1000


def success(relabel: str, seed: int) -> float:
    with tempfile.TemporaryDirectory() as runs:
        run = whorl.train("dqn", ENV, feed={"relabel": relabel}, seed=seed, runs=runs, quiet=True, eval_every=0)
        return float((run.evaluate(EPISODES).returns > -15).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(parser.parse_args().seeds)
    reached: dict[str, list[float]] = {}
    for relabel in ("future", "none"):
        reached[relabel] = []
        for seed in seeds:
            reached[relabel].append(success(relabel, seed))
            print(relabel, seed, reached[relabel][-1], flush=True)
    meta = {key: value for key, value in folder.meta().items() if key != "command"}
    result = {
        "command": "python benchmarks/bit_flipping.py",
        "env": ENV,
        "episodes": EPISODES,
        "success": reached,
        "meta": meta,
    }
    (RESULTS / "bit_flipping.json").write_text(json.dumps(result, indent=1) + "\n")
    rows = [f"| {relabel} | {', '.join(f'{share:.1%}' for share in shares)} |" for relabel, shares in reached.items()]
    text = f"""# Hindsight replay on 15 bits

`python benchmarks/bit_flipping.py`: DQN with its preset for `{ENV}`; the share of {EPISODES:,} fresh episodes in which the last policy,
greedily, reaches its goal, by seed from 0.

| `feed.relabel` | success |
|---|---|
"""
    (RESULTS / "bit_flipping.md").write_text(text + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
