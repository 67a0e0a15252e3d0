"""CEM's presets. num_envs is the size of the population."""

from whorl.agents.cem import CEMConfig
from whorl.presets import Preset

_NORMALIZED = CEMConfig(normalize_observation=True)  # the velocity of a car is a hundred times smaller than its place

PRESETS = {
    "CartPole-v0": Preset(CEMConfig(), num_envs=50, total_steps=375_000, source="that of CartPole-v1"),
    "CartPole-v1": Preset(
        CEMConfig(),
        num_envs=50,
        total_steps=375_000,  # the population that passes it takes 25,000 steps at most: never above 400,000
        source="linear policy, population 50, elite 10; noise found here",
    ),
    "Acrobot-v1": Preset(CEMConfig(), num_envs=50, total_steps=400_000, source="that of CartPole-v1"),
    "Pendulum-v1": Preset(
        CEMConfig(elite=0.3, initial_std=2.0, hidden=(8,)),
        num_envs=100,
        total_steps=1_000_000,
        source="found here; unsteady, since one episode judges a member and starts differ",
    ),
    "MountainCar-v0": Preset(_NORMALIZED, num_envs=50, total_steps=400_000, source="found here"),
    "MountainCarContinuous-v0": Preset(_NORMALIZED, num_envs=50, total_steps=400_000, source="found here"),
    "LunarLander-v3": Preset(_NORMALIZED, num_envs=50, total_steps=300_000, source="that of MountainCar-v0"),
}
