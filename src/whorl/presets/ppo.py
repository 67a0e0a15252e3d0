"""PPO's presets."""

from whorl.agents.ppo import PPOConfig
from whorl.feeds import Rollouts
from whorl.presets import Preset

PRESETS = {
    "CartPole-v1": Preset(
        PPOConfig(learning_rate=1e-3, entropy_weight=0.01, feed=Rollouts(steps=128, epochs=4, minibatches=4)),
        num_envs=8,
        total_steps=150_000,
        source="the benchmark setting of benchmarks/peers",
    ),
}
