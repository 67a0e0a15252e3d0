"""PPO's presets. "Zoo" is Stable-Baselines3's rl-zoo3, hyperparams/ppo.yml."""

from dataclasses import replace

from whorl.agents.ppo import PPOConfig
from whorl.feeds import Rollouts
from whorl.presets import Preset
from whorl.presets.atari import on_atari

_ATARI = PPOConfig(
    learning_rate=2.5e-4,
    anneal_steps=10_000_000,
    clip_range=0.1,
    value_clip_range=0.1,
    entropy_weight=0.01,
    feed=Rollouts(steps=128, epochs=4, minibatches=4),
)

_REMEMBERS = PPOConfig(
    learning_rate=1e-3,
    entropy_weight=0.01,
    normalize_return=True,
    hidden=(64,),
    memory="gru",
    memory_width=64,
    feed=Rollouts(steps=128, epochs=4, minibatches=4),
)

PRESETS = {
    **on_atari(
        _ATARI, num_envs=8, source="CleanRL, ppo_atari.py; sticky actions, and games do not begin by pressing fire"
    ),
    "CartPole-v1": Preset(
        PPOConfig(learning_rate=1e-3, entropy_weight=0.01, feed=Rollouts(steps=128, epochs=4, minibatches=4)),
        num_envs=8,
        total_steps=150_000,
        source="the setting in which benchmarks/peers compares libraries",
    ),
    "CartPole-v0": Preset(
        PPOConfig(learning_rate=1e-3, entropy_weight=0.01, feed=Rollouts(steps=128, epochs=4, minibatches=4)),
        num_envs=8,
        total_steps=100_000,
        source="that of CartPole-v1",
    ),
    "Acrobot-v1": Preset(
        PPOConfig(
            learning_rate=1e-3,
            anneal_steps=500_000,
            trace_decay=0.94,
            normalize_observation=True,
            feed=Rollouts(steps=256, epochs=4, minibatches=16),
        ),
        num_envs=16,
        total_steps=500_000,
        source="Zoo, with a larger step size that is annealed",
    ),
    "Pendulum-v1": Preset(
        PPOConfig(
            learning_rate=1e-3,
            anneal_steps=500_000,
            discount=0.9,
            normalize_return=True,
            feed=Rollouts(steps=256, epochs=10, minibatches=16),
        ),
        num_envs=16,
        total_steps=500_000,
        source="Zoo, without state-dependent exploration; more steps at once, returns normalized",
    ),
    "MountainCar-v0": Preset(
        PPOConfig(
            learning_rate=1e-3,
            trace_decay=0.98,
            normalize_observation=True,
            normalize_return=True,
            feed=Rollouts(steps=128, epochs=4, minibatches=8),
        ),
        num_envs=16,
        total_steps=1_000_000,
        source="Zoo, with longer rollouts, a larger step size and returns normalized",
    ),
    "MountainCarContinuous-v0": Preset(
        PPOConfig(
            learning_rate=1e-3,
            anneal_steps=200_000,
            entropy_weight=0.01,
            kl_stop=0.05,
            normalize_observation=True,
            feed=Rollouts(steps=512, epochs=10, minibatches=16),
        ),
        num_envs=8,
        total_steps=200_000,
        source="found here",
    ),
    "LunarLander-v3": Preset(
        PPOConfig(
            learning_rate=5e-4,
            anneal_steps=1_000_000,
            discount=0.999,
            trace_decay=0.98,
            entropy_weight=0.01,
            normalize_observation=True,
            normalize_return=True,
            feed=Rollouts(steps=512, epochs=10, minibatches=32),
        ),
        num_envs=16,
        total_steps=1_000_000,
        source="Zoo, with larger minibatches, more epochs, an annealed step size, observations and returns normalized",
    ),
    "TMaze20-v0": Preset(_REMEMBERS, num_envs=16, total_steps=200_000, source="found here"),
    "CartPoleP-v1": Preset(_REMEMBERS, num_envs=16, total_steps=300_000, source="found here"),
    "RepeatPrevious-v0": Preset(
        replace(
            _REMEMBERS,
            learning_rate=2e-3,
            discount=0.5,
            feed=Rollouts(steps=128, epochs=4, minibatches=8),
        ),
        num_envs=16,
        total_steps=250_000,
        source="found here",
    ),
}
