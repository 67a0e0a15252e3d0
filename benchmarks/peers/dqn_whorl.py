"""whorl's DQN with the common parameters, through its ordinary loop; --compile makes every update one graph."""

from collections import deque

import numpy as np
from report import DQN as SETTINGS
from report import arguments, report, timed

from whorl.agents.dqn import DQN
from whorl.feeds import Replay
from whorl.training.build import build
from whorl.training.loops import plain


def main():
    o = arguments(__doc__, every=10, batch=128, compile=True)
    s = SETTINGS
    config = DQN.Config(
        learning_rate=s["learning_rate"], double=False, target_every=s["target_every"] // o.every, target_rate=1.0,
        epsilon_min=s["epsilon"], epsilon_steps=s["epsilon_steps"], hidden=(120, 84),
        feed=Replay(
            batch_size=o.batch, capacity=s["capacity"], replay_ratio=1 / o.every, warmup=s["warmup"], steps=o.every
        ),
    )  # fmt: skip
    parts = build("dqn", "CartPole-v1", config, num_envs=1, seed=o.seed, compile=o.compile)
    recent, timer = deque(maxlen=50), timed(warmup=s["counted_from"])

    def watch(rollout, metrics):
        recent.extend(episode.ret for episode in parts.collector.episodes)
        timer(parts.collector.steps)

    plain.train(parts.agent, parts.collector, parts.buffer, s["counted_from"] + o.steps, [watch])
    report("whorl --compile" if o.compile else "whorl", timer, np.mean(recent))


if __name__ == "__main__":
    main()
