"""REINFORCE's presets."""

from whorl.agents.reinforce import REINFORCEConfig
from whorl.feeds import Rollouts
from whorl.presets import Preset

PRESETS = {
    "CartPole-v1": Preset(
        REINFORCEConfig(learning_rate=3e-3, feed=Rollouts(steps=250, unit="episode")),
        num_envs=8,
        total_steps=500_000,
        source="found here",
    ),
}
