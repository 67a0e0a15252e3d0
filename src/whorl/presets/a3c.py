"""A3C, which is A2C with a feed of asynchronous workers: its defaults and presets."""

from whorl.agents.a2c import A2CConfig
from whorl.feeds import Shared
from whorl.presets import Preset

DEFAULT = A2CConfig(feed=Shared(workers=2, steps=20))  # steps: t_max of the paper

_CARTPOLE = A2CConfig(learning_rate=1e-3, anneal_steps=500_000, entropy_weight=0.0, feed=Shared(workers=2, steps=8))

PRESETS = {
    "CartPole-v0": Preset(_CARTPOLE, num_envs=8, total_steps=500_000, source="that of CartPole-v1"),
    "CartPole-v1": Preset(_CARTPOLE, num_envs=8, total_steps=500_000, source="A2C's, in each of two workers"),
}
