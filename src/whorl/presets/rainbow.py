"""Presets of Rainbow."""

from whorl.agents.rainbow import RainbowConfig
from whorl.feeds import Replay
from whorl.presets import Preset
from whorl.presets.atari import on_atari

PRESETS = {
    **on_atari(
        RainbowConfig(
            learning_rate=6.25e-5,
            target_every=2_000,
            target_rate=1.0,
            feed=Replay(
                batch_size=32,
                capacity=1_000_000,
                replay_ratio=0.25,
                warmup=20_000,
                n_step=3,
                prioritized=True,
                alpha=0.5,
                beta=0.4,
                beta_steps=10_000_000,
                storage="frames",
            ),
        ),
        num_envs=8,
        source="Hessel et al. 2018, table 1, with sticky actions",
    ),
    "CartPole-v1": Preset(
        RainbowConfig(
            learning_rate=1e-3,
            target_rate=0.02,
            v_min=0.0,
            v_max=100.0,
            feed=Replay(
                batch_size=128,
                capacity=100_000,
                replay_ratio=0.125,
                warmup=1_000,
                n_step=3,
                prioritized=True,
                alpha=0.5,
                beta=0.4,
            ),
        ),
        num_envs=8,
        total_steps=100_000,
        source="that of DQN",
    ),
}
