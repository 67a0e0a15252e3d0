"""REDQ's presets. "Paper" is Chen et al. 2021."""

from whorl.agents.redq import REDQConfig
from whorl.feeds import Replay
from whorl.presets import Preset

PRESETS = {
    "Pendulum-v1": Preset(
        REDQConfig(
            learning_rate=1e-3,
            critic_learning_rate=1e-3,
            policy_delay=10,
            hidden=(64, 64),
            feed=Replay(batch_size=128, capacity=20_000, replay_ratio=10.0, warmup=100),
        ),
        num_envs=1,
        total_steps=4_000,
        source="paper, with half the updates, larger step sizes, smaller networks and batches and a shorter uniform start, all found here",
    ),
}
