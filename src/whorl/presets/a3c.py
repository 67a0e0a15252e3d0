"""A3C's presets."""

from whorl.agents.a3c import A3CConfig
from whorl.feeds import Rollouts
from whorl.presets import Preset

_CARTPOLE = A3CConfig(learning_rate=1e-3, anneal_steps=500_000, entropy_weight=0.0, feed=Rollouts(steps=8))

PRESETS = {
    "CartPole-v0": Preset(_CARTPOLE, num_envs=8, total_steps=500_000, source="that of CartPole-v1"),
    "CartPole-v1": Preset(_CARTPOLE, num_envs=8, total_steps=500_000, source="A2C's, in each of two workers"),
}
