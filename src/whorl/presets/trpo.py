"""TRPO's presets."""

from whorl.agents.trpo import TRPOConfig
from whorl.feeds import Rollouts
from whorl.presets import Preset

_CARTPOLE = TRPOConfig(feed=Rollouts(steps=128, epochs=10, minibatches=8))

PRESETS = {
    "CartPole-v0": Preset(_CARTPOLE, num_envs=8, total_steps=200_000, source="that of CartPole-v1"),
    "CartPole-v1": Preset(_CARTPOLE, num_envs=8, total_steps=200_000, source="the paper's kl_limit; sizes found here"),
    "Acrobot-v1": Preset(
        TRPOConfig(normalize_observation=True, feed=Rollouts(steps=128, epochs=5, minibatches=8)),
        num_envs=16,
        total_steps=200_000,
        source="found here",
    ),
    "Pendulum-v1": Preset(
        TRPOConfig(
            discount=0.9,
            trace_decay=0.95,
            normalize_observation=True,
            normalize_return=True,
            feed=Rollouts(steps=128, epochs=10, minibatches=16),
        ),
        num_envs=16,
        total_steps=500_000,
        source="discount and sizes of PPO's preset; the paper's kl_limit",
    ),
    "MountainCar-v0": Preset(
        TRPOConfig(
            trace_decay=0.98,
            normalize_observation=True,
            normalize_return=True,
            feed=Rollouts(steps=128, epochs=5, minibatches=8),
        ),
        num_envs=16,
        total_steps=400_000,
        source="as PPO's preset; the paper's kl_limit",
    ),
    "MountainCarContinuous-v0": Preset(
        TRPOConfig(normalize_observation=True, feed=Rollouts(steps=512, epochs=5, minibatches=16)),
        num_envs=8,
        total_steps=300_000,
        source="as PPO's preset; the paper's kl_limit",
    ),
    "LunarLander-v3": Preset(
        TRPOConfig(
            discount=0.999,
            trace_decay=0.98,
            normalize_observation=True,
            normalize_return=True,
            feed=Rollouts(steps=256, epochs=5, minibatches=16),
        ),
        num_envs=16,
        total_steps=200_000,
        source="as PPO's preset, shorter: it has only begun to learn by then; the paper's kl_limit",
    ),
}
