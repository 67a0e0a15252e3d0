"""SAC's presets. "Zoo" is Stable-Baselines3's rl-zoo3, hyperparams/sac.yml; "paper" is Haarnoja et al. 2018b."""

from whorl.agents.sac import SACConfig
from whorl.feeds import Replay, Sequences
from whorl.presets import Preset

PRESETS = {
    "Pendulum-v1": Preset(
        SACConfig(learning_rate=1e-3, critic_learning_rate=1e-3, feed=Replay(capacity=20_000, warmup=100)),
        num_envs=1,
        total_steps=10_000,
        source="Zoo, with a buffer of 20,000 rows and half of its steps",
    ),
    "PendulumP-v1": Preset(
        SACConfig(
            learning_rate=1e-3,
            critic_learning_rate=1e-3,
            hidden=(64,),
            memory="gru",
            memory_width=64,
            feed=Sequences(batch_size=64, capacity=20_000, warmup=1_000, length=10, burn_in=5),
        ),
        num_envs=2,
        total_steps=15_000,
        source="found here: short sequences after a burn-in, one update a step",
    ),
    "MountainCarContinuous-v0": Preset(
        SACConfig(
            discount=0.9999,
            target_rate=0.01,
            temperature=0.1,
            learn_temperature=False,
            hidden=(64, 64),
            sde=True,
            sde_every=32,
            sde_log_std=-3.67,
            feed=Replay(batch_size=512, capacity=50_000, warmup=0, steps=32),
        ),
        num_envs=1,
        total_steps=30_000,
        source="Zoo, with fewer steps; an exploration matrix is held for the 32 steps of a rollout, as there",
    ),
    "InvertedPendulum-v5": Preset(
        SACConfig(feed=Replay(capacity=100_000, warmup=1_000)),
        num_envs=1,
        total_steps=30_000,
        source="paper, with a shorter uniform start",
    ),
    "Hopper-v5": Preset(
        SACConfig(feed=Replay(warmup=10_000)),
        num_envs=1,
        total_steps=1_000_000,
        source="Zoo, whose step sizes are the paper's",
    ),
    "HalfCheetah-v5": Preset(
        SACConfig(feed=Replay(warmup=10_000)),
        num_envs=1,
        total_steps=1_000_000,
        source="Zoo, whose step sizes are the paper's",
    ),
}
