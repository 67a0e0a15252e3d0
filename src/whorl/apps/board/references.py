"""Published scores, to stand beside the rows of a board: marked as published, and never ranked against them.

They come from other protocols: CleanRL's are returns at the end of training, Tianshou's the best average within the run, the Zoo's those
of one trained agent; some are of an older version of the environment. All were read at their source in November 2026.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True)
class Reference:
    """One published score."""

    env: str  # whorl's id
    agent: str  # whorl's name, where whorl has the agent
    score: float  # mean return
    spread: float  # standard deviation, over `seeds`, or over episodes of the one seed
    steps: int  # environment steps of training
    seeds: int
    measured_on: str  # the environment's id at the source
    note: str
    source: str
    url: str


def references(env: str) -> list[Reference]:
    """The published scores for an environment, best first; none for most."""
    return sorted((row for row in REFERENCES if row.env == env), key=lambda row: (-row.score, row.agent, row.source))


_cleanrl = partial(
    Reference, seeds=3, note="episodes at the end of training", source="CleanRL, documentation and docs/benchmark (tag pr-424)",
    url="https://docs.cleanrl.dev",
)  # fmt: skip
_zoo = partial(
    Reference, seeds=1, note="one trained agent, 150,000 steps of deterministic evaluation", source="RL Baselines3 Zoo, benchmark.md",
    url="https://github.com/DLR-RM/rl-baselines3-zoo/blob/master/benchmark.md",
)  # fmt: skip
_tianshou = partial(
    Reference, seeds=10, note="best average return during the run", source="Tianshou, examples/mujoco/README.md",
    url="https://github.com/thu-ml/tianshou/blob/master/examples/mujoco/README.md",
)  # fmt: skip

_CLEANRL_CLASSIC = [
    ("CartPole-v1", "ppo", 490.04, 6.12),
    ("CartPole-v1", "dqn", 488.69, 16.11),
    ("CartPole-v1", "c51", 481.20, 20.53),
    ("CartPole-v1", "PQN", 495.13, 6.89),
    ("Acrobot-v1", "ppo", -86.36, 1.32),
    ("Acrobot-v1", "dqn", -91.54, 7.20),
    ("Acrobot-v1", "c51", -87.70, 5.52),
    ("Acrobot-v1", "PQN", -95.63, 5.73),
    ("MountainCar-v0", "ppo", -200.00, 0.0),
    ("MountainCar-v0", "dqn", -194.95, 8.48),
    ("MountainCar-v0", "c51", -166.38, 27.94),
]
_CLEANRL_MUJOCO = [
    ("HalfCheetah", "ppo", 1442.6, 46.0),
    ("HalfCheetah", "ddpg", 10374.0, 157.0),
    ("HalfCheetah", "td3", 9583.2, 126.0),
    ("HalfCheetah", "sac", 9634.9, 1423.7),
    ("Hopper", "ppo", 2382.9, 271.7),
    ("Hopper", "ddpg", 1576.8, 819.0),
    ("Hopper", "td3", 3134.6, 360.0),
    ("Hopper", "sac", 2310.5, 342.8),
    ("InvertedPendulum", "ppo", 963.1, 22.2),
    ("InvertedPendulum", "ddpg", 642.7, 69.6),
    ("InvertedPendulum", "td3", 969.0, 25.8),
    ("InvertedPendulum", "sac", 909.4, 55.7),
]
_ZOO = [  # id here, id there, agent, mean, standard deviation over episodes, steps
    ("CartPole-v1", "CartPole-v1", "ppo", 500.0, 0.0, 100_000),
    ("CartPole-v1", "CartPole-v1", "trpo", 500.0, 0.0, 100_000),
    ("CartPole-v1", "CartPole-v1", "a2c", 500.0, 0.0, 500_000),
    ("CartPole-v1", "CartPole-v1", "dqn", 500.0, 0.0, 50_000),
    ("CartPole-v1", "CartPole-v1", "qr_dqn", 500.0, 0.0, 50_000),
    ("Acrobot-v1", "Acrobot-v1", "ppo", -73.506, 18.201, 1_000_000),
    ("Acrobot-v1", "Acrobot-v1", "trpo", -83.114, 18.648, 100_000),
    ("Acrobot-v1", "Acrobot-v1", "a2c", -83.353, 17.213, 500_000),
    ("Acrobot-v1", "Acrobot-v1", "dqn", -76.639, 11.752, 100_000),
    ("Acrobot-v1", "Acrobot-v1", "qr_dqn", -69.135, 9.967, 100_000),
    ("MountainCar-v0", "MountainCar-v0", "ppo", -110.423, 19.473, 1_000_000),
    ("MountainCar-v0", "MountainCar-v0", "trpo", -107.278, 13.231, 100_000),
    ("MountainCar-v0", "MountainCar-v0", "a2c", -111.263, 24.087, 1_000_000),
    ("MountainCar-v0", "MountainCar-v0", "dqn", -100.849, 9.925, 120_000),
    ("MountainCar-v0", "MountainCar-v0", "qr_dqn", -106.042, 15.536, 120_000),
    ("MountainCarContinuous-v0", "MountainCarContinuous-v0", "ppo", 88.343, 2.572, 20_000),
    ("MountainCarContinuous-v0", "MountainCarContinuous-v0", "trpo", 92.489, 0.355, 50_000),
    ("MountainCarContinuous-v0", "MountainCarContinuous-v0", "a2c", 91.166, 0.255, 100_000),
    ("MountainCarContinuous-v0", "MountainCarContinuous-v0", "ddpg", 93.512, 0.048, 300_000),
    ("MountainCarContinuous-v0", "MountainCarContinuous-v0", "td3", 93.483, 0.075, 300_000),
    ("MountainCarContinuous-v0", "MountainCarContinuous-v0", "sac", 94.679, 1.134, 50_000),
    ("MountainCarContinuous-v0", "MountainCarContinuous-v0", "tqc", 63.641, 45.259, 50_000),
    ("Pendulum-v1", "Pendulum-v1", "ppo", -172.225, 104.159, 100_000),
    ("Pendulum-v1", "Pendulum-v1", "trpo", -174.631, 127.577, 100_000),
    ("Pendulum-v1", "Pendulum-v1", "a2c", -162.965, 103.210, 1_000_000),
    ("Pendulum-v1", "Pendulum-v1", "ddpg", -152.099, 94.282, 20_000),
    ("Pendulum-v1", "Pendulum-v1", "td3", -151.855, 90.227, 20_000),
    ("Pendulum-v1", "Pendulum-v1", "sac", -156.995, 88.714, 20_000),
    ("LunarLander-v3", "LunarLander-v2", "ppo", 242.119, 31.823, 1_000_000),
    ("LunarLander-v3", "LunarLander-v2", "trpo", 133.166, 112.173, 200_000),
    ("LunarLander-v3", "LunarLander-v2", "a2c", 155.751, 80.419, 200_000),
    ("LunarLander-v3", "LunarLander-v2", "dqn", 154.382, 79.241, 100_000),
    ("LunarLander-v3", "LunarLander-v2", "qr_dqn", 70.236, 225.491, 100_000),
    ("HalfCheetah-v5", "HalfCheetah-v3", "ppo", 5819.099, 663.530, 1_000_000),
    ("HalfCheetah-v5", "HalfCheetah-v3", "trpo", 1785.476, 68.672, 1_000_000),
    ("HalfCheetah-v5", "HalfCheetah-v3", "a2c", 3041.174, 157.265, 1_000_000),
    ("HalfCheetah-v5", "HalfCheetah-v3", "td3", 9655.666, 969.916, 1_000_000),
    ("HalfCheetah-v5", "HalfCheetah-v3", "sac", 9535.451, 100.470, 1_000_000),
    ("HalfCheetah-v5", "HalfCheetah-v3", "tqc", 12089.939, 127.440, 1_000_000),
    ("Hopper-v5", "Hopper-v3", "ppo", 2410.435, 10.026, 1_000_000),
    ("Hopper-v5", "Hopper-v3", "trpo", 3618.386, 356.768, 1_000_000),
    ("Hopper-v5", "Hopper-v3", "a2c", 733.454, 376.574, 1_000_000),
    ("Hopper-v5", "Hopper-v3", "td3", 3606.390, 4.027, 1_000_000),
    ("Hopper-v5", "Hopper-v3", "sac", 2325.547, 1129.676, 1_000_000),
    ("Hopper-v5", "Hopper-v3", "tqc", 3754.199, 8.276, 1_000_000),
]
_TIANSHOU = [
    ("HalfCheetah", "reinforce", 884.0, 41.0, 3_000_000),
    ("HalfCheetah", "ppo", 5783.9, 1244.0, 1_000_000),
    ("HalfCheetah", "trpo", 4471.2, 804.9, 1_000_000),
    ("HalfCheetah", "a2c", 1829.9, 1068.0, 1_000_000),
    ("HalfCheetah", "ddpg", 11718.7, 465.6, 1_000_000),
    ("HalfCheetah", "td3", 10201.2, 772.8, 1_000_000),
    ("HalfCheetah", "sac", 12138.8, 1049.3, 1_000_000),
    ("Hopper", "reinforce", 395.8, 64.5, 3_000_000),
    ("Hopper", "ppo", 2609.3, 700.8, 1_000_000),
    ("Hopper", "trpo", 2046.0, 1037.9, 1_000_000),
    ("Hopper", "a2c", 1253.2, 458.0, 1_000_000),
    ("Hopper", "ddpg", 2197.0, 971.6, 1_000_000),
    ("Hopper", "td3", 3472.2, 116.8, 1_000_000),
    ("Hopper", "sac", 3542.2, 51.5, 1_000_000),
    ("InvertedPendulum", "reinforce", 999.2, 2.4, 3_000_000),
    ("InvertedPendulum", "ppo", 1000.0, 0.0, 1_000_000),
    ("InvertedPendulum", "trpo", 1000.0, 0.0, 1_000_000),
    ("InvertedPendulum", "a2c", 1000.0, 0.0, 1_000_000),
    ("InvertedPendulum", "ddpg", 1000.0, 0.0, 1_000_000),
    ("InvertedPendulum", "td3", 1000.0, 0.0, 1_000_000),
    ("InvertedPendulum", "sac", 1000.0, 0.0, 1_000_000),
]

REFERENCES = (
    *(_cleanrl(env, agent, score, spread, 500_000, measured_on=env) for env, agent, score, spread in _CLEANRL_CLASSIC),
    *(
        _cleanrl(f"{env}-v5", agent, score, spread, 1_000_000, measured_on=f"{env}-v4")
        for env, agent, score, spread in _CLEANRL_MUJOCO
    ),
    *(
        _zoo(here, agent, score, spread, steps, measured_on=there)
        for here, there, agent, score, spread, steps in _ZOO
    ),
    *(
        _tianshou(f"{env}-v5", agent, score, spread, steps, measured_on=f"{env}-v3 or -v2")
        for env, agent, score, spread, steps in _TIANSHOU
    ),
)  # fmt: skip
