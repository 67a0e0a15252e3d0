"""whorl's PPO on CartPole-v1 until the last 20 training episodes have a mean of 475: python reach_whorl.py SEED BODY. Prints when."""

import json
import sys
import tempfile
import time

import whorl


class Enough(whorl.StopAt):
    """Says when."""

    def __call__(self, rollout, metrics):
        ends = super().__call__(rollout, metrics)
        if ends:
            print(json.dumps({"at": time.time()}), flush=True)
        return ends


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as runs:
        whorl.train(
            "ppo", "CartPole-v1", runs=runs, quiet=True, seed=int(sys.argv[1]), update=sys.argv[2], hooks=[Enough(475.0)],
            window=20, eval_every=0, checkpoint_every=0, total_steps=2_000_000,
        )  # fmt: skip
