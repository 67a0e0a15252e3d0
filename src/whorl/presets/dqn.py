"""DQN's presets. "Zoo" is Stable-Baselines3's rl-zoo3, hyperparams/dqn.yml."""

from whorl.agents.dqn import DQNConfig
from whorl.feeds import Replay
from whorl.presets import Preset

PRESETS = {
    "CartPole-v1": Preset(
        DQNConfig(
            learning_rate=5e-4,
            target_rate=0.01,
            epsilon_steps=10_000,
            feed=Replay(batch_size=64, capacity=100_000, replay_ratio=0.5, warmup=1_000),
        ),
        num_envs=4,
        total_steps=100_000,
        source="found here",
    ),
}
