"""Discrete SAC's presets."""

from whorl.agents.discrete_sac import DiscreteSACConfig
from whorl.feeds import Replay
from whorl.presets import Preset

PRESETS = {
    "CartPole-v1": Preset(
        DiscreteSACConfig(
            learning_rate=1e-3,
            critic_learning_rate=1e-3,
            target_entropy=0.5,
            hidden=(64, 64),
            feed=Replay(batch_size=128, capacity=50_000),
        ),
        num_envs=1,
        total_steps=50_000,
        source="found here",
    ),
}
