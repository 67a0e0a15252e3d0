"""whorl's SAC with the common parameters, through its ordinary loop; --compile makes every optimizer step one graph."""

from collections import deque

import numpy as np
from report import SAC as SETTINGS
from report import arguments, report, timed

from whorl.agents.sac import SAC
from whorl.feeds import Replay
from whorl.training.build import build
from whorl.training.loops import plain


def main():
    o = arguments(__doc__, compile=True)
    rate = SETTINGS["learning_rate"]
    feed = Replay(batch_size=256, replay_ratio=1.0, warmup=SETTINGS["warmup"])
    # the rest are its defaults: 256x256, tau .005, gamma .99, learned temperature
    config = SAC.Config(learning_rate=rate, critic_learning_rate=rate, feed=feed)
    parts = build("sac", "Pendulum-v1", config, num_envs=1, seed=o.seed, compile=o.compile)
    recent, timer = deque(maxlen=5), timed(warmup=SETTINGS["counted_from"])

    def watch(rollout, metrics):
        recent.extend(episode.ret for episode in parts.collector.episodes)
        timer(parts.collector.steps)

    plain.train(parts.agent, parts.collector, parts.buffer, SETTINGS["counted_from"] + o.steps, [watch])
    report("whorl --compile" if o.compile else "whorl", timer, np.mean(recent))


if __name__ == "__main__":
    main()
