"""DDPG's presets. "Zoo" is Stable-Baselines3's rl-zoo3, hyperparams/ddpg.yml."""

from whorl.agents.ddpg import DDPGConfig
from whorl.feeds import Replay
from whorl.presets import Preset

PRESETS = {
    "Pendulum-v1": Preset(
        DDPGConfig(
            learning_rate=1e-3,
            discount=0.98,
            target_rate=0.005,
            noise="gaussian",
            std=0.1,
            feed=Replay(batch_size=256, capacity=20_000, warmup=1_000),
        ),
        num_envs=1,
        total_steps=15_000,
        source="Zoo, with a shorter uniform start, larger batches, an update at every step and fewer steps",
    ),
    "MountainCarContinuous-v0": Preset(
        DDPGConfig(
            learning_rate=1e-3,
            target_rate=0.005,
            std=0.5,
            feed=Replay(batch_size=100, capacity=100_000, warmup=1_000),
        ),
        num_envs=1,
        total_steps=100_000,
        source="Zoo, with fewer steps",
    ),
}
