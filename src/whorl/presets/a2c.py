"""A2C's presets. "Zoo" is Stable-Baselines3's rl-zoo3, hyperparams/a2c.yml."""

from whorl.agents.a2c import A2CConfig
from whorl.feeds import Rollouts
from whorl.presets import Preset
from whorl.presets.atari import on_atari

_CARTPOLE = A2CConfig(learning_rate=1e-3, entropy_weight=0.0, anneal_steps=500_000)

PRESETS = {
    **on_atari(
        A2CConfig(anneal_steps=10_000_000, value_weight=0.25, feed=Rollouts(steps=5)),
        num_envs=16,
        source="Zoo, with Adam in the place of RMSprop",
    ),
    "CartPole-v0": Preset(_CARTPOLE, num_envs=8, total_steps=500_000, source="that of CartPole-v1"),
    "CartPole-v1": Preset(_CARTPOLE, num_envs=8, total_steps=500_000, source="Zoo's sizes, step size found here"),
    "Acrobot-v1": Preset(
        A2CConfig(learning_rate=1e-3, anneal_steps=500_000, entropy_weight=0.0, normalize_observation=True),
        num_envs=16,
        total_steps=500_000,
        source="Zoo, step size found here",
    ),
    "Pendulum-v1": Preset(
        A2CConfig(
            learning_rate=3e-3,
            anneal_steps=1_000_000,
            discount=0.9,
            trace_decay=0.95,
            entropy_weight=0.0,
            normalize_advantage=True,
            normalize_return=True,
            feed=Rollouts(steps=32),
        ),
        num_envs=8,
        total_steps=1_000_000,
        source="Zoo, without state-dependent exploration; longer rollouts, found here",
    ),
    "MountainCar-v0": Preset(
        A2CConfig(
            learning_rate=1e-3,
            trace_decay=0.98,
            normalize_advantage=True,
            normalize_observation=True,
            normalize_return=True,
            feed=Rollouts(steps=32),
        ),
        num_envs=16,
        total_steps=1_000_000,
        source="found here",
    ),
    "MountainCarContinuous-v0": Preset(
        A2CConfig(
            learning_rate=1e-3,
            anneal_steps=300_000,
            trace_decay=0.95,
            normalize_advantage=True,
            normalize_observation=True,
            feed=Rollouts(steps=100),
        ),
        num_envs=8,
        total_steps=300_000,
        source="found here",
    ),
    "LunarLander-v3": Preset(
        A2CConfig(learning_rate=7e-4, entropy_weight=1e-3, normalize_return=True, feed=Rollouts(steps=8)),
        num_envs=8,
        total_steps=500_000,
        source="found here; unsteady: the best checkpoint is far above the last",
    ),
}
