"""Presets of IQN."""

from whorl.agents.iqn import IQNConfig
from whorl.feeds import Replay
from whorl.presets import Preset

PRESETS = {
    "CartPole-v1": Preset(
        IQNConfig(
            learning_rate=1e-3,
            target_rate=0.02,
            epsilon_steps=10_000,
            feed=Replay(batch_size=128, capacity=100_000, replay_ratio=0.125, warmup=1_000),
        ),
        num_envs=8,
        total_steps=100_000,
        source="that of DQN",
    ),
}
