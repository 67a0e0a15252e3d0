"""Presets of rainbow."""

from whorl.agents.rainbow import RainbowConfig
from whorl.feeds import Replay
from whorl.presets import Preset

PRESETS = {
    "CartPole-v1": Preset(
        RainbowConfig(
            learning_rate=5e-4,
            v_min=0.0,
            v_max=100.0,
            feed=Replay(
                batch_size=64,
                capacity=100_000,
                replay_ratio=0.5,
                warmup=1_000,
                n_step=3,
                prioritized=True,
                alpha=0.5,
                beta=0.4,
            ),
        ),
        num_envs=4,
        total_steps=150_000,
        source="that of DQN",
    ),
}
