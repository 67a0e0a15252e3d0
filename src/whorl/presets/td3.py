"""TD3's presets. "Zoo" is Stable-Baselines3's rl-zoo3, hyperparams/td3.yml."""

from whorl.agents.td3 import TD3Config
from whorl.feeds import Replay
from whorl.presets import Preset

PRESETS = {
    "Pendulum-v1": Preset(
        TD3Config(learning_rate=1e-3, critic_learning_rate=1e-3, feed=Replay(capacity=20_000, warmup=1_000)),
        num_envs=1,
        total_steps=10_000,
        source="Zoo: step sizes, noise and the uniform start; batches of the authors' code, a buffer of 20,000 rows; half of its steps",
    ),
    "MountainCarContinuous-v0": Preset(
        TD3Config(
            learning_rate=1e-3,
            critic_learning_rate=1e-3,
            noise="ou",
            std=0.5,
            feed=Replay(batch_size=100, capacity=100_000, warmup=1_000),
        ),
        num_envs=1,
        total_steps=100_000,
        source="Zoo, with fewer steps",
    ),
}
