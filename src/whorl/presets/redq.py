"""REDQ's presets. "Paper" is Chen et al. 2021."""

from whorl.agents.redq import REDQConfig
from whorl.feeds import Replay
from whorl.presets import Preset

PRESETS = {
    "Pendulum-v1": Preset(
        REDQConfig(hidden=(64, 64), feed=Replay(batch_size=128, capacity=20_000, replay_ratio=20.0, warmup=100)),
        num_envs=1,
        total_steps=3_000,
        source="paper, with smaller networks and batches and a shorter uniform start; steps found here",
    ),
}
