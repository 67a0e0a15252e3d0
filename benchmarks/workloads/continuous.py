"""PPO with continuous actions, 8 environments x 128 steps, else as W1."""

from workloads.workload import Goal, Workload, sb3, whorl

PENDULUM = Workload(
    "PPO, Pendulum-v1, 8 x 128",
    "steps/s",
    {**whorl("ppo_pendulum", "auto", "eager"), **sb3("ppo", "Pendulum-v1")},
    [Goal("whorl auto", "whorl eager", 2.5)],
)
HALF_CHEETAH = Workload(
    "PPO, HalfCheetah-v5, 8 x 128",
    "steps/s",
    {**whorl("ppo_cheetah", "auto", "eager"), **sb3("ppo", "HalfCheetah-v5")},
    [Goal("whorl auto", "Stable-Baselines3", 2.0)],
)
