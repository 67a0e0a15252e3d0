"""W2: PPO on CartPole-v1, 1024 environments x 32 steps, else as W1."""

from workloads.workload import Goal, Program, Workload, whorl

LARGE = {"num_envs": 1024, "num_steps": 32}
W2 = Workload(
    "PPO, CartPole-v1, 1024 x 32",
    "steps/s",
    {
        **whorl("ppo_1024", "auto", "eager"),
        "CleanRL-style": Program("peers", "ppo_cleanrl.py", LARGE),
        "JAX, one jitted program": Program("peers", "ppo_jax.py", LARGE),
    },
    [Goal("whorl auto", "whorl eager", 1.5), Goal("whorl auto", "JAX, one jitted program", 0.9)],
)
