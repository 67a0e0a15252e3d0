"""TD's presets."""

from whorl.agents.td import TDConfig
from whorl.presets import Preset

PRESETS = {
    "MountainCar-v0": Preset(
        TDConfig(trace_decay=0.9, learning_rate=0.5 / 8, epsilon=0.0), num_envs=1, total_steps=100_000, source="tbd"
    ),
}
