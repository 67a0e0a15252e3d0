"""IMPALA's presets."""

from whorl.agents.impala import ImpalaConfig
from whorl.feeds import Rollouts
from whorl.presets import Preset
from whorl.presets.atari import on_atari

_ATARI = ImpalaConfig(anneal_steps=50_000_000, feed=Rollouts(steps=20))

PRESETS = {
    "CartPole-v1": Preset(
        ImpalaConfig(
            learning_rate=1e-3,
            anneal_steps=500_000,
            entropy_weight=0.0,
            max_grad_norm=0.5,
            optimizer="adam",
            optimizer_eps=1e-5,
            feed=Rollouts(steps=8),
        ),
        num_envs=8,
        total_steps=500_000,
        source="that of A2C",
    ),
    **on_atari(
        _ATARI, num_envs=32, source="Espeholt et al. 2018, table D.1, with sticky actions", total_steps=50_000_000
    ),
}
