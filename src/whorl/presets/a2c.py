"""A2C's presets."""

from whorl.agents.a2c import A2CConfig
from whorl.presets import Preset

PRESETS = {
    "CartPole-v1": Preset(
        A2CConfig(learning_rate=1e-3, entropy_weight=0.0, anneal_steps=500_000),
        num_envs=8,
        total_steps=500_000,
        source="found here; Stable-Baselines3 Zoo also uses 8 environments and 500,000 steps",
    ),
}
