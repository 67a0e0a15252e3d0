"""Presets of c51."""

from whorl.agents.c51 import C51Config
from whorl.feeds import Replay
from whorl.presets import Preset

PRESETS = {
    "CartPole-v1": Preset(
        C51Config(
            learning_rate=5e-4,
            v_min=0.0,
            v_max=100.0,
            feed=Replay(batch_size=64, capacity=100_000, replay_ratio=0.5, warmup=1_000),
        ),
        num_envs=4,
        total_steps=150_000,
        source="that of DQN",
    ),
}
