"""TD's presets. "Book" is Sutton and Barto 2018."""

from whorl.agents.td import TDConfig
from whorl.presets import Preset

_CARTPOLE = TDConfig(
    learning_rate=0.3 / 16,
    epsilon=0.0,
    tilings=16,
    low=(-2.4, -3.0, -0.2095, -3.5),
    high=(2.4, 3.0, 0.2095, 3.5),
    initial_value=50.0,
)

PRESETS = {
    "CartPole-v0": Preset(_CARTPOLE, num_envs=1, total_steps=100_000, source="that of CartPole-v1"),
    "CartPole-v1": Preset(_CARTPOLE, num_envs=1, total_steps=300_000, source="found here; optimistic values explore"),
    "MountainCar-v0": Preset(
        TDConfig(learning_rate=0.5 / 8, epsilon=0.0),
        num_envs=1,
        total_steps=100_000,
        source="Book, example 10.1 with the replacing traces of figure 12.10; values of 0 explore, as all rewards are below",
    ),
    "CliffWalking-v1": Preset(
        TDConfig(target="q_learning", trace_decay=0.0, learning_rate=0.5, epsilon=0.1),
        num_envs=1,
        total_steps=50_000,
        source="Book, example 6.6",
    ),
    "RandomWalk-v0": Preset(
        TDConfig(target="prediction", trace="accumulating", trace_decay=0.8, learning_rate=0.05),
        num_envs=1,
        total_steps=100_000,
        source="Book, example 12.1, with a small step size",
    ),
}
