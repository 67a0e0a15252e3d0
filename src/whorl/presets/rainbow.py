"""Presets of Rainbow."""

from whorl.agents.rainbow import RainbowConfig
from whorl.feeds import Replay
from whorl.presets import Preset

PRESETS = {
    "CartPole-v1": Preset(
        RainbowConfig(
            learning_rate=1e-3,
            target_rate=0.02,
            v_min=0.0,
            v_max=100.0,
            feed=Replay(
                batch_size=128,
                capacity=100_000,
                replay_ratio=0.125,
                warmup=1_000,
                n_step=3,
                prioritized=True,
                alpha=0.5,
                beta=0.4,
            ),
        ),
        num_envs=8,
        total_steps=100_000,
        source="that of DQN",
    ),
}
