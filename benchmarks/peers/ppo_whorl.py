"""whorl's PPO with the CartPole-v1 preset, through its ordinary loop; --compile makes every optimizer step one graph."""

from collections import deque

import numpy as np
from report import arguments, report, timed

from whorl.training.build import build
from whorl.training.loops import plain


def main():
    o = arguments(__doc__, compile=True)
    parts = build("ppo", "CartPole-v1", seed=o.seed, compile=o.compile)
    recent, timer = deque(maxlen=50), timed(warmup=2048)

    def watch(rollout, metrics):
        recent.extend(episode.ret for episode in parts.collector.episodes)
        timer(parts.collector.steps)

    plain.train(parts.agent, parts.collector, parts.buffer, o.steps + 2048, [watch])
    report("whorl --compile" if o.compile else "whorl", timer, np.mean(recent))


if __name__ == "__main__":
    main()
