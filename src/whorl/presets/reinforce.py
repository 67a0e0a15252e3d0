"""REINFORCE's presets."""

from whorl.agents.reinforce import REINFORCEConfig
from whorl.feeds import Rollouts
from whorl.presets import Preset

_CARTPOLE = REINFORCEConfig(learning_rate=3e-3, feed=Rollouts(steps=250, unit="episode"))

PRESETS = {
    "CartPole-v0": Preset(_CARTPOLE, num_envs=8, total_steps=500_000, source="that of CartPole-v1"),
    "CartPole-v1": Preset(_CARTPOLE, num_envs=8, total_steps=500_000, source="found here"),
    "Acrobot-v1": Preset(
        REINFORCEConfig(
            learning_rate=5e-3, baseline="mean", normalize_observation=True, feed=Rollouts(steps=100, unit="episode")
        ),
        num_envs=8,
        total_steps=1_000_000,
        source="found here",
    ),
    "Pendulum-v1": Preset(
        REINFORCEConfig(
            learning_rate=0.02,
            anneal_steps=1_000_000,
            discount=0.95,
            baseline="padded_time",
            entropy_weight=0.01,
            max_grad_norm=0.0,
            clip_value=5.0,
            reduction="sum",
            hidden=(10,),
            initialization="uniform",
            std="fixed",
            fixed_std=0.5,
            mean="tanh",
            scale=True,
            optimizer="rmsprop",
            smoothing=0.9,
            optimizer_eps=1e-8,
            feed=Rollouts(steps=200, unit="episode"),
        ),
        num_envs=5,
        total_steps=1_000_000,
        source="torch-twrl's pendulum-pg; step size, std and discount found here",
    ),
    "MountainCar-v0": Preset(
        REINFORCEConfig(
            learning_rate=3e-3,
            entropy_weight=0.01,
            normalize_observation=True,
            feed=Rollouts(steps=200, unit="episode"),
        ),
        num_envs=16,
        total_steps=500_000,
        source="a negative control: no episode of a random policy reaches the flag, so nothing is learned",
    ),
    "MountainCarContinuous-v0": Preset(
        REINFORCEConfig(learning_rate=3e-3, normalize_observation=True, feed=Rollouts(steps=500, unit="episode")),
        num_envs=8,
        total_steps=500_000,
        source="found here",
    ),
    "LunarLander-v3": Preset(
        REINFORCEConfig(learning_rate=3e-3, feed=Rollouts(steps=300, unit="episode")),
        num_envs=8,
        total_steps=500_000,
        source="found here",
    ),
}
