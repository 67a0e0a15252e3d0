"""W4: SAC on Pendulum-v1, 256x256, 256 rows every step, Adam 1e-3, learned temperature."""

from workloads.workload import Goal, Program, Workload, sb3, whorl

W4 = Workload(
    "SAC, Pendulum-v1, 256x256, 256 rows every step",
    "steps/s",
    {
        **whorl("sac", "auto", "compiled"),
        **sb3("sac", "Pendulum-v1"),
        "sbx (JAX)": Program("peers", "learn_sb3.py", {"algorithm": "sac", "env": "Pendulum-v1", "jax": True}),
    },
    [Goal("whorl auto", "Stable-Baselines3", 2.0), Goal("whorl compiled", "sbx (JAX)", 1.1)],
)
