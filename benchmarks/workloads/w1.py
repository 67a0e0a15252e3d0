"""W1: PPO on CartPole-v1, 8 environments x 128 steps, 4 epochs x 4 minibatches, 64x64 tanh, Adam 1e-3."""

from workloads.workload import Goal, Program, Workload, sb3, whorl

W1 = Workload(
    "PPO, CartPole-v1, 8 x 128",
    "steps/s",
    {
        **whorl("ppo", "auto", "eager", "compiled"),
        **sb3("ppo"),
        "CleanRL-style": Program("peers", "ppo_cleanrl.py"),
        "TorchRL": Program("peers", "ppo_torchrl.py"),
        "JAX, one jitted program": Program("peers", "ppo_jax.py"),
    },
    [
        Goal("whorl auto", "whorl eager", 3.0),
        Goal("whorl auto", "CleanRL-style", 10.0),
        Goal("whorl auto", "TorchRL", 30.0),
        Goal("whorl auto", "JAX, one jitted program", 0.6),
    ],
)
W1_475 = Workload(
    "PPO, CartPole-v1, 8 x 128: from the start of the process to a mean of 475 over 20 training episodes",
    "s",
    {
        "whorl auto": Program("whorl", "reach_whorl.py", words=("SEED", "auto")),
        "whorl eager": Program("whorl", "reach_whorl.py", words=("SEED", "eager")),
        "Stable-Baselines3": Program("peers", "reach_sb3.py", words=("SEED",)),
    },
    [Goal("whorl auto", "Stable-Baselines3", 0.35), Goal("whorl auto", "whorl eager", 0.65)],
)
